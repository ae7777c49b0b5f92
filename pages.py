"""Reports for a person: blocks -> one Markdown file and one self-contained HTML page.

title, heading, text   a string
table                  (head, rows) of strings; the first column is aligned left
bars                   (head, rows): a table with a bar for the second column's share of its largest number
code                   a string; texts   strings side by side; image   the path of a PNG
"""

import base64
import html
from pathlib import Path

from configurator import write_text

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #ddd;vertical-align:top}
td:first-child,th:first-child{text-align:left}img{max-width:100%}pre{background:#f5f5f5;padding:.8rem;overflow:auto;text-align:left}
.texts{display:flex;gap:.5rem}.texts pre{flex:1;margin:0 0 1rem;max-height:16rem;font-size:12px;white-space:pre-wrap;min-width:0}
.bar{background:#4a7fb5;height:1.1rem}.bars td:last-child{width:20rem}"""


def write(stem, blocks):
    """stem.md and stem.html from blocks, [(kind, content)]; the first one is the title."""
    blocks = list(blocks)
    write_text(f"{stem}.md", "".join(markdown(*block) for block in blocks))
    body = "".join(page(*block) for block in blocks)
    head = f'<meta charset="utf-8"><title>{html.escape(blocks[0][1])}</title><style>{STYLE}</style>'
    write_text(f"{stem}.html", f'<!doctype html><html lang="en">{head}{body}</html>\n')


def markdown(kind, content):
    if kind in ("table", "bars"):
        head, rows = content
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines) + "\n"
    if kind == "texts":
        return "".join(fenced(text) for text in content)
    if kind == "code":
        return fenced(content, "python")
    return {"title": f"# {content}\n\n", "heading": f"## {content}\n\n", "image": f"![{Path(content).stem}]({Path(content).name})\n\n", "text": f"{content}\n\n"}[kind]  # fmt: skip


def fenced(text, language=""):
    """A block that no backticks inside of the text can end."""
    ticks = "```"
    while ticks in text:
        ticks += "`"
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}\n\n"


def page(kind, content):
    if kind in ("table", "bars"):
        head, rows = content
        most = max([1, *(number(row[1]) for row in rows)]) if kind == "bars" else 1
        cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        lines = ""
        for row in rows:
            bar = f'<td><div class="bar" style="width:{100 * number(row[1]) / most:.1f}%"></div></td>' if kind == "bars" else ""  # fmt: skip
            lines += "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + bar + "</tr>"
        return f'<table class="{kind}"><tr>{cells}</tr>{lines}</table>\n'
    if kind == "texts":
        return '<div class="texts">' + "".join(f"<pre>{html.escape(text)}</pre>" for text in content) + "</div>\n"
    if kind == "image":
        data = base64.b64encode(Path(content).read_bytes()).decode()
        return f'<img alt="{html.escape(Path(content).stem)}" src="data:image/png;base64,{data}">\n'
    tag = {"title": "h1", "heading": "h2", "text": "p", "code": "pre"}[kind]
    return f"<{tag}>{html.escape(content)}</{tag}>\n"


def number(cell):
    return int(cell.replace(",", ""))
