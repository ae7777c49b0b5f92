"""The endpoint: what it writes is what the decoder writes, many at a time; and whatever is wrong is one JSON error."""

import dataclasses
import http.client
import json
import random
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
import torch
from conftest import load_model, untrained_checkpoint

import serve
from evaluation.generate import Sampling, generate, prompt_ids


@pytest.fixture(scope="module")
def served(tmp_path_factory, tokenizer):
    """(server, model) of an untrained model whose context is 96 tokens; five texts at a time."""
    folder = tmp_path_factory.mktemp("served")
    untrained_checkpoint(folder, tokenizer, 96)
    settings = serve.Settings(checkpoint=str(folder), port=0, batch_size=5, most_waiting=40, dtype="fp32", device="cpu")
    server = serve.make_server(settings)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server, load_model(folder)[0]
    server.shutdown()
    server.engine.stop()


def ask(server, path, body=None, method="POST", headers=()):
    """(status, JSON or text) of a request."""
    link = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    data = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
    link.request(method, path, data, dict(headers))
    reply = link.getresponse()
    text = reply.read().decode()
    link.close()
    return reply.status, json.loads(text) if reply.getheader("Content-Type") == "application/json" else text


def events(text):
    """The JSON of server-sent events; the last must be [DONE]."""
    found = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
    assert found[-1] == "[DONE]"
    return [json.loads(event) for event in found[:-1]]


def written(served, prompt, seed=0, temperature=0.0, tokens=30, chat=False, stop=()):
    """What the decoder writes for one prompt alone."""
    server, model = served
    ids, sampling = prompt_ids(server.tokenizer, prompt, chat), Sampling(temperature)
    (found,) = generate(model, server.tokenizer, [ids], tokens, sampling, seeds=[seed], stops=[list(stop)])
    return found


def test_it_writes_what_the_decoder_writes(served):
    status, reply = ask(served[0], "/v1/completions", {"prompt": "def f(x):", "max_tokens": 30, "temperature": 0})
    expected = written(served, "def f(x):")
    (choice,) = reply["choices"]
    assert status == 200 and choice["text"] == expected.text and choice["finish_reason"] == expected.reason
    assert reply["usage"]["completion_tokens"] == len(expected.ids) and reply["object"] == "text_completion"
    body = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "max_tokens": 9,
        "temperature": 0,
    }
    _, reply = ask(served[0], "/v1/chat/completions", body)
    assert reply["choices"][0]["message"] == {
        "role": "assistant",
        "content": written(served, "hi", chat=True, tokens=9).text,
    }


def test_a_text_does_not_depend_on_its_neighbours(served):
    """Forty requests at once, in a batch of five: each is what its seed alone gives."""

    def one(seed):
        prompt = f"def f{seed}(" + "x, " * (seed % 7)
        body = {"prompt": prompt, "seed": seed, "temperature": 1 + seed % 3, "max_tokens": 5 + seed}
        status, reply = ask(served[0], "/v1/completions", body)
        expected = written(served, prompt, seed, 1 + seed % 3, 5 + seed)
        return status == 200 and reply["choices"][0]["text"] == expected.text

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(one, range(40)))


def test_several_prompts_and_several_texts(served):
    body = {"prompt": ["a = ", "b = "], "n": 2, "seed": 7, "temperature": 1, "max_tokens": 8}
    _, reply = ask(served[0], "/v1/completions", body)
    seeds = [("a = ", 7), ("a = ", (7, 0, 1)), ("b = ", (7, 1, 0)), ("b = ", (7, 1, 1))]
    texts = [choice["text"] for choice in reply["choices"]]
    assert texts == [written(served, prompt, seed, 1.0, 8).text for prompt, seed in seeds]
    _, reply = ask(served[0], "/v1/completions", {**body, "seed": 8})
    assert not {choice["text"] for choice in reply["choices"]} & set(texts), "another seed draws other texts"


def test_a_stream_is_the_same_text_in_pieces(served):
    body = {"messages": [{"role": "user", "content": "hi"}], "temperature": 1, "seed": 3, "max_tokens": 40}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    _, text = ask(served[0], "/v1/chat/completions", body)
    first, *middle, last, usage = events(text)
    assert first["choices"][0]["delta"]["role"] == "assistant" and usage["choices"] == []
    expected = written(served, "hi", 3, 1.0, 40, chat=True)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in [*middle, last]) == expected.text
    assert last["choices"][0]["finish_reason"] == expected.reason
    assert usage["usage"]["completion_tokens"] == len(expected.ids)


def test_a_stop_string_is_not_shown_in_a_stream(served):
    stop, seed = None, 0
    while not stop:  # random bytes are mostly no characters, and are shown as others
        seed += 1
        stop = re.search("[ -~]{3}", written(served, "x", seed, 1.0, 60).text[5:])
    stop = stop[0]
    body = {"prompt": "x", "seed": seed, "temperature": 1, "max_tokens": 60, "stop": stop, "stream": True}
    _, text = ask(served[0], "/v1/completions", body)
    found = "".join(chunk["choices"][0]["text"] for chunk in events(text))
    assert found == written(served, "x", seed, 1.0, 60, stop=[stop]).text and stop not in found


def test_log_probabilities_are_those_of_the_model(served):
    """As lm-eval asks for them: the prompt echoed, and a token more."""
    server, model = served
    ids = server.tokenizer.encode("def area(r):")
    body = {"prompt": [server.tokenizer.eot, *ids], "echo": True, "logprobs": 2, "max_tokens": 1, "temperature": 0}
    _, reply = ask(server, "/v1/completions", body)
    found = reply["choices"][0]["logprobs"]
    with torch.no_grad():
        logits = model(torch.tensor([[server.tokenizer.eot, *ids]]))[0, :, : server.tokenizer.vocab_size]
    logprobs = torch.log_softmax(logits.float(), -1)
    expected = [logprobs[i, token].item() for i, token in enumerate(ids)]
    assert found["token_logprobs"][0] is None and found["token_logprobs"][1:-1] == pytest.approx(expected, abs=1e-4)
    assert len(found["tokens"]) == len(ids) + 2 and found["tokens"][0] == "<|endoftext|>"
    assert found["token_logprobs"][-1] == pytest.approx(logprobs[-1].max().item(), abs=1e-4)
    assert all(len(top) in (2, 3) for top in found["top_logprobs"][1:])
    assert "".join(found["tokens"][1:-1]) == "def area(r):"
    body = {"messages": [{"role": "user", "content": "hi"}], "logprobs": True, "top_logprobs": 3, "max_tokens": 4}
    _, reply = ask(server, "/v1/chat/completions", body)
    content = reply["choices"][0]["logprobs"]["content"]
    assert all(len(entry["top_logprobs"]) == 3 and entry["logprob"] <= 0 for entry in content)


def test_offsets_are_places_in_the_text(served):
    """Of tokens that are parts of a character, too, which are shown as bytes:\\xc3."""
    server, text = served[0], "été 中 😀 x"
    ids = [token for byte in text.encode() for token in range(server.tokenizer.eot) if is_byte(server, token, byte)]
    body = {"prompt": ids, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    found = ask(server, "/v1/completions", body)[1]["choices"][0]["logprobs"]
    assert found["tokens"][:3] == ["bytes:\\xc3", "bytes:\\xa9", "t"]
    expected = [len(text.encode()[:n].decode("utf-8", "ignore")) for n in range(len(ids) + 1)]
    assert found["text_offset"] == expected


def is_byte(server, token, byte):
    """Whether a token stands for this one byte."""
    return server.tokenizer.token_bytes[token] == bytes([byte])


def test_a_full_queue_is_told_and_asked_again(served, monkeypatch):
    """Five texts can be written at a time: they need not wait."""
    monkeypatch.setattr(served[0].engine, "most_waiting", 0)
    assert ask(served[0], "/v1/completions", {**GOOD, "n": 6})[0] == 429
    assert ask(served[0], "/v1/completions", {**GOOD, "n": 5})[0] == 200


def test_the_time_for_what_is_told_of_prompts_is_bounded_too(served, monkeypatch):
    monkeypatch.setattr(served[0].settings, "most_seconds", 0.0)
    told = {**GOOD, "prompt": ["a"] * 8, "max_tokens": 0, "echo": True, "logprobs": 1}
    asked = []
    monkeypatch.setattr(serve.api, "prompt_logprobs", lambda *about: asked.append(about))
    assert ask(served[0], "/v1/completions", told)[0] == 503 and not asked


def test_it_listens_on_ipv6(served):
    settings = dataclasses.replace(served[0].settings, host="::1")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = serve.make_server(settings)
    assert server.url() == f"http://[::1]:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        assert ask(server, "/health", method="GET")[0] == 200
    finally:
        server.shutdown()
        server.engine.stop()


def test_the_other_routes(served):
    server = served[0]
    assert ask(server, "/health", method="GET") == (200, {"status": "ok"})
    (about,) = ask(server, "/v1/models", method="GET")[1]["data"]
    assert about["max_model_len"] == 96
    assert ask(server, f"/v1/models/{quote(about['id'], safe='')}", method="GET") == (200, about)
    assert ask(server, "/v1/models/other", method="GET")[0] == 404
    _, found = ask(server, "/tokenize", {"prompt": "été <|im_end|>"})
    assert found["tokens"] == [server.tokenizer.eot, *server.tokenizer.encode("été <|im_end|>")]
    assert ask(server, "/detokenize", {"tokens": found["tokens"]})[1] == {"prompt": "<|endoftext|>été <|im_end|>"}
    _, found = ask(server, "/tokenize", {"messages": [{"role": "user", "content": "hi"}]})
    assert found["tokens"] == prompt_ids(server.tokenizer, "hi", chat=True)
    whole = {"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": False}
    assert len(ask(server, "/tokenize", whole)[1]["tokens"]) < len(found["tokens"])
    tools = {"tools": [{"type": "function"}], "tool_choice": "none", "top_k": -1}
    assert ask(server, "/v1/chat/completions", {**CHAT, **tools})[0] == 200
    assert "<textarea" in ask(server, "/", method="GET")[1]
    assert ask(server, "/tokenizer_info", method="GET")[1]["eos_token"] == "<|im_end|>"


GOOD = {"prompt": "x", "max_tokens": 2}
CHAT = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}


@pytest.mark.parametrize(
    "path, body, status, param",
    [
        ("/v1/nothing", GOOD, 404, None),
        ("/health", {}, 405, None),
        ("/v1/completions", b"{", 400, None),
        ("/v1/completions", b"[" * 100_000, 400, None),
        ("/v1/completions", [GOOD], 400, None),
        ("/v1/completions", {"prompt": {}}, 400, "prompt"),
        ("/v1/completions", {"prompt": []}, 400, "prompt"),
        ("/v1/completions", {"prompt": [[70_000]]}, 400, "prompt"),
        ("/v1/completions", {"prompt": [True]}, 400, "prompt"),
        ("/v1/completions", {"prompt": "x " * 500}, 400, "prompt"),
        ("/v1/completions", {**GOOD, "max_tokens": -1}, 400, "max_tokens"),
        ("/v1/completions", {**GOOD, "temperature": "hot"}, 400, "temperature"),
        ("/v1/completions", {**GOOD, "top_p": 2}, 400, "top_p"),
        ("/v1/completions", {**GOOD, "n": 1000}, 400, "n"),
        ("/v1/completions", {**GOOD, "prompt": ["x"] * 100, "n": 2}, 400, "n"),
        ("/v1/completions", {**GOOD, "stop": [3]}, 400, "stop"),
        ("/v1/completions", {**GOOD, "stop": ""}, 400, "stop"),
        ("/v1/completions", {**GOOD, "logprobs": 99}, 400, "logprobs"),
        ("/v1/completions", {**GOOD, "stream": 1}, 400, "stream"),
        ("/v1/completions", {**GOOD, "suffix": "y"}, 400, "suffix"),
        ("/v1/completions", {**GOOD, "prompt": ["x"] * 60}, 400, "n"),
        ("/v1/chat/completions", {}, 400, "messages"),
        ("/v1/chat/completions", {**CHAT, "messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0]"),
        ("/v1/chat/completions", {**CHAT, "messages": [{"role": [], "content": "x"}]}, 400, "messages[0]"),
        ("/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": 3}]}, 400, "messages[0].content"),
        ("/v1/chat/completions", {**CHAT, "tools": [{"type": "function"}]}, 400, "tools"),
        ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_object"}}, 400, "response_format"),
        ("/v1/chat/completions", {**CHAT, "top_logprobs": 2}, 400, "top_logprobs"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens"),
    ],
)
def test_what_is_wrong_is_one_json_error(served, path, body, status, param):
    found, reply = ask(served[0], path, body)
    assert found == status and reply["error"]["param"] == param and reply["error"]["message"]
    assert ask(served[0], "/v1/completions", GOOD)[0] == 200, "and the next request is answered"


@pytest.mark.parametrize(
    "sent, status",
    [
        (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n", 411),
        (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST /tokenize HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 411),
        (b"BREW / HTTP/1.1\r\n\r\n", 405),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"what is this\r\n\r\n", 400),
        (b"GET /" + b"x" * 9_000_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 9_000_000 + b"\r\n\r\n", 431),
        (b"POST /tokenize HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 9_000_000, 413),
    ],
)
def test_what_is_no_http_is_one_json_error(served, sent, status):
    head, _, body = exchange(served[0], sent).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()) and json.loads(body)["error"]["message"]


def exchange(server, sent):
    """What comes back for these bytes, until the server closes the connection."""
    with socket.create_connection(server.server_address[:2], timeout=20) as link:
        link.sendall(sent)
        data = b""
        while part := link.recv(65536):
            data += part
    return data


def test_the_answer_to_head_has_no_body(served):
    head, _, body = exchange(served[0], b"HEAD / HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ") and not body


def test_random_requests_never_end_it(served):
    rng, odd = (
        random.Random(0),
        [None, True, -1, 0, 3.5, "x", "", [], {}, [[]], ["x", 3], "é😀", 10**30, [1, 2], {"a": 1}],
    )
    names = "prompt messages max_tokens temperature top_p top_k n stop seed echo logprobs stream stream_options".split()
    for _ in range(200):
        body = {**rng.choice([GOOD, CHAT]), **{rng.choice(names): rng.choice(odd) for _ in range(rng.randint(1, 3))}}
        status, _ = ask(served[0], rng.choice(["/v1/completions", "/v1/chat/completions", "/tokenize"]), body)
        assert status in (200, 400), body


def test_a_client_that_goes_away_frees_its_place(served):
    """Of a request for 540 steps of a slow model little is written."""
    server, steps = served[0], []
    body = {**GOOD, "max_tokens": 90, "temperature": 1, "stop": "never", "n": 30}
    server.engine.on_step = lambda n_rows: (steps.append(n_rows), time.sleep(0.02))
    for stream in (True, False):
        steps.clear()
        data = json.dumps({**body, "stream": stream}).encode()
        link = socket.create_connection(server.server_address[:2])
        head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        link.sendall(head + data)
        time.sleep(0.1)
        link.close()
        end = time.monotonic() + 20
        while (any(server.engine.rows) or server.engine.waiting) and time.monotonic() < end:
            time.sleep(0.05)
        assert not any(server.engine.rows) and not server.engine.waiting
        assert len(steps) < 150, "most of it was never written"
    server.engine.on_step = None


def test_requests_on_one_connection_and_a_prompt_that_fills_the_context(served):
    """lm-eval's: ids without <|endoftext|>, as many as the context takes, and one token more."""
    server, _ = served
    link = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    for size in (95, 94, 95):
        body = {"prompt": [65] * size, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
        link.request("POST", "/v1/completions", json.dumps(body))
        found = json.loads(link.getresponse().read())["choices"][0]["logprobs"]
        assert len(found["tokens"]) == size + 1 and found["token_logprobs"][0] is None
    link.request("GET", "/health", b"a body that nobody wants")
    assert link.getresponse().read() and link.sock is not None
    link.request("GET", "/health")
    assert json.loads(link.getresponse().read()) == {"status": "ok"}
    assert ask(server, "/tokenize", {"prompt": "<|endoftext|>", "add_special_tokens": False})[1]["tokens"] == [
        server.tokenizer.eot
    ]


def test_pages_of_other_sites_are_not_answered(served):
    port = served[0].server_address[1]
    for headers, status in (
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": f"http://127.0.0.1:{port}"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": f"localhost:{port}"}, 200),
        ({"Host": "["}, 400),
        ({"Origin": "http://["}, 400),
        ({"Origin": "null"}, 403),
        ({"Origin": "null", "Host": ""}, 403),
    ):
        assert ask(served[0], "/v1/completions", GOOD, headers=headers.items())[0] == status


def test_a_key_is_asked_for(served):
    server = served[0]
    server.settings.key = "secret"
    try:
        assert ask(server, "/v1/completions", GOOD)[0] == 401
        assert ask(server, "/v1/completions", GOOD, headers={"Authorization": "Bearer wrong"}.items())[0] == 401
        assert ask(server, "/v1/completions", GOOD, headers={"Authorization": "Bearer secret"}.items())[0] == 200
        assert ask(server, "/", method="GET")[0] == 200, "the page, which asks for the key"
    finally:
        server.settings.key = ""
