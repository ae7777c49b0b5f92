"""A wiki's dump: articles without their markup, nothing else, and a damaged dump gives what it holds."""

import bz2

import pytest

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


GERMAN = {0: "", 1: "Diskussion", 6: "Datei", 10: "Vorlage", 14: "Kategorie"}


def dump(tmp_path, *pages, suffix=".xml", namespaces=None, page=PAGE):
    names = "".join(f'<namespace key="{key}">{name}</namespace>' for key, name in (namespaces or {}).items())
    head = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo><sitename>W</sitename>'
    parts = [f"{head}<namespaces>{names}</namespaces></siteinfo>", *(page.format(*values) for values in pages)]
    parts.append("</mediawiki>")
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


@pytest.mark.parametrize(
    "namespaces, link",
    [
        ({6: "Datei", 14: "Kategorie"}, "Datei:Haus.png|mini|Ein [[Haus]]"),
        ({6: "Datei", 14: "Kategorie"}, "Kategorie:Haus"),
        ({6: "Fichier", 14: "Catégorie"}, "Catégorie:Maison|maison"),
        ({6: "Файл", 14: "Категория"}, "Файл:Дом.png|мини|подпись"),
        ({6: "Файл", 14: "Категория"}, "категория:Дом"),
        ({6: "ファイル", 14: "Category"}, "ファイル:家.png|thumb"),
        ({6: "Tập tin", 14: "Thể loại"}, "tập_tin:nhà.png|nhỏ"),
        ({6: "תמונה", 14: "קטגוריה"}, "תמונה:בית.png"),
        ({6: "Datei", 14: "Kategorie"}, "File:House.png|thumb|the English names are good everywhere"),
        ({6: "Datei", 14: "Kategorie"}, "category:House"),
        ({6: "File", 14: "Category"}, "檔案:房.png|thumb"),
        ({}, "文件:房.png"),
    ],
)
def test_pictures_and_categories_go_by_the_names_of_the_dumps_language(tmp_path, namespaces, link):
    (article,) = read(str(dump(tmp_path, ("T", 0, "", f"before [[{link}]]after"), namespaces=namespaces)))
    assert article.text == "before after"


def test_pages_that_only_lead_to_others_are_no_articles(tmp_path):
    words = [
        "#REDIRECT",
        "#redirect:",
        "#WEITERLEITUNG",
        "#重定向",
        "#ПЕРЕНАПРАВЛЕНИЕ",
        "#REDIRECTION",
        "#تحويل",
        "#पुनर्प्रेषित",
    ]
    redirects = [(f"R{i}", 0, "", f"{word} [[Haus]]\n[[Kategorie:X]]") for i, word in enumerate(words)]
    by_element = ("R", 0, '<redirect title="Haus"/>', "Weiter")
    listed = ("L", 0, "", "# [[Haus]] und [[Hof]]")
    documents = list(read(str(dump(tmp_path, *redirects, by_element, listed, namespaces=GERMAN))))
    assert [d.where for d in documents] == ["wiki.xml:L"]


@pytest.mark.parametrize(
    "pages, said",
    [
        ([], "no pages"),
        (
            [("Vorlage:A", 10, "", "x"), ("Vorlage:B", 10, "", "x"), ("Diskussion:C", 1, "", "x")],
            "no articles; pages: 2 in Vorlage, 1 in Diskussion",
        ),
        (
            [("R", 0, '<redirect title="X"/>', "x"), ("Q", 828, "", "x")],
            "no articles; pages: 1 redirects, 1 in namespace 828",
        ),
        ([("Q42", 0, "<model>wikibase-item</model>", "{}")], "no articles; pages: 1 of wikibase-item"),
    ],
)
def test_a_dump_without_articles_says_what_it_holds(tmp_path, pages, said):
    (problem,) = read(str(dump(tmp_path, *pages, namespaces=GERMAN)))
    assert (problem.where, problem.rule, problem.detail) == ("wiki.xml", "no_articles", said)


def test_old_dumps_tell_the_namespace_by_the_title_alone(tmp_path):
    page = "<page><title>{}</title><revision><text>{}</text></revision></page>"
    path = dump(tmp_path, ("Haus: Bau", "x"), ("Vorlage:Haus", "y"), ("Datei:H.png", "z"), namespaces=GERMAN, page=page)
    assert [d.where for d in read(str(path))] == ["wiki.xml:Haus: Bau"]


def test_a_deleted_or_blank_text_is_named(tmp_path):
    page = '<page><title>{}</title><ns>0</ns><revision><text deleted="deleted" /></revision></page>'
    kinds = [(item.where, item.rule) for item in read(str(dump(tmp_path, ("A",), ("B",), page=page)))]
    assert kinds == [("wiki.xml:A", "empty"), ("wiki.xml:B", "empty")]
    (blank,) = read(str(dump(tmp_path, ("A", 0, "", "{{only|a template}}"))))
    assert blank.rule == "empty"
