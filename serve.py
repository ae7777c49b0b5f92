"""A checkpoint behind an OpenAI-compatible endpoint, with a chat page at its root.

    python serve.py --checkpoint=out/sft
    curl http://127.0.0.1:8000/v1/chat/completions -d '{"messages": [...]}'

All requests share one batch (evaluation/engine.py), so that many take little longer than one. What is
asked for is checked in evaluation/api.py, and whatever is wrong with it is answered by one JSON
error. Only this machine can reach it unless --host says otherwise; then give it a --key.
"""

import needs  # noqa: F401

import codecs
import contextlib
import hmac
import json
import queue
import select
import signal
import socket
import threading
import time
import traceback
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import configurator
from configurator import UserError
from evaluation import api
from evaluation.api import Refused
from evaluation.engine import Engine, Full
from ranges import Context, Device, Positive, Precision, Range, SmallCount, Text
from tokenizer import CHAT_TEMPLATE
from training import checkpoint
from training import machine as machines

PAGE = Path(__file__).with_name("serve.html")
MOST_BODY = 4_000_000  # bytes of a request
ROUTES = {  # path: (method, Handler's function)
    "/": ("GET", "page"),
    "/health": ("GET", "health"),
    "/v1/models": ("GET", "models"),
    "/v1/models/": ("GET", "model"),  # with the model's name behind it
    "/tokenizer_info": ("GET", "about"),
    "/tokenize": ("POST", "tokenize"),
    "/detokenize": ("POST", "detokenize"),
    "/v1/completions": ("POST", "completions"),
    "/v1/chat/completions": ("POST", "chat"),
}
OPEN = ("/", "/health")  # what needs no key
LOOPBACK = ("127.0.0.1", "localhost", "::1")
IDLE = 30  # seconds that a connection may say nothing
LINGER = 5  # seconds for which a client may go on sending what is not read any more


@dataclass
class Settings:
    """What is served, to whom, and how much of it."""

    # -- what is served
    checkpoint: str = "out/sft"  # a checkpoint or a folder of them, of which the newest is taken
    name: Text = ""  # what the model is called; empty = by the checkpoint's path
    # -- to whom
    host: Text = "127.0.0.1"  # the address to listen on; 0.0.0.0 = every machine that can reach this one
    port: Annotated[int, Range(0, 65535)] = 8000  # 0 = a free one
    key: Text = ""  # what requests must carry as "Authorization: Bearer KEY"; empty = nothing
    # -- how much
    batch_size: SmallCount = 32  # texts that are written at once
    most_waiting: SmallCount = 256  # texts that wait for a place; more are refused (429)
    most_tokens: Context = 4096  # to write for each text at most
    most_seconds: Positive = 300.0  # after which a request that is not ready is refused (503)
    # -- machine
    device: Device | None = None  # what to compute on; auto = the first of these that is there
    dtype: Precision | None = None  # format of matrix products; auto = bf16 where the device has units for it


def main(settings):
    """Serve until stopped."""
    server = make_server(settings)
    url = server.url()
    chat = "" if server.meta.get("chat") else " (it was not tuned on conversations: its answers will be odd)"
    print(f"{server.name} at {url}/ and {url}/v1{chat}", flush=True)
    if settings.host not in LOOPBACK and not settings.key:
        print("anybody who can reach this address can use it: --key=SECRET asks for a key", flush=True)

    def end(*_):
        """Let serve_forever return."""
        threading.Thread(target=server.shutdown, daemon=True).start()

    for number in machines.heeded_signals():
        signal.signal(number, end)
    server.serve_forever(poll_interval=0.2)
    server.engine.stop()


def make_server(settings):
    """The server, listening, with its engine running."""
    machine = machines.start(settings.device, settings.dtype)
    model, tokenizer, meta = checkpoint.load_model(settings.checkpoint, machine)
    try:
        server = Server(settings.host, settings.port)
    except (OSError, OverflowError, TypeError, ValueError) as error:  # TypeError: a name that IDNA does not have
        raise UserError(f"cannot listen on {settings.host}:{settings.port}: {error}") from None
    server.settings, server.tokenizer, server.meta = settings, tokenizer, meta
    server.name, server.block_size = settings.name or settings.checkpoint.rstrip("/"), model.config.block_size
    server.engine = Engine(model, tokenizer, settings.batch_size, settings.most_waiting)
    server.started = int(time.time())
    return server


def json_of(data):
    """The value that a body's JSON holds. Raises Refused."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body is not JSON: {str(error)[:200]}") from None


class Server(ThreadingHTTPServer):
    """A thread for each connection."""

    daemon_threads, request_queue_size, allow_reuse_address = True, 128, True

    def __init__(self, host, port):
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)

    def url(self):
        """Where it listens."""
        host, port = self.server_address[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def handle_error(self, request, client_address):
        """A connection that broke off is nothing to tell; Handler tells of faults."""


class Handler(BaseHTTPRequestHandler):
    """One connection: request after request."""

    protocol_version, timeout, disable_nagle_algorithm = "HTTP/1.1", IDLE, True

    def finish(self):
        """End the connection. To close it while the client sends would reset it, and the client would see that instead
        of the answer that its request is too large: so what still comes is thrown away."""
        super().finish()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            end = time.monotonic() + LINGER
            self.connection.settimeout(LINGER)
            while time.monotonic() < end and self.connection.recv(1 << 16):
                pass

    def do_GET(self):
        """Answer a GET."""
        self.answer()

    def do_POST(self):
        """Answer a POST."""
        self.answer()

    def answer(self):
        """Call the function of a path. Whatever is wrong is one JSON error."""
        self.began = False
        try:
            path = self.path.partition("?")[0].rstrip("/") or "/"
            data = self.data()
            self.check_origin()
            if unquote(path) == f"/v1/models/{self.server.name}":
                path = "/v1/models/"
            method, name = ROUTES.get(path, (None, None))
            if method != self.command:
                raise Refused(f"{self.command} {path} is nothing here", status=405 if method else 404)
            if path not in OPEN:
                self.check_key()
            getattr(self, name)(*([json_of(data)] if method == "POST" else []))
        except Refused as refused:
            self.send_json(refused.body(), refused.status)
        except UserError as error:
            self.send_json(Refused(str(error)).body(), 400)
        except Full:
            self.send_json(Refused("too many requests wait: try again", status=429).body(), 429)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # a fault of this program's, which must not end it
            traceback.print_exc()
            self.send_json(Refused(f"internal error: {type(error).__name__}", status=500).body(), 500)

    def data(self):
        """The bytes of a request's body. Raises Refused."""
        lengths = set(self.headers.get_all("Content-Length", ["0"] if self.command == "GET" else []))
        length = lengths.pop() if len(lengths) == 1 else ""
        is_number = length.isascii() and length.isdigit()
        is_short = is_number and len(length) < 10 and int(length) <= MOST_BODY
        if not is_short or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # what follows cannot be told from the next request
            status = 413 if is_number and not is_short else 411
            raise Refused(f"a request needs a Content-Length of up to {MOST_BODY:,} bytes", status=status)
        return self.rfile.read(int(length))

    def check_origin(self):
        """Raise Refused for what another site's page asks for in a person's browser."""
        origin, host = self.headers.get("Origin", ""), self.headers.get("Host", "")
        try:
            site, machine = urlsplit(origin).netloc, urlsplit(f"//{host}").hostname
        except ValueError as error:  # of "[", which would begin an IPv6 address
            raise Refused(f"Host or Origin is no address: {error}") from None
        if origin and (not site or site != host):  # the Origin "null" has none
            raise Refused("requests of other sites' pages are not answered", status=403)
        if self.server.settings.host in LOOPBACK and machine not in (None, *LOOPBACK):
            raise Refused(f"this is not {host}", status=403)

    def check_key(self):
        """Raise Refused where the key is missing or wrong."""
        key, given = self.server.settings.key, self.headers.get("Authorization", "").encode("latin-1")
        if key and not hmac.compare_digest(given, f"Bearer {key}".encode()):
            raise Refused("a key is needed: Authorization: Bearer KEY", status=401, code="invalid_api_key")

    # -- small answers

    def send_json(self, value, status=200):
        """Send a JSON object; nothing where an answer has begun already."""
        if not self.began:
            self.send(json.dumps(value).encode(), "application/json", status)

    def send(self, data, kind, status=200):
        """Send an answer."""
        self.began = True
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_error(self, code, message=None, explain=None):
        """What the library says of requests that are no HTTP, as JSON. They are the client's mistakes, so its 501 for a
        method and its 505 for a version are none here; and the answer has a status line whatever that version was."""
        code = {501: 405, 505: 400}.get(code, code)
        self.began, self.close_connection, self.request_version = False, True, self.protocol_version
        self.send_json(Refused(message or "bad request", status=code).body(), code)

    def log_message(self, form, *values):
        """Nothing of single requests."""

    def page(self):
        """The chat page."""
        self.send(PAGE.read_bytes(), "text/html; charset=utf-8")

    def health(self):
        """That it is there."""
        alive = self.server.engine.thread.is_alive()
        self.send_json({"status": "ok" if alive else "the engine has ended"}, 200 if alive else 500)

    def models(self):
        """The one model, as a list."""
        self.send_json({"object": "list", "data": [self.described()]})

    def model(self):
        """The one model, by its name."""
        self.send_json(self.described())

    def described(self):
        """What is told of the model."""
        about = {"id": self.server.name, "object": "model", "created": self.server.started, "owned_by": "wizardlearner"}
        return {**about, "max_model_len": self.server.block_size}

    def about(self):
        """What lm-eval wants to know of the tokenizer."""
        names = {"eos_token": "<|im_end|>", "bos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
        self.send_json({**names, "chat_template": CHAT_TEMPLATE})

    def tokenize(self, body):
        """Ids of a text or of messages."""
        ids = api.rendered(body, self.server.tokenizer)
        self.send_json({"tokens": ids, "count": len(ids), "max_model_len": self.server.block_size})

    def detokenize(self, body):
        """The text of ids."""
        self.send_json({"prompt": self.server.tokenizer.decode(api.read_ids(body, self.server.tokenizer))})

    # -- what the model writes

    def completions(self, body):
        """Continue texts."""
        self.write(body, chat=False)

    def chat(self, body):
        """Answer a conversation."""
        self.write(body, chat=True)

    def write(self, body, chat):
        """Let the engine write, and send it whole or as it grows."""
        server = self.server
        wish = api.read_request(body, chat, server.tokenizer, server.block_size, server.settings.most_tokens)
        job = api.make_job(wish, server.tokenizer, server.block_size)
        most = server.settings.most_waiting + server.settings.batch_size
        if job.n_open() > most:  # "try again" would be no help
            raise Refused(f"{job.n_open()} texts are more than may be written and wait, {most}", "n")
        told, end = [], time.monotonic() + server.settings.most_seconds
        if wish.echo and wish.logprobs is not None:
            for ids, opened in zip(wish.prompts, wish.opened):
                self.check_in_time(end)
                about = server.tokenizer, ids, opened, wish.logprobs
                told.append(server.engine.run(lambda model: api.prompt_logprobs(model, *about)))
        server.engine.add(job)
        head = {"id": api.new_id(chat), "created": int(time.time()), "model": server.name}
        try:
            if wish.stream:
                self.stream(wish, job, head, told, end)
            else:
                for _ in self.news(job, end):
                    pass
                choices = [api.choice(wish, job, number, told) for number in range(len(job.rows))]
                kind = "chat.completion" if chat else "text_completion"
                self.send_json({**head, "object": kind, "choices": choices, "usage": api.usage(wish, job)})
        finally:
            job.cancel()

    def check_in_time(self, end):
        """Raises ConnectionError where the client has gone, and Refused after `end`, by time.monotonic()."""
        self.check_client()
        if time.monotonic() > end:
            raise Refused(f"not ready after {self.server.settings.most_seconds:g} seconds", status=503, code="timeout")

    def news(self, job, end):
        """Yield (number, bytes or None) until all rows have ended. Raises what check_in_time() does."""
        left, checked = len(job.rows), 0.0
        while left:
            if time.monotonic() > checked + 0.5:
                checked = time.monotonic()
                self.check_in_time(end)
            try:
                news = job.news.get(timeout=0.5)
            except queue.Empty:
                continue
            if isinstance(news, Exception):
                raise news
            left -= news[1] is None
            yield news

    def check_client(self):
        """Raise ConnectionError where the client has closed its end: nobody reads the answer."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        if poll.poll(0) and not self.connection.recv(1, socket.MSG_PEEK):
            raise ConnectionError

    def stream(self, wish, job, head, told, end):
        """Send what is written as it grows: server-sent events, the last of them [DONE]."""
        self.began, self.close_connection = True, True
        self.send_response(200)
        fields = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "Connection": "close"}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        head = {**head, "object": "chat.completion.chunk" if wish.chat else "text_completion"}
        decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in job.rows]

        def event(number, text=None, reason=None, logprobs=None, first=False):
            """Send a chunk of a choice."""
            delta = ({"role": "assistant", "content": ""} if first else {}) | ({"content": text} if text else {})
            part = {"delta": delta} if wish.chat else {"text": text or ""}
            self.event({**head, "choices": [{"index": number, **part, "logprobs": logprobs, "finish_reason": reason}]})

        for number in range(len(job.rows)):
            if wish.chat:
                event(number, first=True)
            elif wish.echo:
                event(number, wish.texts[number // wish.n])
        try:
            for number, data in self.news(job, end):
                text = decoders[number].decode(data or b"", final=data is None)
                if data is not None and text:
                    event(number, text)
                elif data is None:
                    whole = api.choice(wish, job, number, told)
                    event(number, text, whole["finish_reason"], whole["logprobs"])
            if wish.include_usage:
                self.event({**head, "choices": [], "usage": api.usage(wish, job)})
        except OSError:
            raise
        except Exception as error:  # told in the stream, which would else look whole
            refused = error if isinstance(error, Refused) else Refused(f"internal error: {error!r}", status=500)
            self.event(refused.body())
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, value):
        """Send one event."""
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
        self.wfile.flush()


if __name__ == "__main__":
    configurator.run(main, Settings)
