"""Requests that are none, for experiments.serve_load: what a broken client, a scanner or a prankster might send."""

import json
import socket
from dataclasses import dataclass

GOOD = {  # path: a body that is in order
    "/v1/completions": {"prompt": "x", "max_tokens": 2},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2},
    "/tokenize": {"prompt": "x"},
    "/detokenize": {"tokens": [1, 2]},
}
NUMBERS = [True, "x", "1", [], {}, [1], -(10**30), 10**30, float("nan"), float("inf")]
FLAGS = [1, 0, "true", [], {}, 0.5]
COMMON = {
    "temperature": [*NUMBERS, -0.1, 10.5],
    "top_p": [*NUMBERS, 1.5],
    "top_k": [*NUMBERS, 0.5],
    "max_tokens": [*NUMBERS, -1, 1.5],
    "n": [*NUMBERS, 0, 129],
    "seed": [*NUMBERS, 1.5],
    "stop": [1, True, {}, "", [""], [None], ["x"] * 17, "x" * 201],
    "stream": FLAGS,
    "stream_options": [1, "x", [1], {"include_usage": 1}],
}
MESSAGES = [
    *[None, 1, "x", {}, [], [1], ["x"], [[]], [{}], [{"role": "user"}], [{"content": "x"}]],
    *[[{"role": role, "content": "x"}] for role in (None, 1, "", "tool", "USER", [], {})],
    *[
        [{"role": "user", "content": content}]
        for content in (None, 1, {}, ["x"], [{"type": "image_url"}], [{"text": 1}])
    ],
]
WRONG = {  # path: {field: values that it must not have}
    "/v1/completions": COMMON
    | {
        "prompt": [
            None,
            1,
            0.5,
            True,
            {},
            [],
            [None],
            [{}],
            ["x", 1],
            [[-1]],
            [[10**30]],
            [[0.5]],
            [True],
            "x " * 99_999,
        ],
        "echo": FLAGS,
        "logprobs": ["x", -1, 21, True, [], 1.5],
        "suffix": ["x", 1, [1]],
    },
    "/v1/chat/completions": COMMON
    | {
        "messages": MESSAGES,
        "logprobs": FLAGS,
        "top_logprobs": ["x", -1, 21, True, [], 1.5, 3],
        "max_completion_tokens": [*NUMBERS, 0],
        "tools": ["x", 1, {}, [{"type": "function"}]],
        "tool_choice": ["required", 1, {}],
    },
    "/tokenize": {"prompt": [None, 1, [], {}, True, ["x"]], "messages": MESSAGES},
    "/detokenize": {"tokens": [None, 1, "x", {}, ["x"], [-1], [10**30], [0.5], [True], [None], [[1]]]},
}
NOT_AT = {  # what the first line and headers must not hold
    "path": ["/v1", "/v2/completions", "/etc/passwd", "/../serve.py", "/%00", "/\xff", "/v1/models/x"],
    "method": ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "get", "GET"],
    "length": ["", "-1", "+2", "abc", "1e3", "0x10", "2, 2", "1.0", "99999999999", "9" * 400, "4000001", "\xb2"],
    "key": ["", "Bearer", "Bearer x", "Bearer \xff\xfe", "Basic x"],
    "place": ["Host: evil.example", "Host: [", "Origin: http://evil.example", "Origin: http://[", "Origin: null"],
    "version": ["HTTP/9.9", "HTTP/2.0", "HTTP/1", "HTTP/1.x", "HTTP/", "http/1.1", "SSH-2.0", "HTTP/-1.1"],
}
KINDS = ["random bytes", "broken JSON", "wrong field", "no object", "path", "method", "key", "place", "length"]
KINDS += ["half sent", "huge headers", "version", "no HTTP"]


@dataclass
class Request:
    """What is sent. may_be_dropped: whether it is no HTTP, so that closing the connection is an answer too."""

    kind: str
    data: bytes
    may_be_dropped: bool = False


def make(rng, key):
    """A Request of a random kind; key: the one that the server asks for."""
    kind, path = rng.choice(KINDS), rng.choice(list(GOOD))
    body, wrong = GOOD[path], rng.choice(NOT_AT.get(kind, [""]))
    good, lines = json.dumps(body).encode(), [f"Authorization: Bearer {key}"]
    data = http("POST", path, good, *lines)
    if kind == "random bytes":
        data = http("POST", path, rng.randbytes(rng.randrange(3000)), *lines)
    elif kind == "broken JSON":
        data = http("POST", path, broken(rng, good), *lines)
    elif kind == "wrong field":
        field = rng.choice(list(WRONG[path]))
        data = http("POST", path, json.dumps(body | {field: rng.choice(WRONG[path][field])}).encode(), *lines)
    elif kind == "no object":
        data = http("POST", path, json.dumps(rng.choice([None, 1, "x", [], [body], True])).encode(), *lines)
    elif kind == "path":
        data = http(rng.choice(["GET", "POST"]), f"{wrong}/{rng.randrange(10**6)}", good, *lines)
    elif kind == "method":
        data = http(wrong, path, good, *lines)
    elif kind == "key":
        data = http("POST", path, good, f"Authorization: {wrong}")
    elif kind == "place":
        data = http("POST", path, good, *lines, wrong)
    elif kind == "length":
        no, right, bad = [], f"Content-Length: {len(good)}", f"Content-Length: {wrong}"
        data = head("POST", path, *lines, *rng.choice([no, [bad], [right, bad], [right, "Transfer-Encoding: chunked"]]))
        data += good
    elif kind == "half sent":
        data = data[: rng.randrange(len(data))]
    elif kind == "huge headers":
        size = rng.randrange(66_000, 300_000)
        data = http("POST", path, good, *rng.choice([["X: " + "y" * size], ["X: y"] * (size // 500)]))
        data = rng.choice([data, head("GET", "/" + "x" * size)])
    elif kind == "version":
        data = data.replace(b"HTTP/1.1", wrong.encode())
    elif kind == "no HTTP":
        data = rng.randbytes(rng.randrange(1, 3000)) + rng.choice([b"", b"\r\n\r\n"])
    return Request(kind, data, kind in ("half sent", "no HTTP"))


def head(method, path, *lines):
    """The first line and headers of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def http(method, path, body, *lines):
    """A whole request."""
    return head(method, path, f"Content-Length: {len(body)}", *lines) + body


def broken(rng, data):
    """JSON that is none any more: cut off, deep beyond bounds, with something behind it, or as UTF-8 is not."""
    ways = [data[: rng.randrange(len(data))], b"[" * rng.randrange(5_000, 100_000), data + b"}", b"\xff" + data]
    return rng.choice([*ways, data.replace(b'"', b"'"), data[:-1] + b', "seed": ' + b"9" * 5000 + b"}"])


def exchange(port, data, patience):
    """What comes back until the server closes the connection, or an OSError."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=patience) as link:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            back = b""
            while part := link.recv(1 << 16):
                back += part
        return back
    except OSError as error:
        return error


def verdict(request, back):
    """(answer in a word, what is wrong with it or "")."""
    if isinstance(back, OSError):
        return type(back).__name__, f"{type(back).__name__}: {back}"
    if not back:
        return "closed", "" if request.may_be_dropped else "closed without an answer"
    first, _, body = back.partition(b"\r\n\r\n")
    words = first.split(b"\r\n")[0].split()
    if len(words) < 2 or words[0] != b"HTTP/1.1" or not words[1].isdigit():
        return "no HTTP", f"{back[:100]!r}"
    status = words[1].decode()
    if not status.startswith("4"):
        return status, f"{back[-200:]!r}"
    try:
        is_told = request.data.startswith(b"HEAD ") or isinstance(json.loads(body)["error"]["message"], str)
    except (ValueError, LookupError, TypeError):
        is_told = False
    return status, "" if is_told else f"no JSON error: {back[-200:]!r}"
