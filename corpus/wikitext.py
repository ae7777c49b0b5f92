"""MediaWiki's markup -> plain text. What a reader of the page would read stays: titles, prose, lists, code. Templates,
tables, references, pictures, formulas and categories go.

Every step goes through the text once, so that a page of a hundred thousand open brackets takes no longer than another.
Meaning of the markup: https://www.mediawiki.org/wiki/Help:Formatting and Help:Links on the same wiki.
"""

import html
import re

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
EXTERNAL_LINK = re.compile(r"\[(?:(?:https?:|ftps?:)?//|mailto:)[^\s\[\]<>]*[ \t]*([^\[\]\n]*)\]")
# Of the languages of one script each, the one that is read: zh-hans, or what stands for it.
VARIANT = r"(?:zh|[a-z]{2,3}-[a-z]{2,4})"
MAX_DEPTH = 10  # of conversions within conversions, as in MediaWiki
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
    text = without_spans(text, r"\{\{", r"\}\}(?:\}(?![}-]))?")  # templates
    text = with_variants(text)
    text = without_spans(text, rf"^[ \t:*#{GONE}]*\{{\|", r"^[ \t]*\|\}(?!\})")  # tables
    text = EXTERNAL_LINK.sub(lambda link: link[1] or GONE, text)
    text = with_links(text, hidden)
    text = TAG.sub(tag_text, text)
    text = re.sub("'{2,}", apostrophes, text)
    text = re.sub(r"^(?:[*#:;]+|-{4,})", "", SWITCH.sub("", text), flags=re.MULTILINE)
    text = "\n".join(map(without_gaps, text.split("\n"))).replace(BREAK, "\n")
    text = re.sub(r"\n{3,}", "\n\n", unescaped(text)).strip()
    return BLOCK.sub(lambda place: blocks[int(place[1])], text).strip("\n")


def unescaped(text):
    """Text with the characters that entities stand for."""
    return re.sub(
        r"&(?:#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,7}|[a-zA-Z]\w{1,40});", lambda name: html.unescape(name[0]), text
    )


def without_blocks(markup):
    """(text, [block of code, ...]): the markup without comments and DROPPED_TAGS, and with a place in the text for each
    of the CODE_TAGS, whose content is no markup. A tag or comment that is never closed is left out alone."""
    last = {}  # {name: where its last closing tag is}
    for token in RAW.finditer(markup):
        if token[0] == "-->" or token[1]:
            last[token[2] and token[2].lower()] = token.start()
    parts, blocks, position = [], [], 0
    opening = name = None
    for token in RAW.finditer(markup):
        its_name = token[2] and token[2].lower()  # None for a comment
        is_closing = token[0] == "-->" or bool(token[1])
        if opening:
            if not is_closing or its_name != name:
                continue  # part of the content
            content = markup[opening.end() : token.start()]
            position, is_code = token.end(), name and name in CODE_TAGS.split()
            if is_code:
                blocks.append(code_text(name, content))
                # "inline" keeps highlighted code within its line
                end = "" if name == "nowiki" or "inline" in opening[3].split() else "\n"
                parts.append(f"{end}\x02{len(blocks) - 1}\x03{end}")
            elif name:
                parts.append(GONE)
            opening = None
            continue
        parts.append(markup[position : token.start()])
        position = token.end()
        if is_closing:
            continue
        if (token[3] or "").rstrip().endswith("/"):
            parts.append(GONE)
        elif last.get(its_name, -1) > token.start():
            opening, name = token, its_name
    return "".join(parts) + markup[position:], blocks


def code_text(name, content):
    """What a reader sees of the content of one of the CODE_TAGS."""
    if name in ("syntaxhighlight", "source"):
        return content.strip("\n")  # entities stand for themselves there
    content = re.sub(r"</?nowiki\s*/?>", "", content, flags=re.IGNORECASE)
    return unescaped(content if name == "nowiki" else content.strip("\n"))


def without_spans(text, opening, closing):
    """Text with GONE in place of what stands between an opening and its closing (patterns), nested ones included. One
    that has no partner stays."""
    parts, starts, position = [], [], 0  # starts: of the open spans in parts
    for token in re.finditer(f"({opening})|{closing}", text, re.MULTILINE):
        parts.append(text[position : token.start()])
        position = token.end()
        if token[1]:
            starts.append(len(parts))
        elif starts:
            del parts[starts.pop() :]
            parts.append(GONE)
            continue
        parts.append(token[0])
    return "".join(parts) + text[position:]


def with_variants(text):
    """Text with the simplified reading of each conversion, -{zh-hans:...; zh-hant:...}-, the inner ones first
    (https://www.mediawiki.org/wiki/Writing_systems/Syntax)."""
    parts, starts, position = [], [], 0
    for token in re.finditer(r"(-\{)|\}-", text):
        parts.append(text[position : token.start()])
        position = token.end()
        if token[1] and len(starts) < MAX_DEPTH:
            starts.append(len(parts))
            parts.append(token[0])
        elif starts and not token[1]:
            start = starts.pop()
            inner = "".join(parts[start + 1 :])
            parts[start:] = [variant(inner)]
        else:
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
    for rule in re.split(rf";(?=\s*(?:[^;:=]*=>\s*)?{VARIANT}\s*:)", rules):
        found = re.match(rf"\s*(?:[^;:=]*=>\s*)?({VARIANT})\s*:(.*)", rule, re.DOTALL)
        if "R" in flags or not found:
            return rules
        readings.setdefault(found[1], found[2].strip().removesuffix(";").rstrip())
    wanted = [readings[name] for name in SIMPLIFIED if name in readings]
    return [*wanted, *readings.values()][0]


def with_links(text, hidden):
    """Text with what each [[link]] shows: the text behind its bar, or its target. Brackets around anything that can't
    be the name of a page stay."""
    parts, starts, position = [], [], 0
    for token in re.finditer(r"(\[\[)|\]\]", text):
        parts.append(text[position : token.start()])
        position = token.end()
        if token[1]:
            starts.append(len(parts))
            parts.append(token[0])
            continue
        start = starts.pop() if starts else None
        if start is None or re.search(r"[\[\]{}<>\n]", parts[start + 1].partition("|")[0]):
            parts.append(token[0])
            continue
        # Only what stands before the first inner link is looked at, however much there is in all.
        target, bar, shown = parts[start + 1].partition("|")
        prefix = target.strip(" :_").partition(":")[0].replace("_", " ").strip().casefold()
        if ":" in target and prefix in hidden:
            parts[start:] = [GONE]
        elif not bar and re.match(r"\s*(?!doi:)(?:[a-z]{2,3}|simple|zh-[a-z-]+):", target):
            parts[start:] = [GONE]  # the same article in another language
        else:
            parts[start] = ""
            parts[start + 1] = shown if bar else target.removeprefix(":")
    return "".join(parts) + text[position:]


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
    return "" if not line.strip(f" \t()（）,，;；{GONE}") else line.replace(GONE, "")
