"""A dump of a wiki -> documents: MediaWiki's export XML, plain or bz2 (multistream too), article by article.

Dumps are at https://dumps.wikimedia.org, <wiki>-latest-pages-articles-multistream.xml.bz2. The markup is parsed and
removed by mwparserfromhell; templates, tables, references, pictures and categories go, titles, prose and lists stay.
Memory is constant: one article at a time.
"""

import bz2
import re
import zlib
from xml.etree import ElementTree

from corpus.documents import Document, Problem, optional

ARTICLES = "0"  # the namespace; others hold talk, templates, pictures
DROPPED_TAGS = {
    "ref",
    "table",
    "gallery",
    "math",
    "timeline",
    "score",
    "hiero",
    "syntaxhighlight",
    "imagemap",
    "references",
}
LINK_TO_PAGE = re.compile(r"^\s*:?\s*(?:file|image|category|文件|图像|檔案|圖像|分类|分類|datei|kategorie|fichier|catégorie)\s*:", re.I)  # fmt: skip


def read_dump(path, where):
    """Documents and Problems of a dump; a document's id is its title."""
    parser = optional("mwparserfromhell", "Wikipedia dumps")
    opened = bz2.open(path, "rb") if path.name.endswith(".bz2") else open(path, "rb")
    title = "the beginning"
    try:
        with opened as file:
            for page in pages(file):
                title, text = page
                if text is not None:
                    plain = plain_text(parser, text)
                    meta = {"path": f"{title}.txt", "id": title}
                    yield Document(plain, f"{where}:{title}", meta) if plain else Problem(f"{where}:{title}", "empty")
    except (ElementTree.ParseError, EOFError, zlib.error) as error:
        yield Problem(f"{where}: after {title}", "truncated", str(error))
    except OSError as error:
        yield Problem(f"{where}: after {title}", "truncated" if error.strerror is None else "unreadable", str(error))


def pages(file):
    """(title, markup) of every page; markup None of what is no article."""
    page, root = {}, None
    for event, element in ElementTree.iterparse(file, events=("start", "end")):
        root = element if root is None else root
        name = element.tag.rpartition("}")[2]
        if event == "start":
            page = {} if name == "page" else page
        elif name in ("title", "ns", "text"):
            page[name] = element.text or ""
        elif name == "redirect":
            page["ns"] = "redirect"
        elif name == "page":
            redirected = page.get("ns") != ARTICLES or re.match(r"#\w+\s*\[\[", page.get("text", ""))
            yield page.get("title", ""), None if redirected else page.get("text", "")
            root.clear()


def plain_text(parser, markup):
    code = parser.parse(markup)
    for node in [*code.filter_tags(matches=lambda tag: str(tag.tag).lower() in DROPPED_TAGS), *code.filter_wikilinks(matches=lambda link: LINK_TO_PAGE.match(str(link.title))), *code.filter_comments()]:  # fmt: skip
        try:
            code.remove(node)
        except ValueError:  # inside of something that is gone already
            pass
    text = code.strip_code(normalize=True, collapse=True, keep_template_params=False)
    text = re.sub(r"^\s*[()（）,，;；]*\s*$", "", re.sub(r"__[A-Z]+__", "", text), flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[（(]\s*[，,;；]*\s*[)）]", "", text)).strip()
