"""By which names languages go: ISO codes with and without script, linguist's names, and folders of published corpora."""

import ast
import math
from pathlib import Path

import pytest
from test_rules import CHINESE_TEXT, ENGLISH

from cleaning import languages
from cleaning.view import CHINESE, CODE, PROSE, PYTHON, kind_of

PROGRAM = Path(ast.__file__).read_text(encoding="utf-8")
POLISH = "Historia maszyny zaczyna się w warsztatach małego miasta, gdzie dwaj bracia zbudowali krosno.\n" * 3


NAMES_OF_PROSE = """eng_Latn eng en en-US en_GB English english fra_Latn deu_Latn rus_Cyrl arb_Arab pt-BR jpn_Jpan
sr-Latn-RS es-419 Markdown LaTeX reStructuredText Text txt lua_Latn swh_Latn pl-PL hin
sr_Latn_RS eng_latn DE_de en_US.UTF-8 English_US"""


@pytest.mark.parametrize("name", NAMES_OF_PROSE.split())
def test_names_of_prose(name):
    assert kind_of(ENGLISH, {"language": name}, CODE) == PROSE
    assert kind_of(PROGRAM, {"language": name}) == PROSE, "the name decides, not the look"


@pytest.mark.parametrize(
    "name",
    "zho_Hans zho_Hant cmn_Hani zh zh-CN zh_TW zh-Hans cmn zho chi Chinese yue_Hant zh_Hans_CN zh-hant zh-yue".split(),
)
def test_names_of_chinese(name):
    assert kind_of(CHINESE_TEXT, {"language": name}, CODE) == CHINESE
    assert kind_of(CHINESE_TEXT[:200] + ENGLISH, {"language": name}) == CHINESE, "with much English in between too"


NAMES_OF_CODE = """c++,cpp,C,C#,c-sharp,golang,Go,Jupyter Notebook,jupyter-notebook,Objective-C++,Common Lisp,HTML,JSON
emacs-lisp,Visual Basic .NET,YAML,R,D,rs,kt,hs,Lua,Vim Script,Protocol Buffer,SQL,Dockerfile,shell,TypeScript,F#"""


@pytest.mark.parametrize("name", NAMES_OF_CODE.replace("\n", ",").split(","))
def test_names_of_code(name):
    assert kind_of(ENGLISH, {"language": name}, PROSE) == CODE


@pytest.mark.parametrize("name", ["Python", "python3", "py", "PYTHON", " Python "])
def test_names_of_python(name):
    assert kind_of(ENGLISH, {"language": name}, PROSE) == PYTHON


@pytest.mark.parametrize(
    "name", ["", "pl", "cs", "ml", "ts", "klingon", "xyz", "unknown", "und", None, 7, math.nan, "nan", "dns-zone"]
)
def test_an_unknown_name_and_one_of_two_languages_is_told_by_the_look(name):
    """pl is Polish and Perl, cs is Czech and C#, and nan is Southern Min or what pandas writes for no name."""
    assert kind_of(POLISH, {"language": name}) == PROSE
    assert kind_of(PROGRAM, {"language": name}) == CODE
    assert kind_of(CHINESE_TEXT, {"language": name}) == CHINESE
    assert kind_of(PROGRAM, {"language": name, "path": "a/b.txt"}) == PROSE, "a suffix comes before the look"
    assert kind_of(ENGLISH, {"language": name, "path": "a/b.c"}) == CODE
    assert kind_of(ENGLISH, {"language": name}, PYTHON) == PYTHON, "what is set comes before the look too"


@pytest.mark.parametrize("path", ["Dr. Who", "notes of 2020. A plan", "a.b/readme", ""])
def test_a_title_with_a_full_stop_has_no_suffix(path):
    assert kind_of(ENGLISH, {"path": path}) == PROSE and kind_of(PROGRAM, {"path": path}) == CODE


def test_every_suffix_is_that_of_one_language():
    suffixes = " ".join(row[3] for row in languages.TABLE).split()
    names = " ".join(row[2] for row in languages.TABLE).split()
    assert len(suffixes) == len(set(suffixes)) and len(names) == len(set(names))
    assert [name for name in names if name != languages.normal(name)] == []
