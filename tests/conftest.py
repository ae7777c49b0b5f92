"""What several tests need: small sources, a small tokenizer, small shards, and a way to run a stage as a person would."""

import contextlib
import importlib
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import configurator
from cores import n_cores
from tests.faults.common import call_stage, ends_within, forked, recipe_in_forks, settle

os.environ["OMP_NUM_THREADS"] = "1"  # small models: threads cost more than they give, above all on a busy machine
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # a fork would wait for ever for the compiler's workers of its parent

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared/data"  # real benchmarks and instruction sets, where they lie beside the checkout
FORKS = sys.platform == "linux" and not os.path.exists("/dev/nvidiactl")  # CUDA does not work in a fork
TIMEOUT = 600  # seconds after which a stage hangs
TINY_MODEL = ["--n_layer=2", "--n_head=2", "--n_kv_head=1", "--n_embd=32", "--block_size=32"]


def stage(script, *arguments, cwd, check=True, torchrun=0, preexec_fn=None, forks=FORKS):
    """Run a stage, "pretrain.py" or "exercises" for python -m exercises; its CompletedProcess, with output as text.

    It is a fork of this process where it can be one. forks=False: a Python of its own, with another hash seed and nothing
    imported or drawn before, as a person starts it."""
    arguments = list(map(str, arguments))
    run = in_a_fork if forks and not torchrun and not preexec_fn else in_a_process
    result = run(script, arguments, cwd, *([] if run is in_a_fork else [torchrun, preexec_fn]))
    if check:
        assert result.returncode == 0, result.stderr + result.stdout
    return result


def in_a_process(script, arguments, cwd, torchrun, preexec_fn):
    """Run a stage in a Python of its own, or under torchrun in so many."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={torchrun}"] if torchrun else []
    what = [str(ROOT / script)] if script.endswith(".py") else ["-m", script]
    return subprocess.run(
        [sys.executable, *launcher, *what, *arguments],
        cwd=cwd,
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        preexec_fn=preexec_fn,
        timeout=TIMEOUT,
    )


def in_a_fork(script, arguments, cwd):
    """Run a stage in a fork of this process, which has imported what it needs: to import PyTorch takes seconds."""
    name = script.removesuffix(".py")
    module = importlib.import_module(configurator.MODULES.get(name, name))
    if "torch" in sys.modules:
        importlib.import_module("torch._dynamo")  # every optimizer imports it
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:

        def work():
            """In the fork: what the command line does."""
            settle(cwd, out.fileno(), err.fileno())
            sys.modules["__main__"].__spec__ = None if script.endswith(".py") else module.__spec__
            prepare = recipe_in_forks if script == "recipe.py" else None
            return call_stage(module.__name__, [script, *arguments], prepare)

        child = forked(work)
        ended = ends_within(child, TIMEOUT)
        if not ended:
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        for file in (out, err):
            file.seek(0)
        result = subprocess.CompletedProcess(script, os.waitstatus_to_exitcode(status), out.read(), err.read())
    assert ended, f"{script} hangs: {result.stderr[-2000:]}"
    return result


def alone():
    """The Machine of one process on a CPU. PyTorch is imported where it is used: that takes seconds."""
    import torch

    from training.machine import Machine

    return Machine(0, 1, torch.device("cpu"), torch.float32)


def assert_one_line_error(result, *words):
    """Exit code 2 and one line that holds the words: what every mistake of a person must end in."""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 2, result.stderr + result.stdout
    assert len(errors) == 1 and "Traceback" not in result.stderr, result.stderr
    for word in words:
        assert word in errors[0], errors[0]


def door_error(module, *arguments):
    """The same for a stage run in this process, which saves the seconds of importing torch: its error line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            configurator.run(module.main, module.Settings)
    errors = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
    assert exit.value.code == 2 and len(errors) == 1, out.getvalue() + err.getvalue()
    return errors[0]


def load_model(folder):
    """(model, tokenizer, meta) of a checkpoint, in fp32 on the CPU."""
    import torch

    from training import checkpoint
    from training.machine import Machine

    return checkpoint.load_model(folder, Machine(0, 1, torch.device("cpu"), torch.float32))


def untrained_checkpoint(folder, tokenizer, block_size):
    """Save a checkpoint of a tiny model with random weights, which no conversation has tuned; its folder."""
    import torch

    from model import ModelConfig, Transformer
    from training import checkpoint

    torch.manual_seed(0)
    config = ModelConfig(vocab_size=320, block_size=block_size, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)
    checkpoint.save(folder, 1, Transformer(config), [], tokenizer, {"settings": {}}, alone())
    return folder


def write_records(path, records):
    """A file of JSON lines; its path."""
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def prepare(workdir, sources, out, *arguments, script="prepare_data.py", **options):
    common = (f"--sources={sources}", f"--out_dir={out}", "--tokenizer=data/tokenizer.json")
    return stage(script, *common, *arguments, cwd=workdir, **options)


def dropped(out):
    """{id: (rule, detail)} of a shard folder's dropped.jsonl."""
    drops = map(json.loads, (out / "dropped.jsonl").read_text().splitlines())
    return {drop["id"]: (drop["rule"], drop["detail"]) for drop in drops}


def rules_of(out):
    """{id: rule} of the same."""
    return {name: rule for name, (rule, _) in dropped(out).items()}


WORDS = [
    a + b
    for a in "get set read write open count sort split".split()
    for b in "_name _value _line _item _path s".split()
]


def program(seed, lines=30):
    """A Python file of words in an order of its own: two of them have next to nothing in common."""
    rng = random.Random(seed)
    word = lambda: rng.choice(WORDS)  # noqa: E731
    body = "\n".join(
        f"    {word()} = {word()}({rng.randrange(100)}, {word()})  # {word()} {word()}" for _ in range(lines)
    )
    return f'"""Module {seed}: déjà vu, 中文, {word()} {word()}."""\n\n\ndef {word()}({word()}):\n{body}\n    return {word()}\n'


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder of 60 small Python files, so different that cleaning keeps them all."""
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(60):
        (folder / f"file_{i:02}.py").write_text(program(i, lines=10 + i), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def workdir(tmp_path_factory, corpus):
    """A folder in which tokenizer_train.py and prepare_data.py have been run on the corpus."""
    folder = tmp_path_factory.mktemp("work")
    stage("tokenizer_train.py", f"--sources={corpus}", "--vocab_size=320", cwd=folder)
    stage(
        "prepare_data.py",
        f"--sources={corpus}",
        "--out_dir=data/shards",
        "--val_fraction=0.2",
        "--num_workers=1",
        cwd=folder,
    )
    return folder


@pytest.fixture(scope="session")
def tokenizer(workdir):
    from tokenizer import Tokenizer

    return Tokenizer.load(workdir / "data" / "tokenizer.json")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """What a test writes to a relative path, such as a stage's default out_dir, is not written into the checkout."""
    monkeypatch.chdir(tmp_path)


# -- tests that skip: .ci/run repeats them where every optional package is installed, and there nothing may skip

# Reasons: there is no GPU, no browser (pip installs none), or the files are not public.
MAY_SKIP = re.compile("GPU|no Chromium|needs the (?:real|benchmark)")


def pytest_xdist_auto_num_workers():
    """For -n auto: one more than there are cores, as some tests wait for a clock."""
    return n_cores() + 1


def pytest_addoption(parser):
    parser.addoption("--nothing-skips", action="store_true", help="a skip fails, unless it is for want of a GPU")


def fail_if_skipped(config, report):
    """Turn the report of a test or a file that skipped into a failure under --nothing-skips."""
    if config.getoption("--nothing-skips") and report.skipped and not MAY_SKIP.search(str(report.longrepr)):
        report.outcome, report.longrepr = "failed", f"nothing may skip here: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return fail_if_skipped(item.config, (yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return fail_if_skipped(collector.config, (yield))


def pytest_terminal_summary(terminalreporter, config):
    """Leave the names of the tests and files that skipped for want of a package, one a line, for `pytest @FILE`."""
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if not MAY_SKIP.search(str(r.longrepr))]
    note = config.cache.mkdir("skipped") / "tests.txt"
    note.write_text("".join(f"{name}\n" for name in sorted({report.nodeid for report in skipped})))
