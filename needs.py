"""Every script imports this file first: where it cannot run, one line says why and what to type.

It must be readable for old versions of Python, too, and imports nothing that could be missing.
"""

import importlib.util
import os
import shlex
import sys

PACKAGES = ("torch", "numpy", "tiktoken", "sentencepiece", "tqdm", "regex")
ROOT = os.path.dirname(os.path.abspath(__file__))
PYTHON = os.path.normpath(os.path.join(os.path.relpath(ROOT), ".venv", "bin", "python"))


def why_not(system, version, packages):
    """Why this cannot run, or "". system: sys.platform; version: sys.version_info; packages: what is needed."""
    if system == "win32":
        return "this runs on Linux, macOS and WSL: `wsl --install` gives Windows a Linux, where all of it works"
    if tuple(version[:2]) < (3, 11):
        found = ".".join(map(str, version[:3]))
        return f"Python 3.11 or newer is needed, and this is {found}: make PYTHON=/path/to/python3.11 .venv/installed"
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    what = f"{', '.join(missing)}: not installed for {sys.executable}; type: "
    if os.path.realpath(sys.prefix) == os.path.realpath(os.path.join(ROOT, ".venv")):
        return f"{what}{PYTHON} -m pip install -r {os.path.relpath(ROOT)}/requirements.txt"
    if not os.path.exists(os.path.join(ROOT, ".venv", "installed")):
        what += "make .venv/installed, then "
    return what + " ".join(map(shlex.quote, [PYTHON, *sys.orig_argv[1:]]))


message = why_not(sys.platform, sys.version_info, PACKAGES)
if message:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(2)


def tell_stop(kind, error, trace):
    """Ctrl-C during a script's imports, which take seconds: one word, no traceback. Later it is endings.py's."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("stopped\n")
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = tell_stop
