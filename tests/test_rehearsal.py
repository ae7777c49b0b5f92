"""Whole recipes, from copies of the hub's data sets to scores, with a share of the data and a tiny model."""

import gzip
import json
import re
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from conftest import ROOT, stage
from local_hub import make_hub

import configurator
import recipe
import recipe_check
import rehearsal
from corpus.sources import SETS, parsed


@pytest.fixture
def contents():
    """(address, {blob_id: text}) of a server of blobs."""
    texts = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = gzip.compress(texts[self.path.rpartition("/")[2]].encode())
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128  # 64 connect at once: whoever finds the usual queue of five full waits for half a minute

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/content", texts
    server.shutdown()


def sources_of(name, without=()):
    """The sources of a recipe, each once."""

    def walk(table):
        for key, value in table.items():
            if isinstance(value, dict):
                yield from walk(value)
            elif key in ("sources", "chat_sources", "labelled"):
                yield from value

    table = tomllib.loads((ROOT / f"configs/{name}.toml").read_text(encoding="utf-8"))
    return list(dict.fromkeys(walk({stage: table[stage] for stage in table if stage not in without})))


def sets_of(name):
    """The named sets that a recipe reads."""
    used = [source.partition("?")[0] for source in sources_of(name)]
    return [known for known in SETS if known in used]


def run(*arguments):
    """What recipe.py prints, started from anywhere, with its exit code."""
    done = stage("recipe.py", *arguments, cwd=".", check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_smallest_form_of_the_half_billion_recipe(tmp_path, contents):
    address, texts = contents
    texts.update(make_hub(tmp_path / "hub", sets_of("0.5b"), 150))
    tables = [f"[{name}]\ncompile = false\n" for name in ("pretrain", "anneal", "sft")]
    (tmp_path / "quick.toml").write_text("".join(tables) + "[eval_humaneval]\nlimit = 20\n")
    given = ["configs/0.5b.toml", tmp_path / "quick.toml", "--share=0.9"]
    given += [f"--hub={tmp_path}/hub", f"--contents={address}"]
    given += [f"--into={tmp_path}/run", "--processes=1"]
    code, printed = run(*given, "--check")
    assert code == 0 and printed.count("ok: ") == len(sources_of("0.5b")), printed
    code, printed = run(*given)
    assert code == 0, printed[-3000:]
    summary = json.loads((tmp_path / "run/out/0.5b/summary.json").read_text())
    assert set(summary["ladder"]["by_hand"]) == {"base", "annealed", "tuned"}
    assert (tmp_path / "run/out/0.5b/report.html").exists()
    assert all(summary["stages"][stage]["val_bpb"] > 0 for stage in ("pretrain", "anneal", "sft"))
    manifest = json.loads((tmp_path / "run/data/code65k/code/manifest.json").read_text())
    assert manifest["splits"]["train"]["documents"] > 30, "texts of The Stack v2 came from the server"
    general = json.loads((tmp_path / "run/data/code65k/general-chats/manifest.json").read_text())
    assert general["ingredients"]["quality"].endswith("recall.npz"), "the classifier was applied"
    code, printed = run(*given)
    steps = recipe.read_steps([str(configurator.ROOT / "configs/0.5b.toml")])
    assert code == 0 and printed.count(": finished before, in") == len(steps), printed


def test_a_source_that_cannot_be_read_is_told_before_anything_runs(tmp_path, contents):
    address, texts = contents
    texts.update(make_hub(tmp_path / "hub", sets_of("0.5b"), 5))
    (tmp_path / "hub/ise-uiuc/Magicoder-OSS-Instruct-75K/data/train-00000-of-00001.jsonl").write_text('{"x": 1}\n')
    code, printed = run("configs/0.5b.toml", f"--hub={tmp_path}/hub", f"--contents={address}", "--check", "--share=0.9")
    assert code == 2 and "no_chat: fields: x" in printed and "Traceback" not in printed
    assert "2 of " in printed.splitlines()[-1], "once as chats, once for the classifier, with another budget"


def test_what_a_tokenizer_reads_as_conversations_is_looked_at_as_such(tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "x = 1"}\n')
    both = "".join(f'{name} = ["{tmp_path}/texts.jsonl"]\n' for name in ("sources", "chat_sources"))
    (tmp_path / "r.toml").write_text(f"[tokenizer_train]\n{both}")
    code, printed = run(tmp_path / "r.toml", "--check")
    assert code == 2 and printed.count("ok: ") == 1 and "no_chat: fields: text" in printed, printed


@pytest.mark.parametrize(
    "argument, words",
    [
        ("--into=elsewhere", "--into is the folder of a rehearsal: give --share too"),
        ("--hub=copies", "--hub: this recipe reads no data set of the hub"),
        ("--contents=http://localhost", "--contents: this recipe reads no blobs of The Stack v2"),
    ],
)
def test_what_a_recipe_has_no_use_for_is_refused(argument, words):
    code, printed = run("configs/demo.toml", argument)
    assert code == 2 and words in printed


@pytest.mark.parametrize("name", ["124m", "350m", "0.5b", "1b", "zh-en"])
def test_every_source_of_a_recipe_has_a_budget_or_is_small(name):
    """So that a recipe for 2.5 B tokens does not read 100 times as much."""

    settings = SimpleNamespace(share=1.0, hub="", contents="", into="")
    for source in sources_of(name, without=("tokenizer_train",)):
        found = parsed(source)
        rows = SETS[source.partition("?")[0]].get("rows", 10**9)
        assert found.documents or found.tokens or rows < 1_000_000, source
        assert rehearsal.source_elsewhere(source, settings) == found.name, "nothing changes unasked"


def test_a_share_is_one_of_the_budget():
    settings = SimpleNamespace(share=0.001, hub="/copies", contents="http://x/c", into="there")
    elsewhere = rehearsal.source_elsewhere("stack-edu?tokens=7e9", settings)
    found = parsed(elsewhere, must_exist=False)
    assert found.tokens == 7e6 and found.contents == "http://x/c" and found.cache == "there/blobs.sqlite"
    assert str(found.path) == "/copies/HuggingFaceTB/stack-edu"
    found = parsed(rehearsal.source_elsewhere("dolly", settings), must_exist=False)
    assert found.share == 0.001 and not found.documents


def test_places_are_moved_however_they_are_written():
    steps = [SimpleNamespace(result="data/code"), SimpleNamespace(result="data/code/more")]
    given = {
        "data/code": "there/data/code",
        "./data/code:9,data/code/more:1": "there/data/code:9,there/data/code/more:1",
    }
    given |= {"other/data/code": "other/data/code", "data/codes": "data/codes", "data/code/x": "there/data/code/x"}
    assert {text: rehearsal.moved(text, steps, "there") for text in given} == given


def test_the_overlay_adds_no_stage(tmp_path):
    (tmp_path / "r.toml").write_text('[tokenizer_train]\nout = "t.json"\n')
    steps = recipe.read_steps([str(tmp_path / "r.toml")], [str(configurator.ROOT / rehearsal.OVERLAY)])
    assert [step.stage for step in steps] == ["tokenizer_train"] and steps[0].settings.vocab_size == 512


def test_a_rehearsal_leaves_the_recipes_own_folders_alone():
    files = [str(configurator.ROOT / file) for file in ("configs/0.5b.toml", rehearsal.OVERLAY)]
    steps = recipe.read_steps(files[:1], files[1:])
    settings = SimpleNamespace(share=0.01, hub="", contents="", into="there")
    for step in steps:
        new = recipe.with_arguments(step, rehearsal.arguments(step, steps, settings))
        assert str(new.result) == f"there/{step.result}"
        assert "code65k" not in re.sub(r"there/data/code65k", "", json.dumps(vars(new.settings), default=str)), new.name


def test_the_hours_are_those_of_the_steps_that_are_asked_for(tmp_path, capsys):
    """An anneal's max_steps comes before its decay_tokens; what epochs come to is not known before the data are."""
    tables = '[tokenizer_train]\nout = "t.json"\n[pretrain]\nmax_steps = 10\nbatch_tokens = 1024\n'
    tables += "[anneal]\nmax_steps = 5000\nbatch_tokens = 102_400\n[sft]\nepochs = 2\n"
    (tmp_path / "r.toml").write_text(tables)
    recipe_check.print_needs(recipe.read_steps([str(tmp_path / "r.toml")]), [], 1)
    printed = re.sub(" +", " ", capsys.readouterr().out)
    assert "pretrain 10,240 " in printed and "anneal 512,000,000 " in printed
    assert "beside them sft (2 epochs)" in printed
