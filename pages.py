"""Reports for a person: blocks -> one Markdown file and one self-contained HTML page.

A block is (kind, content):

    title, heading, text   a string
    table                  (head, rows) of strings; the first column is aligned left
    bars                   a table with a bar for the second column's share of its largest number
    code                   a string
    texts                  strings, side by side
    image                  the path of a PNG
"""

import base64
import html
from pathlib import Path

from configurator import write_text

MARKS = {"title": "# ", "heading": "## ", "text": ""}  # what stands before the string in Markdown
TAGS = {"title": "h1", "heading": "h2", "text": "p", "code": "pre"}  # the HTML element that holds the string
STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}img{max-width:100%}
td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #ddd;vertical-align:top}
td:first-child,th:first-child{text-align:left}pre{background:#f5f5f5;padding:.8rem;white-space:pre-wrap;text-align:left}
.texts{display:flex;gap:.5rem}
.texts pre{flex:1;margin:0 0 1rem;max-height:16rem;font-size:12px;overflow:auto;min-width:0}
.bar{background:#4a7fb5;height:1.1rem}.bars td:last-child{width:20rem}"""


def write(stem, blocks):
    """Write stem.md and stem.html from blocks, (kind, content) each; the first one is the title."""
    blocks = list(blocks)
    write_text(f"{stem}.md", "".join(to_markdown(kind, content) + "\n" for kind, content in blocks))
    body = "".join(to_html(kind, content) + "\n" for kind, content in blocks)
    head = f'<meta charset="utf-8"><title>{html.escape(blocks[0][1])}</title><style>{STYLE}</style>'
    write_text(f"{stem}.html", f'<!doctype html><html lang="en">{head}{body}</html>\n')


def to_markdown(kind, content):
    """A block in Markdown. A picture must lie beside the file."""
    if kind in ("table", "bars"):
        head, rows = content
        lines = ""
        for cells in [head, ["---", *["---:"] * (len(head) - 1)], *rows]:
            lines += "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
        return lines
    if kind == "code":
        return code_block(content, "python")
    if kind == "texts":
        return "\n".join(map(code_block, content))
    if kind == "image":
        return f"![{Path(content).stem}]({Path(content).name})\n"
    return f"{MARKS[kind]}{content}\n"


def code_block(text, language=""):
    """A block of code between more backticks than stand side by side in the text."""
    ticks = "```"
    while ticks in text:
        ticks += "`"
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}\n"


def to_html(kind, content):
    """A block in HTML. A picture becomes part of the page."""
    if kind in ("table", "bars"):
        return html_table(kind, *content)
    if kind == "texts":
        return '<div class="texts">' + "".join(element("pre", text) for text in content) + "</div>"
    if kind == "image":
        data = base64.b64encode(Path(content).read_bytes()).decode()
        return f'<img alt="{html.escape(Path(content).stem)}" src="data:image/png;base64,{data}">'
    return element(TAGS[kind], content)


def html_table(kind, head, rows):
    """A table; where the kind is bars, each row ends in a bar for the number in its second cell, such as 1,234."""
    numbers = [int(row[1].replace(",", "")) if kind == "bars" else 0 for row in rows]
    lines = "<tr>" + "".join(element("th", cell) for cell in head) + "</tr>"
    for row, number in zip(rows, numbers):
        lines += "<tr>" + "".join(element("td", cell) for cell in row)
        if kind == "bars":
            lines += f'<td><div class="bar" style="width:{100 * number / max(1, *numbers):.1f}%"></div></td>'
        lines += "</tr>"
    return f'<table class="{kind}">{lines}</table>'


def element(tag, text):
    """Text in an HTML element, escaped."""
    return f"<{tag}>{html.escape(text)}</{tag}>"
