"""A wiki's dump -> titles and plain text: MediaWiki's export XML, article by article.

Dumps are at https://dumps.wikimedia.org, <wiki>-latest-pages-articles-multistream.xml.bz2. Memory is constant: one page
at a time. documents.read_dump() makes documents of them; wikitext.py takes the markup away.
"""

import re
from collections import Counter
from xml.etree import ElementTree

from corpus.wikitext import plain_text

ARTICLES = "0"  # the namespace of articles; others hold talk, templates, pictures
# Links to these show nothing in an article. Their names in a dump's own language are in its <siteinfo>, without the
# aliases: the English names, which are good in every wiki, and older or traditional ones.
FILES, CATEGORIES = "6", "14"
ALIASES = (
    "file image category 文件 图像 檔案 圖像 分类 分類 datei bild kategorie fichier catégorie archivo imagen immagine"
)
ALIASES += " imagem ficheiro afbeelding grafika изображение 画像 그림"
REDIRECT = re.compile(r"\s*#[^\s\[:：]{1,40}\s*[:：]?\s*\[\[[^\[\]\n]*\]\]")


class NoArticles(Exception):
    """A dump without articles. Its text says what is there instead."""


def articles(file):
    """Yield (title, text) of every article of a dump, an open binary file. Raises NoArticles where there is none, and
    ElementTree.ParseError, or whatever reading the file raises, if the dump is damaged."""
    namespaces = {}  # {"0": "", "1": "Talk", ...}, as the dump names them
    others, any_article = Counter(), False
    for page in pages(file, namespaces):
        markup = page.get("text", "")
        if "redirect" in page or REDIRECT.match(markup):
            others["redirects"] += 1
        elif page.get("model", "wikitext") != "wikitext":
            others[f"of {page['model']}"] += 1
        elif (namespace := namespace_of(page, namespaces)) != ARTICLES:
            others[f"in {namespaces.get(namespace) or f'namespace {namespace}'}"] += 1
        else:
            any_article = True
            own = {namespaces.get(key, "").casefold() for key in (FILES, CATEGORIES)} - {""}
            yield page.get("title", ""), plain_text(markup, own.union(ALIASES.split()))
    if not any_article:
        found = ", ".join(f"{count:,} {what}" for what, count in others.most_common(8))
        raise NoArticles(f"no articles; pages: {found}" if found else "no pages")


def pages(file, namespaces):
    """Yield {"title", "ns", "text", ...} of every page of a dump. namespaces: a dict to be filled from <siteinfo>."""
    events = ElementTree.iterparse(file, events=("start", "end"))
    _, root = next(events)
    page = {}
    for event, element in events:
        name = element.tag.rpartition("}")[2]  # without the namespace of the schema
        if event == "start":
            continue  # its content is not read yet
        if name == "namespace":
            namespaces[element.get("key")] = element.text or ""
        elif name in ("title", "ns", "text", "model", "redirect"):
            page[name] = element.text or ""
        elif name == "page":
            yield page
            page = {}
            root.clear()  # or the tree of the whole dump would stay in memory


def namespace_of(page, namespaces):
    """The number of a page's namespace, a str. Dumps from before 2012 tell it by the title alone."""
    if "ns" in page:
        return page["ns"].strip()
    prefix, colon, _ = page.get("title", "").partition(":")
    return next((key for key, name in namespaces.items() if colon and name == prefix), ARTICLES)
