"""Reports for a person: blocks -> one Markdown file and one self-contained HTML page.

A block is (kind, content):

    title, heading, text   a string, in which `back-ticks` mark code
    table                  (head, rows) of strings; the first column is aligned left
    bars                   a table with a bar for the second column's share of its largest number
    code                   a string
    texts                  (caption, text) pairs, side by side where the screen is wide enough
    image                  the path of a PNG
"""

import base64
import html
import re
from pathlib import Path

from configurator import write_text

MARKS = {"title": "# ", "heading": "## ", "text": ""}  # what stands before the string in Markdown
TAGS = {"title": "h1", "heading": "h2", "text": "p"}  # the HTML element that holds the string
CODE = re.compile(r"`([^`]+)`")  # a span of code in a text
STYLE = """:root{color-scheme:light dark;--page:#fff;--ink:#222;--line:#ddd;--code:#f5f5f5;--bar:#4a7fb5}
@media(prefers-color-scheme:dark){:root{--page:#16181c;--ink:#ddd;--line:#3a3d44;--code:#22252b;--bar:#5d93cb}
img{filter:invert(.9) hue-rotate(180deg)}}
body{font:16px/1.5 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem;overflow-wrap:anywhere;
background:var(--page);color:var(--ink)}
.wide{overflow-x:auto;margin:1rem 0}.wide img{width:100%;min-width:44rem}
table{border-collapse:collapse}
td,th{padding:.25rem .7rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line);vertical-align:top}
td:first-child,th:first-child{text-align:left;padding-left:0}
pre,code{background:var(--code);font-size:.85em}pre{padding:.8rem;margin:0 0 1rem;white-space:pre-wrap}
.texts{display:flex;flex-wrap:wrap;gap:0 .5rem}figure{flex:1 1 18rem;min-width:0;margin:0}
figure pre{max-height:20rem;overflow:auto}figcaption{font-size:.85em;padding:.2rem 0}
.bar{background:var(--bar);height:1.1rem}.bars td:last-child{min-width:8rem;width:20rem}"""


def write(stem, blocks):
    """Write stem.md and stem.html from blocks, (kind, content) each; the first one is the title."""
    blocks = list(blocks)
    write_text(f"{stem}.md", "".join(to_markdown(kind, content) + "\n" for kind, content in blocks))
    body = "".join(to_html(kind, content) + "\n" for kind, content in blocks)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    head += f"{element('title', blocks[0][1])}<style>{STYLE}</style>"
    write_text(f"{stem}.html", f'<!doctype html><html lang="en">{head}{body}</html>\n')


def to_markdown(kind, content):
    """A block in Markdown. A picture must lie beside the file."""
    if kind in ("table", "bars"):
        head, rows = content
        lines = ""
        for cells in [map(literal, head), ["---", *["---:"] * (len(head) - 1)], *(map(literal, row) for row in rows)]:
            lines += "| " + " | ".join(cells) + " |\n"
        return lines
    if kind == "code":
        return code_block(content, "python")
    if kind == "texts":
        return "\n".join(f"{literal(caption)}\n\n{code_block(text)}" for caption, text in content)
    if kind == "image":
        return f"![{Path(content).stem}]({Path(content).name})\n"
    return f"{MARKS[kind]}{literal(content)}\n"


def literal(text):
    """Text on one line of Markdown in which back-ticks alone mean something: <tag>, __name__, a|b stay as they are."""
    parts = re.split(r"(`[^`]+`)", " ".join(text.split()))  # text, code, text, code, ...
    marks = r"[\\<*|\[]|(?<![^\W_])_|_(?![^\W_])"  # an underscore inside a word means nothing
    parts[::2] = [re.sub(marks, r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)


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
    if kind == "code":
        return element("pre", content)
    if kind == "texts":
        figures = [
            f"<figure>{marked('figcaption', caption)}{element('pre', text)}</figure>" for caption, text in content
        ]
        return f'<div class="texts">{"".join(figures)}</div>'
    if kind == "image":
        data = base64.b64encode(Path(content).read_bytes()).decode()
        return (
            f'<div class="wide"><img alt="{html.escape(Path(content).stem)}" src="data:image/png;base64,{data}"></div>'
        )
    return marked(TAGS[kind], content)


def html_table(kind, head, rows):
    """A table; where the kind is bars, each row ends in a bar for the number in its second cell, such as 1,234."""
    numbers = [int(row[1].replace(",", "")) if kind == "bars" else 0 for row in rows]
    lines = "<tr>" + "".join(element("th", cell) for cell in head) + "</tr>"
    for row, number in zip(rows, numbers):
        lines += "<tr>" + "".join(marked("td", cell) for cell in row)
        if kind == "bars":
            lines += f'<td><div class="bar" style="width:{100 * number / max(1, *numbers):.1f}%"></div></td>'
        lines += "</tr>"
    return f'<div class="wide"><table class="{kind}">{lines}</table></div>'


def element(tag, text):
    """Text in an HTML element, escaped."""
    return f"<{tag}>{html.escape(text)}</{tag}>"


def marked(tag, text):
    """Text in an HTML element, escaped, with its spans between back-ticks as code."""
    return CODE.sub(r"<code>\1</code>", element(tag, text))
