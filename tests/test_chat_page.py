"""The chat page as a person meets it: a browser opens it, types, clicks, and reads what it shows."""

import threading
import time

import pytest
import torch
from browser import CHROMIUM, SHIFT, Browser
from conftest import untrained_checkpoint

import serve

if not CHROMIUM:
    pytest.skip("there is no Chromium on the PATH to look at the page with", allow_module_level=True)
PAUSE = 0.02  # seconds a token takes where an answer has to be seen while it grows
BOXES = "[...document.querySelectorAll('.said')].map(box => box.className + ': ' + box.innerText)"
ENDED = "document.getElementById('stop').hidden"
IS_WIDER = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def server(tmp_path_factory, tokenizer):
    """A server of an untrained model, whose answers are noise that fills a context of 128 tokens."""
    folder = tmp_path_factory.mktemp("served")
    untrained_checkpoint(folder, tokenizer, 128)
    settings = serve.Settings(checkpoint=str(folder), port=0, name="tiny/sft", dtype="fp32", device="cpu")
    server = serve.make_server(settings)
    with torch.no_grad():  # such a model repeats a token, and that shall be one which can be seen and ends nothing
        server.engine.model.embed_tokens.weight[[*tokenizer.encode("\n"), *tokenizer.special.values()]] *= 0.01
    server.engine.model.ready(torch.float32)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.shutdown()
    server.engine.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser, server):
    """The browser with the page as a newcomer sees it. Whatever appears in its console fails the test, but for what the
    test takes out of complaints itself."""
    browser.size(1000, 700)
    browser.open(address(server))
    browser.see("sessionStorage.clear(), localStorage.clear()")
    browser.open(address(server))
    browser.wait("document.getElementById('model').textContent === 'tiny/sft'")
    yield browser
    server.engine.on_step, server.settings.key = no_pause, ""
    server.settings.most_seconds, server.settings.most_tokens = 300.0, 4096
    complaints = list(browser.complaints)
    browser.complaints.clear()
    browser.dialogs.clear()
    browser.answer = None
    assert complaints == []


def address(server):
    return f"http://127.0.0.1:{server.server_address[1]}/"


def slow_down(server):
    """Let every token take a while; a list that gets an entry for each."""
    steps = []
    server.engine.on_step = lambda n_rows: (steps.append(n_rows), time.sleep(PAUSE))
    return steps


def no_pause(n_rows):
    """What the engine calls behind a step instead, even between its looking whether there is something to call and
    calling it."""


def say(page, text):
    """Type a message and press Enter."""
    page.click("#message")
    page.type(text)
    page.press("Enter")


def written(page):
    """What stands where messages are written."""
    return page.see("document.getElementById('message').value")


def test_an_answer_streams_in_below_the_message(page, server):
    slow_down(server)
    assert page.text("#chat") == "" and page.see("document.activeElement.id") == "message"
    page.type("hello")
    page.click("#send")
    page.wait(f"!({ENDED})")
    assert written(page) == "" and not page.see("document.getElementById('send').checkVisibility()")
    lengths = set()
    while not page.see(ENDED):
        lengths.add(len(page.see(BOXES)[1]))
    assert len(lengths) > 5, "it grows"
    asked, answered = page.see(BOXES)
    assert asked == "said user: hello" and len(answered) > 100
    assert page.see("document.getElementById('send').checkVisibility()")


def test_the_model_is_asked_with_the_whole_conversation_and_it_outlives_a_reload(page, server, monkeypatch):
    asked = []
    read = serve.api.read_request
    monkeypatch.setattr(serve.api, "read_request", lambda body, *rest: (asked.append(body), read(body, *rest))[1])
    server.settings.most_tokens = 12
    for text in ("first", "second"):
        say(page, text)
        page.wait(f"{BOXES}.length % 2 === 0 && {ENDED}")
    roles = [turn["role"] for turn in asked[1]["messages"]]
    assert roles == ["user", "assistant", "user"] and asked[1]["messages"][2]["content"] == "second"
    shown = page.see(BOXES)
    assert len(shown) == 4 and shown[2] == "said user: second"
    page.open(address(server))
    assert page.see(BOXES) == shown


def test_the_temperature_is_the_one_that_is_typed(page, server):
    server.settings.most_tokens = 12
    answers = []
    for temperature in ("0", "0", "2", "2"):
        page.click("#forget")
        page.click("#temperature")
        page.see("document.getElementById('temperature').select()")
        page.type(temperature)
        say(page, "hello")
        page.wait(f"{BOXES}.length === 2 && {ENDED}")
        answers.append(page.see(BOXES)[1])
    assert answers[0] == answers[1] and answers[2] != answers[3]


def test_an_answer_that_is_stopped_stays_as_it_is(page, server):
    steps = slow_down(server)
    say(page, "hello")
    page.wait(f"{BOXES}.length === 2 && {BOXES}[1].length > 40")
    page.click("#stop")
    page.wait(ENDED)
    shown = page.see(BOXES)
    time.sleep(3 * PAUSE)
    assert page.see(BOXES) == shown and len(steps) < 90
    end = time.monotonic() + 10
    while any(server.engine.rows) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(server.engine.rows), "its place is free"
    say(page, "go on")
    page.wait(f"{BOXES}.length === 4 && {ENDED}")


def test_a_new_chat_is_empty_even_while_an_answer_comes(page, server):
    slow_down(server)
    say(page, "hello")
    page.wait(f"{BOXES}.length === 2 && {BOXES}[1].length > 40")
    page.click("#forget")
    page.wait(ENDED)
    assert page.text("#chat") == ""
    page.open(address(server))
    assert page.text("#chat") == ""


def test_shift_and_enter_begin_a_line_and_nothing_is_shown_as_html(page, server):
    server.settings.most_tokens = 5
    page.type("<b>one</b>")
    page.press("Enter", SHIFT)
    assert page.see(BOXES) == []
    page.type("<img src=x onerror=alert(1)>")
    page.press("Enter")
    page.wait(f"{BOXES}.length === 2 && {ENDED}")
    assert page.see(BOXES)[0] == "said user: <b>one</b>\n<img src=x onerror=alert(1)>"
    assert page.dialogs == []


def test_code_is_shown_as_code(page):
    """The second block has no end yet."""
    text = "Like so:\n```python\nprint(1)\n```\nor\n```\nprint(2)"
    page.see(f"say('assistant', {text!r})")
    assert page.see("[...document.querySelectorAll('pre')].map(box => box.innerText)") == ["print(1)", "print(2)"]
    assert page.text(".said").split() == ["Like", "so:", "print(1)", "or", "print(2)"]


@pytest.mark.parametrize("width", [360, 1000])
def test_nothing_is_wider_than_the_window_and_the_newest_line_is_seen(page, server, width):
    """With a long name, long words and long lines of code, while an answer grows beyond the window and afterwards."""
    page.size(width, 400)
    page.see("document.getElementById('model').textContent = '/home/somebody/checkpoints/of/a_long_name/out/sft'")
    page.see("say('assistant', '```\\n' + 'a = 1; '.repeat(100) + '\\n```')")
    slow_down(server)
    bottoms = "[...document.querySelectorAll('.said')].at(-1).getBoundingClientRect().bottom"
    above_form = f"{bottoms} <= document.getElementById('form').getBoundingClientRect().top"
    say(page, "x" * 40)
    page.wait(f"!({ENDED})")
    while not page.see(ENDED):
        assert page.see(f"!({IS_WIDER}) && {above_form}")
    for name in ("#message", "#send", "#temperature", "#forget"):
        left, right = page.see(
            f"(box => [box.left, box.right])(document.querySelector('{name}').getBoundingClientRect())"
        )
        assert 0 <= left < right <= width


def test_a_missing_key_is_asked_for_and_kept(page, server):
    server.settings.key, page.answer = "secret", None
    say(page, "hello")
    page.wait("document.querySelector('.error')")
    assert page.see(BOXES) == ["said error: This server asks for a key."] and written(page) == "hello"
    page.answer = "secret"
    page.click("#send")
    page.wait("document.querySelector('.error')?.innerText === 'Send the message again with the key.'")
    page.click("#send")
    page.wait(f"{BOXES}.length === 2 && {ENDED}")
    assert page.dialogs == ["This server asks for a key:"] * 2
    page.open(address(server))
    assert len(page.see(BOXES)) == 2 and page.text("#model") in ("tiny/sft", "WizardLearner")
    assert len(page.complaints) == 2 and all("401" in text for text in page.complaints)
    page.complaints.clear()


def test_an_answer_that_takes_too_long_is_said_to_and_what_there_is_stays(page, server):
    slow_down(server)
    server.settings.most_seconds = 0.6
    say(page, "hello")
    page.wait("document.querySelector('.error')")
    asked, answered, error = page.see(BOXES)
    assert error == "said error: not ready after 0.6 seconds" and len(answered) > 20
    server.settings.most_seconds, server.engine.on_step = 300.0, no_pause
    say(page, "again")
    page.wait(f"{BOXES}.length === 4 && {ENDED}")
    assert page.see(BOXES)[:3] == [asked, answered, "said user: again"], "the error has gone"


def test_a_message_that_does_not_fit_comes_back_with_what_helps(page):
    say(page, "word " * 200)
    page.wait("document.querySelector('.error')")
    (error,) = page.see(BOXES)
    assert "the context has 128" in error and "New chat" in error and written(page).startswith("word word")
    assert len(page.complaints) == 1 and "400" in page.complaints.pop()


def test_a_server_that_ends_in_the_middle_is_told(page, server, monkeypatch):
    """The stream breaks off without its last event; and then nothing is answered any more."""

    def news(handler, job):
        """A part of an answer; then the connection breaks."""
        yield 0, b"a part"
        raise ConnectionError

    monkeypatch.setattr(serve.Handler, "news", news)
    say(page, "hello")
    page.wait("document.querySelector('.error')")
    assert page.see(BOXES)[1:] == ["said assistant: a part", "said error: The answer is cut off: the server has gone."]
    monkeypatch.setattr(serve.Handler, "answer", lambda handler: setattr(handler, "close_connection", True))
    say(page, "hello")
    page.wait("document.querySelector('.error')?.innerText === 'The server cannot be reached.'")
    page.complaints.clear()
