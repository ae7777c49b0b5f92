"""A model behind an OpenAI-compatible endpoint that is asked for data: one request, with patience for what goes wrong
on the way. Only the standard library: any server that speaks the protocol will do, this project's serve.py too."""

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field

from configurator import UserError

WORTH_ANOTHER_TRY = (408, 409, 425, 429, *range(500, 600))  # statuses that may be gone a little later
LONGEST_WAIT = 60.0  # seconds between two tries
LOST = (OSError, http.client.HTTPException, ValueError, RecursionError)  # the last two: an answer that is not JSON


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Makes a redirection an error: it would carry the key to another machine."""

    def redirect_request(self, *_):
        """None: it is not followed."""


OPENER = urllib.request.build_opener(NoRedirect)


class Refused(Exception):
    """The server will not answer this request, however often it is asked; its message says why."""


class Unreachable(Exception):
    """No answer came in any of the tries; the message is of the last one."""


@dataclass
class Reply:
    """What the teacher answered."""

    text: str
    finish_reason: str  # "stop", or "length" where max_tokens cut it off
    n_tokens: int  # of the answer


@dataclass
class Teacher:
    """An endpoint and a model of it. key: "" sends none. retries: further tries of a request."""

    base_url: str
    model: str
    key: str
    timeout: float  # seconds for one try
    retries: int
    stopped: threading.Event = field(default_factory=threading.Event)  # set when no answer is wanted any more

    def ask(self, messages, **parameters):
        """The Reply to a conversation. parameters: temperature, max_tokens and so on. Raises Refused, Unreachable, and
        UserError where no request will succeed: a wrong key, a wrong address."""
        body = {"model": self.model, "messages": messages, **parameters}
        for number in range(self.retries + 1):
            try:
                return reply_of(self.call("/chat/completions", body))
            except urllib.error.HTTPError as error:
                why, wait = message_of(error), error.headers.get("Retry-After", "")
                if error.code in (401, 403, 404):
                    raise UserError(f"{self.base_url} answers {error.code}: {why}") from None
                if error.code not in WORTH_ANOTHER_TRY:
                    raise Refused(f"{error.code}: {why}") from None
                why = f"{error.code}: {why}"
            except LOST as error:
                why, wait = str(error) or type(error).__name__, ""
            if number == self.retries or self.stopped.wait(seconds_to_wait(number, wait)):
                break
        raise Unreachable(why)

    def first_model(self):
        """The name of the first model that the endpoint lists. Raises UserError."""
        try:
            return self.call("/models")["data"][0]["id"]
        except urllib.error.HTTPError as error:
            raise UserError(f"{self.base_url} answers {error.code}: {message_of(error)}") from None
        except (*LOST, LookupError, TypeError) as error:
            raise UserError(f"no endpoint at {self.base_url} ({error}): is its server running?") from None

    def call(self, path, body=None):
        """What the endpoint answers, as JSON. Raises HTTPError for an error, one of LOST where no whole answer came."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base_url.rstrip("/") + path, data, headers)
        end, answer = time.monotonic() + self.timeout, b""
        with OPENER.open(request, timeout=self.timeout) as response:
            while part := response.read1(1 << 16):
                answer += part
                if time.monotonic() > end:  # each part came in time, but not all of them
                    raise TimeoutError("the answer took too long")
        return json.loads(answer)


def reply_of(answer):
    """The Reply in an answer of /chat/completions. Raises ValueError where there is none."""
    try:
        choice = answer["choices"][0]
        text, reason = choice["message"]["content"] or "", choice["finish_reason"]  # null: of one who refuses, say
        n_tokens = answer["usage"]["completion_tokens"]
    except (LookupError, TypeError):
        raise ValueError("an answer without choices or usage") from None
    if not isinstance(text, str) or type(n_tokens) is not int:
        raise ValueError("an answer without text or usage")
    text = text.encode("utf-8", "replace").decode().replace("\r\n", "\n")  # JSON can hold half a character
    return Reply(text, str(reason), n_tokens)


def message_of(error):
    """What the server says of an error, in one line."""
    try:
        text = error.read().decode("utf-8", "replace")
        text = json.loads(text)["error"]["message"]
    except (*LOST, LookupError, TypeError):
        text = error.reason
    return " ".join(str(text).split())[:300]


def seconds_to_wait(number, asked):
    """Before the next try: as long as the server asks for, else twice as long each time, from half a second on."""
    try:
        wait = float(asked)
    except ValueError:  # none, or a date
        wait = 0.5 * 2**number
    return min(max(wait, 0.0), LONGEST_WAIT)
