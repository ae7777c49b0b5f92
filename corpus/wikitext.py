"""MediaWiki's markup -> plain text. What a reader of the page would read stays: titles, prose, lists, code. Templates,
tables, references, pictures, formulas and categories go.

Every step goes through the text once, so that a page of a hundred thousand open brackets takes no longer than another.
Meaning of the markup: https://www.mediawiki.org/wiki/Help:Formatting and Help:Links on the same wiki.
"""

import html
import re
from collections import deque

# None of these can occur in XML, so that none is part of a page.
GONE = "\x01"  # something was here
BREAK = "\x04"  # a <br>: a line end, but one that ends neither a title nor a list item while these are sought
BLOCK = re.compile("\x02([0-9]+)\x03")  # the place of a block of code, which no later step may change

CODE_TAGS = "pre nowiki syntaxhighlight source"
DROPPED_TAGS = (
    "ref references gallery math chem ce timeline score hiero imagemap graph templatedata templatestyles mapframe "
    "maplink indicator includeonly categorytree inputbox section"
)
RAW = re.compile(rf"<!--|-->|<(/?)({(CODE_TAGS + ' ' + DROPPED_TAGS).replace(' ', '|')})\b([^<>]*)>", re.IGNORECASE)
PARAGRAPH_TAGS = set("p div blockquote center poem ul ol li dl dt dd h1 h2 h3 h4 h5 h6 hr table tr caption".split())
INLINE_TAGS = set(
    "a abbr b bdi bdo big cite code data del dfn em font i img ins kbd link mark meta noinclude onlyinclude q rb rp rt "
    "rtc ruby s samp small span strike strong sub sup tbody td th time tt u var wbr".split()
)
TAG = re.compile(r"</?([a-zA-Z][a-zA-Z0-9]*)\b[^<>]*>")
EXTERNAL_LINK = re.compile(r"\[(?:(?:https?:|ftps?:)?//|mailto:)[^\s\[\]<>]*+[ \t]*+([^\[\]\n]*)\]")
PICTURE = re.compile(r"\.(?:jpe?g|png|gif|svg|tiff?|webp)\s*\Z", re.IGNORECASE)  # whatever a wiki calls their namespace
MAX_DEPTH = 40  # of templates in templates, and the like; MediaWiki has the same limit
# The names by which a conversion between scripts calls them, and those of simplified Chinese, the best one first.
VARIANT = r"(?:zh|[a-z]{2,3}-[a-z]{2,4})"
SIMPLIFIED = ("zh-hans", "zh-cn", "zh-sg", "zh-my", "gan-hans")
SWITCH = re.compile(  # __NOTOC__ anywhere, and in other languages on a line of its own; never __init__
    r"__(?:NO|FORCE)?(?:TOC|EDITSECTION|GALLERY|INDEX|CC|TC|CONTENTCONVERT|TITLECONVERT|GLOBAL)__"
    r"|__(?:(?:NO)?NEWSECTIONLINK|HIDDENCAT|DISAMBIG|STATICREDIRECT|EXPECTUNUSED(?:CATEGORY|TEMPLATE))__"
    r"|^[ \t]*__[^\Wa-z]+__[ \t]*$",
    re.MULTILINE,
)


def plain_text(markup, hidden):
    """The text of a page. hidden: the prefixes, casefolded, of links that show nothing in it: File, Category, ..."""
    text, blocks = without_blocks(markup)
    text = text.replace("-{{{", f"-{{{GONE}{{{{")  # a template in a conversion, not a conversion in a template
    text = with_spans(text, r"\{\{", r"\}\}(?:\}(?![}-]))?", lambda template: GONE)
    text = with_spans(text, r"-\{", r"\}-", variant)
    text = with_spans(text, rf"^[ \t:*#{GONE}]*\{{\|", r"^[ \t]*\|\}(?!\})", lambda table: GONE)
    text = EXTERNAL_LINK.sub(lambda link: link[1] or GONE, text)
    text = with_spans(text, r"\[\[", r"\]\]", lambda content: link_text(content, hidden))
    text = TAG.sub(tag_text, text)
    text = re.sub("'{2,}", apostrophes, text)
    text = re.sub(r"^(?:[*#:;]+|-{4,})", "", SWITCH.sub("", text), flags=re.MULTILINE)
    text = "\n".join(map(without_gaps, text.split("\n"))).replace(BREAK, "\n")
    text = re.sub(r"\n{3,}", "\n\n", unescaped(text)).strip()
    return BLOCK.sub(lambda place: blocks[int(place[1])], text).strip("\n")


def unescaped(text):
    """Text with the characters that entities stand for."""
    return re.sub(r"&(?:#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,7}|[a-zA-Z]\w{1,40});", lambda m: html.unescape(m[0]), text)


def without_blocks(markup):
    """(text, [block of code, ...]): the markup without comments and DROPPED_TAGS, and with a place in the text for each
    of the CODE_TAGS, whose content is no markup. A tag or comment that is never closed is left out alone."""
    tokens = [(token, (token[2] or "").lower(), token[0] == "-->" or bool(token[1])) for token in RAW.finditer(markup)]
    last = {name: token.start() for token, name, is_closing in tokens if is_closing}  # closing tag of each name
    parts, blocks, position, opening = [], [], 0, None
    for token, name, is_closing in tokens:
        if opening is None:
            parts.append(markup[position : token.start()])
            position = token.end()
            if name and token[3].rstrip().endswith("/"):
                parts.append(GONE)
            elif not is_closing and last.get(name, -1) > token.start():
                opening = token
        elif is_closing and name == (opening[2] or "").lower():
            content, position = markup[opening.end() : token.start()], token.end()
            if name in CODE_TAGS.split():
                # Highlighted code that is "inline" stays within its line.
                edge = "" if name == "nowiki" or "inline" in opening[3].split() else "\n"
                parts.append(f"{edge}\x02{len(blocks)}\x03{edge}")
                blocks.append(code_text(name, content))
            elif name:
                parts.append(GONE)  # a comment leaves nothing
            opening = None
    return "".join(parts) + markup[position:], blocks


def code_text(name, content):
    """What a reader sees of the content of one of the CODE_TAGS."""
    if name in ("syntaxhighlight", "source"):
        return content.strip("\n")  # entities stand for themselves there
    content = re.sub(r"</?nowiki\s*/?>", "", content, flags=re.IGNORECASE)
    return unescaped(content if name == "nowiki" else content.strip("\n"))


def with_spans(text, opening, closing, shown):
    """Text in which every span from an opening to its closing (patterns) gives way to shown(its content), inner spans
    first. A span for which that is None stays as it is, and so does an opening or a closing without a partner."""
    parts, position = [], 0
    starts = deque(maxlen=MAX_DEPTH)  # of the open spans in parts; of more than that, the outer ones are forgotten
    for token in re.finditer(f"({opening})|{closing}", text, re.MULTILINE):
        parts.append(text[position : token.start()])
        position = token.end()
        if token[1]:
            starts.append(len(parts))
        elif starts:
            start = starts.pop()
            content = "".join(parts[start + 1 :])
            found = shown(content)
            if found is not None:
                parts[start:] = [found]
                continue
        parts.append(token[0])
    return "".join(parts) + text[position:]


def variant(inner):
    """What a conversion shows to a reader of simplified characters. inner: "zh-hans:...; zh-hant:...", a text that is
    not converted, or one of these behind flags and a bar."""
    flags, bar, rules = inner.partition("|")
    flags = [flag.strip() for flag in flags.split(";")]
    if not bar or not all(re.fullmatch(rf"[A-Z+-]?|{VARIANT}", flag) for flag in flags):
        flags, rules = [], inner
    if {"H", "T", "-"} & set(flags):
        return ""  # a rule for the rest of the page, or its title
    readings = {}
    for rule in re.split(rf";(?=\s*+(?:[^;:=]*+=>\s*+)?{VARIANT}\s*+:)", rules):
        found = re.match(rf"\s*+(?:[^;:=]*+=>\s*+)?({VARIANT})\s*+:(.*)", rule, re.DOTALL)
        if "R" in flags or not found:
            return rules
        readings.setdefault(found[1], found[2].strip().removesuffix(";").rstrip())
    wanted = [readings[name] for name in SIMPLIFIED if name in readings]
    return [*wanted, *readings.values()][0]


def link_text(content, hidden):
    """What a [[link]] shows: the text behind its bar, or its target. None for what can't be the name of a page."""
    target, bar, shown = content.partition("|")
    if re.search(r"[\[\]{}<>\n]", target):
        return None
    prefix, colon, name = target.strip(" _").partition(":")  # the prefix of [[:File:x.png]], which is shown, is empty
    prefix = prefix.replace("_", " ").strip().casefold()
    if colon and prefix and (prefix in hidden or PICTURE.search(name)):
        return GONE
    if not bar and re.match(r"\s*(?!doi:)(?:[a-z]{2,3}|simple|zh-[a-z-]+):", target):
        return GONE  # the same article in another language
    return shown if bar else target.removeprefix(":")


def tag_text(tag):
    """What stands in place of an HTML tag; one that is none, as in List<String>, stays. tag: a match of TAG."""
    name = tag[1].lower()
    if name == "br":
        return BREAK
    if name in PARAGRAPH_TAGS:
        return BREAK * 2 if name == "p" else BREAK
    return "" if name in INLINE_TAGS or name in DROPPED_TAGS.split() else tag[0]


def apostrophes(run):
    """What is left of a run of apostrophes: two make italics, three bold, five both."""
    return "'" * (len(run[0]) - 5 if len(run[0]) > 5 else len(run[0]) == 4)


def without_gaps(line):
    """A line of text without the marks of its title and without what stood around templates alone: brackets, commas."""
    if len(line) > 2 and line[0] == "=" and line.rstrip(f" \t{GONE}")[-1] == "=":
        line = line.rstrip(f" \t{GONE}")
        level = min(len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("=")), 6)
        line = line[level:-level].strip() if 2 * level < len(line) else line
    if GONE not in line:
        return line
    line = re.sub(rf"[(（]([\s，,;；{GONE}]*)[)）]", lambda gap: "" if GONE in gap[1] else gap[0], line)
    line = re.sub(rf"([(（])([\s，,;；{GONE}]*)", lambda gap: gap[1] if GONE in gap[2] else gap[0], line)
    return "" if not line.strip(f" \t()（）,，;；{GONE}") else line.replace(GONE, "")
