"""The rules of the house: what a file may look like, and who may import whom."""

import ast
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

WINGS = ("training", "corpus", "cleaning", "exercises", "evaluation", "synthesis")
SHARED = "needs model rope attention loss tokenizer shards hints configurator pages ranges endings cores".split()
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def product_files():
    """The Python files of the project apart from tests, as git knows them or, without git, as they lie there."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], cwd=ROOT, capture_output=True, text=True
    )
    names = listed.stdout.split() or [
        str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/*.py")]
    ]
    return sorted(name for name in set(names) if not name.startswith("tests/") and (ROOT / name).exists())


FILES = product_files()
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in FILES}
TREES = {name: ast.parse(text) for name, text in TEXTS.items()}
MODULES = {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): name for name in FILES}


def imports(name):
    """{the project's modules that a file imports}, wherever the statement stands."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {module for module in found if module in MODULES}


@pytest.mark.parametrize("name", FILES)
def test_a_file_can_be_read_in_one_sitting(name):
    lines = TEXTS[name].splitlines()
    assert len(lines) <= 400
    assert [i for i, line in enumerate(lines, 1) if len(line) > 120] == [], "lines over 120 characters"
    assert "sys.path" not in TEXTS[name] or name in (
        "evaluation/judge.py",
        "evaluation/confine.py",
        "evaluation/server.py",
    )


def test_tests_can_be_read_too():
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "tests").glob("*.py")}
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_tests_do_not_write_into_the_checkout(tmp_path):
    assert os.getcwd() == str(tmp_path), "a relative path such as out/eval is the test's own"


def test_the_loop_is_on_the_first_page():
    """From main() to backward() there are two calls, train() and train_step(), all in pretrain.py."""
    functions = {
        node.name: ast.unparse(node) for node in TREES["pretrain.py"].body if isinstance(node, ast.FunctionDef)
    }
    assert "train(" in functions["main"] and "train_step(" in functions["train"]
    assert ".backward()" in functions["train_step"] and len(TEXTS["pretrain.py"].splitlines()) <= 330
    others = [name for name in FILES if ".backward()" in TEXTS[name]]
    # The loop is written once; others' loops, to be compared with, once more; and passes that warm up.
    assert others == ["experiments/peers.py", "pretrain.py", "training/processes.py"]


def test_formatting_is_the_formatters():
    assert sum(text.count("fmt: skip") + text.count("fmt: off") for text in TEXTS.values()) <= 5


def test_nested_comprehensions_are_rare():
    nested = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, COMPREHENSIONS):
                inner = [child for child in ast.walk(node) if isinstance(child, COMPREHENSIONS) and child is not node]
                if inner or len(node.generators) > 1:
                    nested.append(f"{name}:{node.lineno}")
    code_lines = sum(
        bool(line.strip()) and not line.strip().startswith("#") for t in TEXTS.values() for line in t.splitlines()
    )
    assert len(nested) < 0.1 * code_lines / 100, nested


def public_definitions(node, prefix=""):
    """(name, node) of the functions, classes and methods whose names do not begin with an underscore."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            yield prefix + child.name, child
        yield from public_definitions(child, f"{prefix}{getattr(child, 'name', '')}.")


@pytest.mark.parametrize("name", FILES)
def test_every_public_function_and_class_says_what_it_is_for(name):
    undocumented = [what for what, node in public_definitions(TREES[name]) if not ast.get_docstring(node)]
    assert undocumented == []
    assert ast.get_docstring(TREES[name]) or not TREES[name].body


@pytest.mark.parametrize("name", FILES)
def test_imports_run_downwards(name):
    folder = name.split("/")[0] if "/" in name else ""
    used = imports(name)
    stages = {module for module in used if "." not in module} - set(SHARED) - set(WINGS) - {"experiments"}
    if folder in WINGS:
        assert stages == set(), "no wing imports a stage"
        assert not any(module.startswith("experiments") for module in used)
    if not folder and name not in ("recipe.py",):
        shared = {"pretrain", "later"} - {name.removesuffix(".py")}
        assert stages <= shared, "a later stage imports train from pretrain, and nothing from another stage"
    if name.removesuffix(".py") in SHARED:
        assert all(module in SHARED for module in used)
    if folder == "training":
        assert not any(module.startswith(("corpus", "cleaning", "exercises", "evaluation")) for module in used)
    if folder in ("corpus", "cleaning", "exercises"):
        assert not re.search(r"^\s*(?:import|from) torch\b", TEXTS[name], re.MULTILINE), "they must start fast"
        assert not any(module.startswith(("training", "evaluation")) or module == "model" for module in used)
    if folder == "corpus":
        assert not any(module.startswith(("cleaning", "exercises")) for module in used)


def test_pip_install_works_and_forgets_no_module(tmp_path):
    """All top-level modules and folders are installed, with the files that they read, from a copy, since a build leaves
    files behind."""
    pytest.importorskip("setuptools")
    kinds = (".txt", ".toml", ".bin", ".jsonl")
    data = [path for path in (ROOT / "exercises").rglob("*") if path.suffix in kinds]
    data = ["experiments/walkthrough.md", *(str(path.relative_to(ROOT)) for path in data)]
    for name in [*FILES, *data, "pyproject.toml", "README.md", *(path.name for path in ROOT.glob("requirements*.txt"))]:
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "copy" / name)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, f"--target={tmp_path}/there", f"{tmp_path}/copy"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [name for name in [*FILES, *data] if not (tmp_path / "there" / name).exists()] == []


def test_no_two_files_need_each_other():
    graph = {module: imports(name) - {module} for module, name in MODULES.items()}
    while leaves := [module for module, used in graph.items() if not used & graph.keys()]:
        for module in leaves:
            del graph[module]
    assert graph == {}, "these are in an import circle or above one"
