"""A wiki's dump -> titles and plain text: MediaWiki's export XML, article by article.

Dumps are at https://dumps.wikimedia.org, <wiki>-latest-pages-articles-multistream.xml.bz2. The markup is parsed and
removed by mwparserfromhell: templates, tables, references, pictures and categories go; titles, prose and lists stay.
Memory is constant: one page at a time. documents.read_dump() makes documents of them.
"""

import re
from xml.etree import ElementTree

ARTICLES = "0"  # the namespace of articles; others hold talk, templates, pictures
DROPPED_TAGS = set("ref table gallery math timeline score hiero syntaxhighlight imagemap references".split())
NO_PROSE = "file|image|category|文件|图像|檔案|圖像|分类|分類|datei|kategorie|fichier|catégorie"
LINK_TO_NO_PROSE = re.compile(rf"^\s*:?\s*(?:{NO_PROSE})\s*:", re.IGNORECASE)


def pages(file):
    """Yield (title, markup) of every page of a dump, an open binary file. markup is None for a page that is no article.
    Raises ElementTree.ParseError, or whatever reading the file raises, if the dump is damaged."""
    events = ElementTree.iterparse(file, events=("start", "end"))
    _, root = next(events)
    page = {}
    for event, element in events:
        name = element.tag.rpartition("}")[2]  # without the namespace of the schema
        if event == "start":
            continue  # its content is not read yet
        if name in ("title", "ns", "text"):
            page[name] = element.text or ""
        elif name == "redirect":
            page["ns"] = "redirect"
        elif name == "page":
            markup = page.get("text", "")
            is_article = page.get("ns") == ARTICLES and not re.match(r"#\w+\s*\[\[", markup)  # no #REDIRECT [[...]]
            yield page.get("title", ""), markup if is_article else None
            page = {}
            root.clear()  # or the tree of the whole dump would stay in memory


def plain_text(parser, markup):
    """The text of an article without its markup. parser: the module mwparserfromhell."""
    code = parser.parse(markup)
    tags = code.filter_tags(matches=lambda tag: str(tag.tag).lower() in DROPPED_TAGS)
    links = code.filter_wikilinks(matches=lambda link: LINK_TO_NO_PROSE.match(str(link.title)))
    for node in tags + links + code.filter_comments():
        try:
            code.remove(node)
        except ValueError:  # it was part of a node that is gone already
            pass
    text = code.strip_code(normalize=True, collapse=True, keep_template_params=False)
    text = re.sub(r"__[A-Z]+__", "", text)  # switches such as __NOTOC__
    # Brackets and commas that stood around a template.
    text = re.sub(r"^\s*[()（）,，;；]*\s*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"[（(]\s*[，,;；]*\s*[)）]", "", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()
