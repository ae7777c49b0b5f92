"""What the pages for people say of the repository is so: paths exist, commands have these settings, both READMEs agree."""

import importlib
import re
import shlex
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT

import configurator
from experiments import presets

ENGLISH, CHINESE = "README.md", "README.zh.md"
PAGES = (ENGLISH, CHINESE, "CONTRIBUTING.md", "WALKTHROUGH.md", "docs/faq.md", "docs/out.md", "experiments/README.md")
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
MADE = {line for line in (ROOT / ".gitignore").read_text().split() if line.endswith("/")}  # data/, out/: no part of it
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


# -- the parts of a page


def code_lines(page):
    """The lines of a page's code blocks without their comments; a line that ends in a backslash holds the next one."""
    lines = []
    for block in FENCE.findall(TEXTS[page]):
        block = re.sub(r"\\\n\s*", "", block)
        lines += [re.sub(r"(^|\s+)# .*", "", line) for line in block.splitlines()[1:-1]]
    return lines


def prose(page):
    """A page without its code blocks."""
    return FENCE.sub("", TEXTS[page])


def spans(text):
    """What stands between back-ticks in text outside of code blocks."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def headings(page):
    """The levels of a page's headings in their order: 1 for #, 2 for ##."""
    return [len(marks) for marks in re.findall(r"^(#+) ", prose(page), re.MULTILINE)]


def tables(page):
    """The rows of all tables of a page, each a list of its cells."""
    return [line.strip("| ").split(" | ") for line in prose(page).splitlines() if line.startswith("|")]


# -- commands


def commands(page):
    """[(stage, arguments)] of the commands in a page's code blocks and back-ticks: ("pretrain", ["--lr=1e-3"])."""
    found = []
    for text in [*code_lines(page), *spans(prose(page))]:
        if re.match(r"python (-m |\w+\.py)|torchrun |\w+\.py --", text):
            found.append(parse_command(text))
        elif re.fullmatch(r"experiments\.\w+", text):  # as headings name them
            found.append((text, []))
    return found


def parse_command(text):
    """(stage, arguments) of `python pretrain.py ...`, `python -m exercises ...`, `torchrun ... sft.py ...`, `sft.py ...`."""
    words = [word for word in shlex.split(text) if word not in ("...", "--help")]
    if words[:2] == ["python", "-m"]:
        return words[2], words[3:]
    script = next(i for i, word in enumerate(words) if word.endswith(".py"))
    return words[script].removesuffix(".py"), words[script + 1 :]


def settings_class(stage):
    """The Settings of a stage: a script in the root, a module in a folder, or a folder with a __main__.py."""
    is_folder = Path(ROOT, *stage.split("."), "__main__.py").exists()
    return importlib.import_module(f"{stage}.__main__" if is_folder else stage).Settings


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_a_stage_with_these_settings(page, monkeypatch):
    monkeypatch.chdir(ROOT)  # recipes are named relative to it
    found = commands(page)
    assert found
    for stage, arguments in found:
        configurator.load(
            settings_class(stage), arguments, stage
        )  # UserError: unknown setting, wrong type, no such file


@pytest.mark.parametrize("page", PAGES)
def test_every_option_that_is_named_alone_belongs_to_a_stage(page):
    known = {"help", "key"}  # --key=value stands for any
    for stage in {stage for name in PAGES for stage, _ in commands(name)}:
        known |= configurator.settings_of(settings_class(stage)).keys()
    named = {name for span in spans(prose(page)) for name in re.findall(r"^--(\w+)", span)}
    assert named <= known


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_exists(page):
    targets = re.findall(r"^([\w/.]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = [text.split()[-1] for text in [*code_lines(page), *spans(prose(page))] if re.search(r"\bmake \w+$", text)]
    assert set(named) <= set(targets)


# -- paths


def is_repository_path(span):
    """Whether a span looks like a script, a recipe, a page or a folder of the repository, and not like what a run makes
    (data/, out/) or a part of Python's library (textwrap.py)."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", span) or re.fullmatch(r"\.\w+", span):  # .md is a kind of file
        return False
    first = re.split(r"[/.]", span)[0]
    if any(span.startswith(folder) for folder in MADE) or first in sys.stdlib_module_names or first == "__init__":
        return False
    return "/" in span or span.endswith((".py", ".toml", ".md", ".txt"))


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page):
    paths = [span.removeprefix("pytest ") for span in spans(prose(page))]
    paths = [path for path in paths if is_repository_path(path)]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", prose(page)) if "://" not in target]
    assert [target for target in targets if not ((ROOT / page).parent / target).exists()] == []


def test_what_looks_like_a_path_of_the_repository():
    for path in ("training/optim.py", "model.py", "corpus/", "configs/demo.toml", "CONTRIBUTING.md", "tests/gone.py"):
        assert is_repository_path(path)
    for other in ("data/stdlib/", "out/demo/report.html", "report.html", "textwrap.py", "encodings/", "--lr=1", ".md"):
        assert not is_repository_path(other)


# -- the two READMEs


def test_the_readmes_have_the_same_headings():
    assert headings(ENGLISH) == headings(CHINESE)


def test_the_readmes_have_the_same_code():
    assert code_lines(ENGLISH) == code_lines(CHINESE)
    assert Counter(spans(prose(ENGLISH))) == Counter(spans(prose(CHINESE)))


def test_the_readmes_have_the_same_tables():
    """The same rows and columns, and the same code in each cell; numbers are compared in the table of presets alone."""
    english, chinese = tables(ENGLISH), tables(CHINESE)
    assert len(english) == len(chinese)
    for row, translated in zip(english, chinese):
        assert [spans(cell) for cell in row] == [spans(cell) for cell in translated]
        if row[0] in presets.PRESETS:
            numbers = [re.findall(r"\d[\d.,e+]*", cell) for cell in row]
            assert row[0] == translated[0]
            assert numbers == [re.findall(r"\d[\d.,e+]*", cell) for cell in translated]


def test_the_readmes_link_to_each_other():
    assert f"]({CHINESE})" in TEXTS[ENGLISH][:600] and f"]({ENGLISH})" in TEXTS[CHINESE][:600]


def test_the_citation_names_the_version_and_licence_that_are_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {project['version']}" in citation and f"license: {project['license']}" in citation
    assert "cff-version: 1.2.0" in citation and any(line.startswith("message: ") for line in citation)
