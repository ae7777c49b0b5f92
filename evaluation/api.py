"""Requests in the shape of OpenAI's API -> what is to be written, and back to answers of that shape.

Everything that comes in is checked here, and what is wrong with it becomes a Refused: an HTTP status, a sentence, and
the name of the field. Fields that are not known are ignored, as the clients of that API expect.
"""

import codecs
import time
import uuid
from dataclasses import dataclass, field

import torch

from evaluation.engine import Job
from evaluation.generate import Row, Sampling

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MOST_TEXTS, MOST_STOPS, MOST_STOP, MOST_LOGPROBS = 128, 16, 200, 20


class Refused(Exception):
    """A request that is not answered."""

    def __init__(self, message, param=None, status=400, code=None):
        super().__init__(message)
        self.message, self.param, self.status, self.code = message, param, status, code

    def body(self):
        """The error as clients of the API read it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass
class Wish:
    """A request that has been checked."""

    chat: bool
    prompts: list[list[int]]  # ids, each with <|endoftext|> in front
    max_tokens: int
    sampling: Sampling
    stop: list[str]
    seed: int
    n: int = 1
    echo: bool = False
    logprobs: int | None = None  # how many of the likeliest tokens are told beside the chosen one; None = nothing
    stream: bool = False
    include_usage: bool = False
    texts: list[str] = field(default_factory=list)  # of the prompts, where they are echoed
    opened: list[bool] = field(default_factory=list)  # whether a prompt came with its <|endoftext|> in front


def number(body, name, default, low, high, kind=float):
    """A field that is a number from low to high."""
    value = body.get(name)
    if value is None:
        return default
    is_number = isinstance(value, int) if kind is int else isinstance(value, int | float)
    if not is_number or isinstance(value, bool) or not low <= value <= high:
        raise Refused(f"{name} must be {'a whole number' if kind is int else 'a number'} from {low} to {high}", name)
    return kind(value)


def flag(body, name):
    """A field that is true or false."""
    value = body.get(name)
    if value not in (None, True, False) or isinstance(value, int) and not isinstance(value, bool):
        raise Refused(f"{name} must be true or false", name)
    return bool(value)


def read_stop(body):
    """The field stop: a text or a list of texts."""
    stop = body.get("stop")
    stop = [] if stop is None else [stop] if isinstance(stop, str) else stop
    is_list = isinstance(stop, list) and all(isinstance(text, str) and 0 < len(text) <= MOST_STOP for text in stop)
    if not is_list or len(stop) > MOST_STOPS:
        raise Refused(f"stop must be a text or up to {MOST_STOPS} texts of 1 to {MOST_STOP} characters", "stop")
    return [text.encode("utf-8", "replace").decode() for text in stop]  # half a surrogate pair is in no text


def read_request(body, chat, tokenizer, block_size, most_tokens):
    """The Wish of a request's JSON. Raises Refused."""
    if not isinstance(body, dict):
        raise Refused("the body must be a JSON object")
    stream_options = body.get("stream_options") or {}
    if not isinstance(stream_options, dict):
        raise Refused("stream_options must be an object", "stream_options")
    temperature = number(body, "temperature", 1.0, 0, 10)
    sampling = Sampling(
        temperature if temperature > 1e-6 else 0.0,
        max(0, number(body, "top_k", 0, -1, 10**6, int)),  # -1 is all, as 0 is
        number(body, "top_p", 1.0, 0, 1) or 1e-9,
    )
    seed = number(body, "seed", None, -(2**63), 2**64, int)
    common = {
        "sampling": sampling,
        "stop": read_stop(body),
        "seed": (time.time_ns() if seed is None else seed) % 2**63,
        "n": number(body, "n", 1, 1, MOST_TEXTS, int),
        "stream": flag(body, "stream"),
        "include_usage": flag(stream_options, "include_usage"),
    }
    wish = read_chat(body, tokenizer, common) if chat else read_completion(body, tokenizer, common)
    longest = max(map(len, wish.prompts))
    if longest > block_size:
        what = f"the prompt is too long: {longest:,} tokens with its <|endoftext|>, the context has {block_size:,}"
        raise Refused(what, "messages" if chat else "prompt", code="context_length_exceeded")
    if len(wish.prompts) * wish.n > MOST_TEXTS:
        raise Refused(f"{len(wish.prompts)} prompts x n={wish.n} is more than {MOST_TEXTS} texts", "n")
    wish.max_tokens = min(wish.max_tokens, most_tokens)
    return wish


def read_chat(body, tokenizer, common):
    """The Wish of a chat."""
    wants_calls = body.get("tool_choice") != "none"
    for name in ("tools", "functions", "tool_choice", "function_call") if wants_calls else ():
        if body.get(name) not in (None, [], "none", "auto"):
            raise Refused("this model calls no tools", name)
    form = body.get("response_format")
    if form is not None and not (isinstance(form, dict) and form.get("type") == "text"):
        raise Refused("answers are text: response_format is not supported", "response_format")
    ids = read_messages(body, tokenizer)
    top = number(body, "top_logprobs", 0, 0, MOST_LOGPROBS, int)
    logprobs = top if flag(body, "logprobs") else None
    if top and logprobs is None:
        raise Refused("top_logprobs needs logprobs: true", "top_logprobs")
    most = number(body, "max_completion_tokens", None, 1, 10**9, int) or number(
        body, "max_tokens", 10**9, 1, 10**9, int
    )
    return Wish(True, [ids], most, logprobs=logprobs, **common)


def read_messages(body, tokenizer):
    """The ids of the field messages, as a prompt for the answer."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("messages must be a list of messages", "messages")
    turns = [read_message(message, f"messages[{i}]") for i, message in enumerate(messages)]
    opens_answer = body.get("add_generation_prompt") is not False  # a field of /tokenize
    return [tokenizer.eot, *tokenizer.render(turns, generation_prompt=opens_answer)[0]]


def read_message(message, place):
    """A message as Tokenizer.render() takes it."""
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in ROLES:
        raise Refused(f"{place} must be an object with one of the roles {', '.join(ROLES)}", place)
    content = message.get("content")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        content = "".join(parts) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(content, str):
        raise Refused(f"{place}.content must be text, or a list of parts of type text", f"{place}.content")
    return {"role": ROLES[role], "content": content.encode("utf-8", "replace").decode()}


def read_completion(body, tokenizer, common):
    """The Wish of a completion."""
    prompt = body.get("prompt", "")
    if isinstance(prompt, str) or (isinstance(prompt, list) and prompt and all(type(i) is int for i in prompt)):
        prompt = [prompt]
    if not isinstance(prompt, list) or not prompt:
        raise Refused("prompt must be a text, a list of ids, or a list of these", "prompt")
    if body.get("suffix"):
        raise Refused("suffix is not supported: gaps are filled by sample.py --suffix", "suffix")
    prompts, texts, opened = [], [], []
    for part in prompt:
        if isinstance(part, str):
            prompts.append([tokenizer.eot, *tokenizer.encode(part.encode("utf-8", "surrogatepass"))])
        elif isinstance(part, list) and all(type(i) is int and 0 <= i < tokenizer.vocab_size for i in part):
            prompts.append(part if part[:1] == [tokenizer.eot] else [tokenizer.eot, *part])
        else:
            raise Refused(f"prompt holds what is neither text nor ids below {tokenizer.vocab_size}", "prompt")
        texts.append(part if isinstance(part, str) else tokenizer.decode(part))
        opened.append(part[:1] == [tokenizer.eot])
    logprobs = body.get("logprobs")
    logprobs = None if logprobs is None or logprobs is False else number(body, "logprobs", 0, 0, MOST_LOGPROBS, int)
    most = number(body, "max_tokens", 16, 0, 10**9, int)
    echo = flag(body, "echo")
    return Wish(False, prompts, most, echo=echo, logprobs=logprobs, texts=texts, opened=opened, **common)


# -- what is written


def token_data(tokenizer, token):
    """The bytes of a token's text, or of its name if it is a special one."""
    return tokenizer.token_bytes[token] or tokenizer.special_names.get(token, "").encode()


def token_text(tokenizer, token):
    """A token as answers show it: its text, or bytes:\\xe4 where it is a part of a character."""
    data = token_data(tokenizer, token)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class Told:
    """The log-probabilities of a text's tokens: what Row.on_logits is given, kept for the answer."""

    def __init__(self, tokenizer, top):
        self.tokenizer, self.top, self.entries = tokenizer, top, []

    def __call__(self, logits, token):
        """Note the log-probability of a token, and the likeliest ones."""
        logprobs = torch.log_softmax(logits.float(), -1)
        best, ids = logprobs.topk(min(self.top, len(logprobs)))
        likeliest = dict(zip(ids.tolist(), best.tolist()))
        self.entries.append((token, logprobs[token].item(), likeliest | {token: logprobs[token].item()}))

    def completion(self, start=0):
        """The field logprobs of a completion. start: where its text begins in the answer's. A token that is part of a
        character is at the place of that character."""
        found = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token, logprob, likeliest in self.entries:
            found["tokens"].append(token_text(self.tokenizer, token))
            found["token_logprobs"].append(logprob)
            named = {token_text(self.tokenizer, i): value for i, value in likeliest.items()}
            found["top_logprobs"].append(named if logprob is not None else None)
            found["text_offset"].append(start)
            start += len(decoder.decode(token_data(self.tokenizer, token)))
        return found

    def chat(self):
        """The field logprobs of a chat."""

        def entry(token, logprob):
            """A token."""
            data = list(self.tokenizer.token_bytes[token])
            return {"token": token_text(self.tokenizer, token), "logprob": logprob, "bytes": data}

        content = []
        for token, logprob, likeliest in self.entries:
            best = sorted(likeliest.items(), key=lambda pair: -pair[1])[: self.top]
            content.append({**entry(token, logprob), "top_logprobs": [entry(*pair) for pair in best]})
        return {"content": content}


def prompt_logprobs(model, tokenizer, ids, opened, top):
    """A Told of a prompt's own tokens, of which the first has no probability. opened: whether the <|endoftext|> in
    front is one of them."""
    told = Told(tokenizer, top)
    told.entries = [(tokenizer.eot, None, {})] if opened else []
    if len(ids) > 1:
        device = model.embed_tokens.weight.device
        logits = model(torch.tensor([ids[:-1]], device=device))[0, :, : tokenizer.vocab_size]
        for row, token in zip(logits, ids[1:]):
            told(row, token)
    if not opened and told.entries:
        token, _, likeliest = told.entries[0]
        told.entries[0] = token, None, likeliest
    return told


def make_job(wish, tokenizer, block_size):
    """The Job of a Wish; each of its rows is text k of prompt i, at number i * n + k."""
    job, stop_ids = (
        Job(),
        {tokenizer.special[name] for name in ("<|endoftext|>", "<|im_end|>") if name in tokenizer.special},
    )
    for i, prompt in enumerate(wish.prompts):
        for k in range(wish.n):
            limit = min(wish.max_tokens, block_size + 1 - len(prompt))  # the last token needs no place in the context
            seed = wish.seed, i, k  # with zeros behind it a seed is what it is alone, as for a request of one text
            row = Row(tokenizer, prompt, wish.stop, stop_ids, limit, seed, None, None, wish.sampling)
            row.on_logits = None if wish.logprobs is None else Told(tokenizer, wish.logprobs)
            job.add(row)
    return job


def new_id(chat):
    """A name for an answer."""
    return ("chatcmpl-" if chat else "cmpl-") + uuid.uuid4().hex[:24]


def usage(wish, job):
    """How many tokens a request took."""
    prompt_tokens = sum(map(len, wish.prompts))
    completion_tokens = sum(len(row.ids) for row in job.rows)
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


def choice(wish, job, number, told_prompts):
    """One of an answer's choices, whole. told_prompts: a Told of each prompt that is echoed with its probabilities."""
    row = job.rows[number]
    text, told = row.data.decode("utf-8", "replace"), row.on_logits
    reason = "stop" if row.reason == "stop" else "length"
    if wish.chat:
        message = {"role": "assistant", "content": text}
        return {"index": number, "message": message, "logprobs": told and told.chat(), "finish_reason": reason}
    logprobs = told and told.completion()
    if wish.echo:
        prompt = wish.texts[number // wish.n]
        text = prompt + text
        if told:
            before, behind = told_prompts[number // wish.n].completion(), told.completion(len(prompt))
            logprobs = {key: before[key] + behind[key] for key in before}
    return {"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason}


def read_ids(body, tokenizer):
    """The ids of a /detokenize request."""
    ids = body.get("tokens") if isinstance(body, dict) else None
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < tokenizer.vocab_size for i in ids):
        raise Refused(f"tokens must be a list of ids below {tokenizer.vocab_size}", "tokens")
    return ids


def rendered(body, tokenizer):
    """The ids of a /tokenize request: of a prompt or of messages."""
    if not isinstance(body, dict):
        raise Refused("the body must be a JSON object")
    if "messages" in body:
        return read_messages(body, tokenizer)
    if not isinstance(body.get("prompt"), str):
        raise Refused("prompt must be a text", "prompt")
    start = [] if body.get("add_special_tokens") is False else [tokenizer.eot]
    if not start and body["prompt"] in tokenizer.special:  # as lm-eval asks for the id of <|endoftext|>
        return [tokenizer.special[body["prompt"]]]
    return [*start, *tokenizer.encode(body["prompt"].encode("utf-8", "surrogatepass"))]
