"""Reports for a person: blocks -> one Markdown file and one self-contained HTML page.

A block is (kind, content). KINDS at the end of the file says how each kind is written:

    title, heading, text   a string
    table                  (head, rows) of strings; the first column is aligned left
    bars                   (head, rows): a table with a bar for the second column's share of its largest number
    code                   a string
    texts                  strings, side by side
    image                  the path of a PNG
"""

import base64
import html
from functools import partial
from pathlib import Path

from configurator import write_text

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}img{max-width:100%}
td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #ddd;vertical-align:top}
td:first-child,th:first-child{text-align:left}pre{background:#f5f5f5;padding:.8rem;overflow:auto;text-align:left}
.texts{display:flex;gap:.5rem}
.texts pre{flex:1;margin:0 0 1rem;max-height:16rem;font-size:12px;white-space:pre-wrap;min-width:0}
.bar{background:#4a7fb5;height:1.1rem}.bars td:last-child{width:20rem}"""


def write(stem, blocks):
    """Write stem.md and stem.html from blocks, (kind, content) each; the first one is the title."""
    blocks = list(blocks)
    text, body = "", ""
    for kind, content in blocks:
        to_markdown, to_html = KINDS[kind]
        text += to_markdown(content) + "\n"
        body += to_html(content) + "\n"
    write_text(f"{stem}.md", text)
    head = f'<meta charset="utf-8"><title>{html.escape(blocks[0][1])}</title><style>{STYLE}</style>'
    write_text(f"{stem}.html", f'<!doctype html><html lang="en">{head}{body}</html>\n')


# -- Markdown


def line(mark, content):
    """A paragraph, or with a mark such as "# " a heading."""
    return f"{mark}{content}\n"


def fenced(text, language=""):
    """A block of code that no backticks inside of the text can end."""
    ticks = "```"
    while ticks in text:
        ticks += "`"
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}\n"


def fenced_texts(texts):
    """One block of code after the other."""
    return "\n".join(fenced(text) for text in texts)


def table(content):
    """(head, rows) with all columns but the first aligned right."""
    head, rows = content
    lines = ""
    for cells in [head, ["---", *["---:"] * (len(head) - 1)], *rows]:
        lines += "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
    return lines


def image(path):
    """A link to a picture that lies beside the page."""
    return f"![{Path(path).stem}]({Path(path).name})\n"


# -- HTML


def element(tag, text):
    """Text in an HTML element, escaped."""
    return f"<{tag}>{html.escape(text)}</{tag}>"


def html_texts(texts):
    """Texts side by side."""
    return '<div class="texts">' + "".join(element("pre", text) for text in texts) + "</div>"


def html_table(content, bars=False):
    """(head, rows), with bars for the second column's numbers where wanted."""
    head, rows = content
    lines = "<tr>" + "".join(element("th", cell) for cell in head) + "</tr>"
    largest = max([1, *(number(row[1]) for row in rows)]) if bars else 1
    for row in rows:
        lines += "<tr>" + "".join(element("td", cell) for cell in row)
        if bars:
            lines += f'<td><div class="bar" style="width:{100 * number(row[1]) / largest:.1f}%"></div></td>'
        lines += "</tr>"
    return f'<table class="{"bars" if bars else "table"}">{lines}</table>'


def html_image(path):
    """A picture, inside the page."""
    data = base64.b64encode(Path(path).read_bytes()).decode()
    return f'<img alt="{html.escape(Path(path).stem)}" src="data:image/png;base64,{data}">'


def number(cell):
    """The number in a cell such as 1,234."""
    return int(cell.replace(",", ""))


KINDS = {  # kind: (content -> Markdown, content -> HTML)
    "title": (partial(line, "# "), partial(element, "h1")),
    "heading": (partial(line, "## "), partial(element, "h2")),
    "text": (partial(line, ""), partial(element, "p")),
    "table": (table, html_table),
    "bars": (table, partial(html_table, bars=True)),
    "code": (partial(fenced, language="python"), partial(element, "pre")),
    "texts": (fenced_texts, html_texts),
    "image": (image, html_image),
}
