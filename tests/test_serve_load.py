"""The load test of serve.py: it measures, it finds what is wrong, and what it sends is the same every time."""

import json
import random

import pytest
from conftest import door_error, untrained_checkpoint

from experiments import malformed, serve_load


def test_a_short_run_measures_and_finds_no_fault(tokenizer, tmp_path, capsys):
    untrained_checkpoint(tmp_path / "model", tokenizer, 256)
    about = {"clients": 2, "seconds": 1.5, "seconds_alone": 0.3, "malformed": 200, "max_tokens": 20, "device": "cpu"}
    serve_load.main(serve_load.Settings(checkpoint=str(tmp_path / "model"), json="load.json", **about))
    found = json.loads((tmp_path / "load.json").read_text())
    assert found["faults"] == [] and list(found["phases"]) == ["1 client", "2 clients", "1 client again"]
    for phase in found["phases"].values():
        assert phase["requests"] > 0 and phase["errors"] == 0 and phase["tokens per second"] > 0
        assert 0 < phase["median"] <= phase["95 %"]
    sent = {kind: sum(answers.values()) for kind, answers in found["malformed"].items()}
    assert sent.keys() == set(malformed.KINDS) and sum(sent.values()) == 200
    assert len(found["server"]) == 8 and all(look["memory"] > 50 for look in found["server"].values())
    assert "0 faults" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["error: no checkpoint", ""])
def test_a_server_that_does_not_start_is_one_line(tmp_path, monkeypatch, words):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{words}' >&2\n")
    python.chmod(0o755)
    monkeypatch.setattr(serve_load.sys, "executable", str(python))
    assert f"serve.py did not start: {words or 'it said nothing'}" in door_error(serve_load)


def test_a_stream_that_is_cut_off_is_an_error():
    assert serve_load.tokens_of(b'data: {"usage": {"completion_tokens": 3}}\n\ndata: [DONE]\n\n', True) == 3
    for cut_off in (b'data: {"usage": {"completion_tokens": 3}}\n\n', b"data: [DONE]", b""):
        with pytest.raises(ValueError):
            serve_load.tokens_of(cut_off, True)


JSON_ERROR = b'\r\n\r\n{"error": {"message": "no"}}'


@pytest.mark.parametrize(
    "back, answer, is_right",
    [
        (b"HTTP/1.1 400 Bad Request" + JSON_ERROR, "400", True),
        (b"HTTP/1.1 500 Internal Server Error" + JSON_ERROR, "500", False),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "200", False),
        (b"HTTP/1.1 404 Not Found\r\n\r\n<h1>Not Found</h1>", "404", False),
        (b'{"error": {"message": "no"}}', "no HTTP", False),
        (b"", "closed", False),
        (ConnectionResetError("reset"), "ConnectionResetError", False),
    ],
)
def test_only_a_json_error_with_4xx_is_right(back, answer, is_right):
    found, fault = malformed.verdict(malformed.Request("path", b"GET / HTTP/1.1\r\n\r\n"), back)
    assert found == answer and (not fault) == is_right
    if back == b"":
        assert malformed.verdict(malformed.Request("no HTTP", b"\0", may_be_dropped=True), back) == ("closed", "")


def test_the_same_seed_sends_the_same():
    def requests():
        return [malformed.make(random.Random(f"0 {number}"), "key") for number in range(300)]

    assert requests() == requests() and {request.kind for request in requests()} == set(malformed.KINDS)
