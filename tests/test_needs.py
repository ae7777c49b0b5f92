"""Outside the virtual environment, on an old Python, on Windows: one line that says what to type."""

import needs

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_house import FILES, TEXTS

DOORS = [Path(name) for name in FILES if "configurator.run(main" in TEXTS[name]]


def started(path):
    """The arguments behind `python` that start a door."""
    if len(path.parts) == 1:
        return [str(path)]
    return ["-m", ".".join(path.with_suffix("").parts).removesuffix(".__main__")]


@pytest.mark.parametrize("path", DOORS, ids=str)
def test_every_door_says_in_one_line_which_package_is_missing(path):
    """-S leaves out site-packages: as if nothing were installed."""
    command = [sys.executable, "-S", *started(path), "--lr=1 2"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and result.stdout == ""
    assert re.fullmatch(r"error: torch, numpy, .* not installed for .*\n", result.stderr)
    assert f"{' '.join(started(path))} '--lr=1 2'" in result.stderr, "the command is the one that was typed"


@pytest.mark.parametrize("path", DOORS, ids=str)
def test_every_door_can_be_read_by_old_versions_of_python(path):
    """Else they report a SyntaxError before needs.py can speak."""
    ast.parse((ROOT / path).read_text(encoding="utf-8"), feature_version=(3, 8))


def test_what_speaks_first_can_be_read_by_older_ones():
    ast.parse((ROOT / "needs.py").read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("version", [(3, 6, 15), (3, 10, 13), (2, 7, 18)])
def test_an_old_python_is_named(version):
    message = needs.why_not("linux", version, needs.PACKAGES)
    assert "Python 3.11 or newer is needed" in message and ".".join(map(str, version)) in message


def test_systems():
    assert "wsl --install" in needs.why_not("win32", (3, 12, 1), ())
    for system in ("linux", "darwin"):
        assert needs.why_not(system, (3, 11, 0), needs.PACKAGES) == ""


@pytest.mark.parametrize("typed", [["sft.py", "--lr=1e-3"], ["-m", "exercises"], ["/elsewhere/recipe.py", "a b.toml"]])
def test_what_to_type_is_the_same_command_in_the_environment(monkeypatch, tmp_path, typed):
    monkeypatch.setattr("sys.orig_argv", ["python3", *typed])
    monkeypatch.setattr("sys.prefix", "/usr")
    monkeypatch.setattr(needs, "ROOT", str(tmp_path))
    message = needs.why_not("linux", (3, 11, 0), ("torch_of_another_world",))
    again = " ".join(f"'{word}'" if " " in word else word for word in typed)
    assert "type: make .venv/installed, then " in message and message.endswith(f".venv/bin/python {again}")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/installed").touch()
    assert "make" not in needs.why_not("linux", (3, 11, 0), ("torch_of_another_world",))
    monkeypatch.setattr("sys.prefix", str(tmp_path / ".venv"))
    assert "-m pip install -r" in needs.why_not("linux", (3, 11, 0), ("torch_of_another_world",))


def test_ctrl_c_during_the_imports_is_one_word():
    code = "import needs, os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)"
    restore = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    result = subprocess.run([sys.executable, "-c", restore + code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (-2, "stopped\n")  # -2: ended by SIGINT, which is 130 in a shell
