"""A wiki's dump: articles without their markup, nothing else, and a damaged dump gives what it holds."""

import bz2

import pytest

pytest.importorskip("mwparserfromhell")

from corpus.documents import Document, Problem, read

PAGE = "<page><title>{}</title><ns>{}</ns><id>1</id>{}<revision><text>{}</text></revision></page>"
MARKUP = """{{Infobox language|name=Python|designed=[[Guido van Rossum]]}}
'''Python''' is a [[programming language|language]]&lt;ref&gt;A book, p. 3&lt;/ref&gt; of {{circa|1991}} [https://python.org its site].
[[File:logo.png|thumb|The logo]]
== History ==
* first item
{| class="wikitable"
| a cell
|}
&lt;!-- a remark --&gt;
[[Category:Languages]]
"""


def dump(tmp_path, *pages, suffix=".xml"):
    head = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo><sitename>W</sitename></siteinfo>'
    parts = [head, *(PAGE.format(*page) for page in pages), "</mediawiki>"]
    path = tmp_path / f"wiki{suffix}"
    if suffix.endswith("bz2"):  # multistream: several archives one after another
        path.write_bytes(b"".join(bz2.compress(part.encode()) for part in parts))
    else:
        path.write_text("".join(parts))
    return path


@pytest.mark.parametrize("suffix", [".xml", ".xml.bz2"])
def test_articles_lose_their_markup_and_other_pages_are_left_out(tmp_path, suffix):
    path = dump(
        tmp_path,
        ("Python", 0, "", MARKUP),
        ("Talk:Python", 1, "", "chatter"),
        ("Py", 0, '<redirect title="Python"/>', "#REDIRECT [[Python]]"),
        ("数学", 0, "", "'''数学'''是研究[[数量]]的学科。"),
        suffix=suffix,
    )
    documents = list(read(str(path)))
    assert [d.where for d in documents] == [f"wiki{suffix}:Python", f"wiki{suffix}:数学"]
    text = documents[0].text
    assert text.startswith("Python is a language of")
    for kept in ("its site", "History", "first item"):
        assert kept in text
    for gone in ("{{", "[[", "Infobox", "A book", "logo", "a cell", "remark", "Category", "<", "'''"):
        assert gone not in text, (gone, text)
    assert documents[1].text == "数学是研究数量的学科。"


@pytest.mark.parametrize("encoding", ["no-such-encoding", "utf-7"])
def test_a_dump_in_an_unknown_encoding_is_named(tmp_path, encoding):
    (tmp_path / "wiki.xml").write_text(f'<?xml version="1.0" encoding="{encoding}"?><mediawiki></mediawiki>')
    (problem,) = read(str(tmp_path / "wiki.xml"))
    assert problem.rule == "truncated" and "the beginning" in problem.where


def test_a_truncated_dump_gives_its_whole_articles_and_is_named(tmp_path):
    path = dump(tmp_path, *((f"Page {i}", 0, "", f"Text {i} " * 100) for i in range(1000)), suffix=".xml.bz2")
    path.write_bytes(path.read_bytes()[:-200])
    *articles, last = read(str(path))
    assert len(articles) > 500 and all(isinstance(d, Document) and d.text.startswith("Text") for d in articles)
    assert isinstance(last, Problem) and last.rule == "truncated" and f"Page {len(articles) - 1}" in last.where
