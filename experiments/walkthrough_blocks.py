"""What experiments.walkthrough puts on its page: tokens that can be seen, blocks of code, entries of tables."""

import re
import textwrap

import pages
from configurator import ROOT
from loss import IGNORE

WIDTH = 118  # characters of a line in a block of code


def code(text, language=""):
    """A block of code."""
    return pages.code_block(text, language).rstrip()


def span(text):
    """A token as code inside a sentence, which back-ticks would end."""
    return f"<code>{text.replace('`', '&#96;')}</code>" if "`" in text else f"`{text}`"


def piece(tokenizer, token):
    """A token as it can be seen: · for a space, ↵ for a line end."""
    if token == IGNORE:
        return "(not counted)"
    if token in tokenizer.special_names:
        return tokenizer.special_names[token]
    return tokenizer.token_bytes[token].decode("utf-8", "replace").replace(" ", "·").replace("\n", "↵")


def columns(pieces, rows):
    """A block of code in which tokens stand side by side, and what belongs to each under it. rows: {label: a cell for
    each token}. A line ends where the text has a line end, or at WIDTH."""
    margin = max(map(len, rows)) + 2
    lines, line, used = [], [], margin
    for cells in zip(pieces, *rows.values()):
        size = max(map(len, cells)) + 1
        if line and (used + size > WIDTH or "↵" in line[-1][0]):
            lines.append(line)
            line, used = [], margin
        line.append([cell.rjust(size) for cell in cells])
        used += size
    shown = []
    for line in [*lines, line]:
        for label, *cells in zip(["", *rows], *line):
            shown.append(label.ljust(margin) + "".join(cells))
        shown.append("")
    return code("\n".join(shown).rstrip())


def contents(tokenizer, ids, targets, documents):
    """A block of code with a line for each document of a row: its number, its length, how it begins."""
    lines = []
    for number in documents.unique().tolist():
        own = documents == number
        words = " ".join(tokenizer.decode(ids[own & (ids != tokenizer.eot)]).split())[:80]
        is_filling = (targets[own] == IGNORE).all()
        lines.append(f"document {number}  {int(own.sum()):4} tokens   {'(filled up)' if is_filling else words}")
    return code("\n".join(lines), "text")


def border(tokenizer, ids, targets, documents, mask):
    """A block of code with the tokens around the end of a row's first document, their targets, and which of each other
    they may look at. ids, targets, documents: (T,); mask (T, T), true where a query may look at a key."""
    begins = int((documents == documents[0]).sum())  # where the second document does
    near = range(max(0, begins - 3), min(len(ids), begins + 3))
    lines = [f"{'token':16}{'target':16}{'document':10}may look at"]
    for i in near:
        seen = " ".join("x" if mask[i, j] else "." for j in near)
        token, target = (piece(tokenizer, int(x[i])) for x in (ids, targets))
        lines.append(f"{token:16}{target:16}{int(documents[i]):<10}{seen}")
    return code("\n".join(lines), "text")


def wrapped(page):
    """The page with its prose wrapped anew; headings, tables, pictures and blocks of code stay as they are."""
    blocks, fence = [[]], ""
    for line in page.splitlines():
        opens = re.match("`{3,}", line)
        if opens and not fence:
            fence = opens[0]
        elif line == fence:
            fence = ""
        is_prose = not (fence or opens or line.startswith(("#", "|", "![")))
        if is_prose and line and blocks[-1]:
            blocks[-1].append(line)
        elif is_prose and line:
            blocks.append([line])
        else:
            blocks += [line, []]
    fill = {"width": 128, "break_long_words": False, "break_on_hyphens": False}
    lines = [
        block if isinstance(block, str) else textwrap.fill(" ".join(block), **fill) for block in blocks if block != []
    ]
    return "\n".join(lines) + "\n"


def entry(name, sentence, operations):
    """The entry of a table for an operation, and its phrase in the sentence; "" for "if", which is no operation. Where
    tables have several of one name, it is the one whose phrase occurs. operations: [(path of the table, Operation)]."""
    found = []
    for path, operation in operations:
        if operation.name == name:
            said = max((phrase for _, phrase in operation.phrases if occurs(phrase, sentence)), key=len, default="")
            found.append((said, path, operation.line))
    if not found:
        return ""
    said, path, first = max(found, key=lambda one: len(one[0]))
    lines = path.read_text(encoding="utf-8").splitlines()[first - 1 :]
    end = next((n for n, line in enumerate(lines) if n and line and not line.startswith(" ")), len(lines))
    shown = []
    for text in lines[:end]:
        indent = re.match(r" *", text)[0]
        shown += textwrap.wrap(text, WIDTH, subsequent_indent=indent) if " | " in text else [text]
    words = f"; its phrase here is `{said}`" if said else ""
    return f"`{name}` in `{path.relative_to(ROOT)}`, line {first}{words}:\n\n" + code("\n".join(shown), "text")


def occurs(phrase, sentence):
    """Whether a sentence may have been made with a phrase: it has its words, around whatever fills its slots."""
    for way in phrase.split(" / "):  # of a condition: "are even / is even"
        words = map(re.escape, re.split(r"{\w+[?!]?}", way))
        if re.search(".+".join(words), " ".join(sentence.split()), re.IGNORECASE):
            return True
    return False
