"""Personal data and secrets give way to placeholders.

After bigcode-dataset/pii (StarCoder, arXiv:2301.03988, section 4): regular expressions in place of its neural model.
Harmless things stay: private, reserved and well-known addresses, example.com, version numbers.
"""

import ipaddress
import math
import re
from collections import Counter

import numpy as np

from cleaning.languages import PYTHON
from cleaning.view import View

# Each pattern begins with something rare: a search that tries every word of a text takes a hundred times as long. All
# repetitions are bounded or end at a character that stops them, so that none takes quadratic time.

# -- e-mail

CERTAIN_DOMAINS = "com|org|net|edu|gov"  # in code too: no attribute has such a name
TOP_DOMAINS = (
    CERTAIN_DOMAINS + "|info|io|de|uk|fr|cn|jp|ru|in|it|nl|eu|ch|se|br|au|ca|us|es|pl|at|be|kr|tw|me|dev|ai|co"
)
# A letter that an address cannot end or begin beside. Chinese and Japanese have no spaces: there it can.
NEIGHBOUR = r"\w(?<![\u2e80-\uffff])"
DOMAIN = re.compile(
    rf"@(?:[A-Za-z0-9-]{{1,63}}\.){{1,8}}({TOP_DOMAINS})(?:\.[a-z]{{2}})?(?!{NEIGHBOUR})(?![A-Za-z0-9_.-]{{0,64}}[(\[])"
)
# What stands before the @.
LOCAL_PART = re.compile(rf"(?<!{NEIGHBOUR})(?<![@.%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{{0,63}}\Z")
HARMLESS_EMAIL = re.compile(
    r"(?i)@(?:[\w-]+\.)*(?:example|localhost|test|invalid)\b|^(?:git|hg|svn|noreply|no-reply)@|noreply"
)
# A login, not an address: https://user@host.com, ssh -p 22 user@host.com and user@host.com:folder/file.
LOGIN_BEFORE = re.compile(
    r"\w://[^\s/\"'<>]{0,64}\Z|\b(?:ssh|scp|sftp|rsync)(?:[ \t]+-[\w-]{1,20}(?:[ \t]+[\w./~-]{1,40})?){0,4}[ \t]+\Z"
)
REMOTE_PATH = re.compile(r":(?:[\w.~-]{0,64}/|[\w.-]{1,64}\.git\b)|/[\w.-]{1,64}/")
# The product of two matrices, a slot of an object in R, and the like: what stands before and after them.
IDENTIFIERS = re.compile(r"[A-Za-z_][\w.]{0,80}@[A-Za-z_][\w.]*")
NO_PERSON = re.compile(r".{1,2}@|(?:self|this|super|return|break|continue)\b|(\w+)\.[\w.]+@\1\.")  # model.w@model.me
OPERATOR_BEFORE = re.compile(
    r"(?:[=+]|<-|\w[ \t]?\*|\w(?=[(\[])|\b(?:return|yield|lambda|assert|print|if|elif|while))[ \t(\[]{0,9}\Z"
)
MARKED = re.compile("[#'\"]")  # a line of Python with a comment or a string: looking at all literals takes longer
MAIL_BEFORE = re.compile(r"(?i)(?:mail|author|contact|maintainer|owner|user|login|from|to|cc|sender|admin)\w{0,9}=\Z")
OPERATOR_AFTER = re.compile(r"[ \t]?(?:[+*@][ \t]?[\w(]|<-|[=!<>]=|=|[<>][ \t]?\d|\$)")

# -- addresses

DOTTED = re.compile(r"\.\d{1,3}\.\d{1,3}\.")
IPV4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\w)", re.ASCII)
GROUPS = re.compile(r":[0-9a-fA-F]{1,4}:[0-9a-fA-F]{0,4}:")
# Addresses that somebody has begin with 2 or 3 and have four digits there: no time, colour, check sum or slice does.
IPV6 = re.compile(
    r"(?<![\w:.])[23][0-9a-fA-F]{3}:(?:(?:[0-9a-fA-F]{1,4}:){6}[0-9a-fA-F]{1,4}"
    r"|(?:[0-9a-fA-F]{1,4}:){2,5}(?::[0-9a-fA-F]{1,4}){1,3})(?![\w:])",
    re.ASCII,
)
WELL_KNOWN = {"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "208.67.222.222", "208.67.220.220", "4.2.2.2"}
# Four numbers with dots are an address after the words of group 1, and a version or the like after all others.
NUMBER_WORDS = re.compile(
    r"(?i)(?<![a-z])((?:ip|ipv4|addr|address|host|hostname|server|dns|gateway|proxy|peer|remote|client|ping|ssh|connect"
    r"|bind|listen|nameserver|router|subnet|cidr|inet|endpoint|allow|deny|route)(?:es|s)?(?![a-z]))"
    r"|(?:version|release|identifier|firmware|(?<![a-z])(?:ver|v|rev|revision|build|oid|asn|section|sect?|chapter"
    r"|clause|rfc|std|appendix|table|figure|upgrade|update|changes|since|compatible|parse|browser|chrome|chromium"
    r"|firefox|driver|package|d=|points=))(?:s|_|(?![a-z]))|版本"
)
# numpy==1.2.130.4, ^1.2.130.4, Chrome/120.0.130.4, and a heading of a list of changes.
VERSION_BEFORE = re.compile(r"(?:[=<>~^!]=[ \t]*|[~^]|[A-Za-z]/|#{2,6}[ \t]+\[?)[\"'(]*\Z")
# nginx:120.3.200.5, Firefox 120.3.200.5; but not: Trying, Connected, From
PRODUCT_BEFORE = re.compile(r"[A-Za-z]:\Z|(?<![\w-])(?!From\b)[A-Z][\w+-]{2,30}(?<!ing)(?<!ed)[ \t]\(?\Z")
URL_BEFORE, PORT_AFTER = re.compile(r"(?:://|@)\Z"), re.compile(r":\d{2,5}\b|/(?:[89]|[12]\d|3[0-2])\b")

# -- keys

# What keys of Amazon, GitHub, GitLab, OpenAI, Slack, Google, Hugging Face and Stripe, and JSON web tokens begin with.
KEY_MARKS = "AKIA ASIA github_pat_ glpat- sk- xox AIza hf_ sk_live_ eyJ".split()
GITHUB = re.compile("gh[pousr]_")
KEYS = re.compile(
    r"(?<![\w-])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,}|glpat-[\w-]{20,}"
    r"|sk-(?:proj-|ant-)?[\w-]{32,}|xox[abprs]-[\w-]{20,}|AIza[\w-]{35}|hf_[A-Za-z]{30,}|sk_live_\w{20,}"
    r"|eyJ[\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{10,})(?![\w-])",
    re.ASCII,
)
# In a string, the lines of a key end in \n.
PEM = re.compile(
    r"(-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----)[A-Za-z0-9+/=\\\s]{40,}?(-----END (?:[A-Z]+ )*PRIVATE KEY-----)"
)
QUOTED = re.compile(r"""(["'])([A-Za-z0-9+/=_-]{20,})\1""")
# The words end the name: a tokenizer, a token_alphabet and a secret_name are no secrets.
SECRET_NAME = re.compile(
    r"(?i)(?:api[_-]?key|secret|token|passwd|password|passphrase|(?:access|auth|private|secret)[_-]?key)"
    r"(?:_?(?:value|string|prod|production|dev|test|live|staging|default|base64|\d{1,2}))?"
    r"[\"'\])]{0,3}\s{0,9}[:=]{1,2}\s{0,9}\Z"
)
UUID = re.compile(r"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What words are made of: pieces of one case, and pairs of letters. These are the 150 commonest pairs in the standard
# library's names, four in five of all, but one in five of those that chance would put together.
PIECE = re.compile(r"[A-Z]?[a-z]{2,}|[A-Z]+(?![a-z])|[A-Za-z]|\d+")
COMMON_PAIRS = set(
    "in er re te ti on at es ed en st le co nt ng al ar or an de se li ra ri it me et ec ta ne ro tr io is ma di la "
    "ns lo nd un ca ic ge ve si pe pr el ct ac to pa ce as na ea rs ch ll om nc ol ts fi th mp am il ss ni po ex im "
    "ad he ab ly mi no pl ou su rt ha ck bl em ur ap ul ia ut op os od sh id mo ot ie us sp ef ig oc ke ho da sc oo "
    "fo ir va ff ty iv ai so iz ep rm gr cl if be hi ow tt ze sa um ee ls ag pi ci ba pt ub rr lt ip cr qu pp do up "
    "cu rc".split()
)


def replaced(text, kind=""):
    """(text with placeholders, Counter of what was replaced: email, ip, key). kind: as in a View. A second time changes
    nothing: keys are looked for first, so that a token in front of an @ is part of an address."""
    counts, before = Counter(), None
    if "PRIVATE KEY" in text:
        text, counts["key"] = PEM.subn(r"\1KEY\2", text)
    if any(mark in text for mark in KEY_MARKS) or GITHUB.search(text):
        text = KEYS.sub(lambda match: key(match, counts), text)
    text = QUOTED.sub(lambda match: secret(match, counts), text)
    while text != before:  # an address may stand near enough to another one to be judged by it
        before = text
        if DOTTED.search(text):
            text = IPV4.sub(lambda match: ipv4(match, counts), text)
        if GROUPS.search(text):
            text = IPV6.sub(lambda match: address(match, counts, "2001:db8::1"), text)
        if "@" in text:
            text = without_emails(text, kind, counts)
    return text, +counts


def without_emails(text, kind, counts):
    """text with name@example.com in place of e-mail addresses, which counts["email"] counts. In Python all of them are
    in strings and comments."""
    parts, last, view = [], 0, None
    for match in DOMAIN.finditer(text):
        local = LOCAL_PART.search(text[max(last, match.start() - 65) : match.start()])
        if not local or HARMLESS_EMAIL.search(local.group() + match.group()):
            continue
        start, end = match.start() - len(local.group()), match.end()
        if kind == PYTHON and not MARKED.search(text[max(0, start - 200) : start].rpartition("\n")[2]):
            view = view or View(text)
            number = np.searchsorted(view.literals[0], start, side="right") - 1  # of the last literal before
            if number < 0 or view.literals[1][number] < end:
                continue
        if not is_code(text[max(0, start - 80) : start], text[start:end], text[end : end + 80], match[1]):
            parts += [text[last:start], "name@example.com"]
            last = end
            counts["email"] += 1
    return "".join(parts) + text[last:]


def is_code(before, found, after, top_domain):
    """Whether what looks like an e-mail address is code or a login. before, after: what stands around it."""
    if LOGIN_BEFORE.search(before) or REMOTE_PATH.match(after):
        return True
    if before[-1:] in ("'", '"', "<") or top_domain in CERTAIN_DOMAINS.split("|") or not IDENTIFIERS.fullmatch(found):
        return False
    if NO_PERSON.match(found) or OPERATOR_AFTER.match(after):
        return True
    return bool(OPERATOR_BEFORE.search(before)) and not MAIL_BEFORE.search(before)


def address(match, counts, placeholder):
    """What to write for an address: the placeholder (from RFC 5737 or 3849) if it is public, else the match itself."""
    found = match.group()
    try:
        ip = ipaddress.ip_address(found)
    except ValueError:
        return found
    if not ip.is_global or ip.is_multicast or ip.is_reserved or found in WELL_KNOWN:
        return found
    counts["ip"] += 1
    return placeholder


def ipv4(match, counts):
    """What to write for four numbers with dots: a placeholder if they are used as a public address, else the match
    itself: versions, identifiers of objects (OIDs) and sections of standards look the same."""
    found, text = match.group(), match.string
    before = text[max(0, match.start() - 80) : match.start()].rpartition("\n")[2]
    numbers = [int(number) for number in found.split(".")]
    # All four numbers below 64 occur in versions and examples, and in one random address in 256.
    is_example = max(numbers) < 64 or len(set(numbers)) <= 2 or found.replace(".", "") in "123456789"
    is_oid = numbers[0] <= 2 and numbers[1] < 40  # ITU-T X.660: the arcs below 0, 1 and 2
    is_url = bool(URL_BEFORE.search(before))
    if is_example or VERSION_BEFORE.search(before) or (is_oid and not is_url):
        return found
    words = list(NUMBER_WORDS.finditer(before))
    # Without a word before it: few versions and sections begin with 32 or more, and few addresses below that.
    is_address = words[-1][1] if words else numbers[0] >= 32 and not PRODUCT_BEFORE.search(before)
    if not (is_address or is_url or PORT_AFTER.match(text, match.end())):
        return found
    return address(match, counts, "192.0.2.1")


def key(match, counts):
    """What to write for a match of KEYS: KEY, or the match itself if it is made of words: sk-some-name-of-a-style."""
    found = match.group()
    has_parts = re.search(r"[-_]", found[8:]) or not re.search(r"\d", found)
    if is_placeholder(found) or (has_parts and not is_noise(found)):
        return found
    counts["key"] += 1
    return "KEY"


def secret(match, counts):
    """What to write for a quoted value: "KEY" if it is noise and assigned to a name such as password, else the match
    itself."""
    quote, value = match.groups()
    before = match.string[max(0, match.start() - 60) : match.start()]
    if not (SECRET_NAME.search(before) and re.search(r"\d", value) and re.search(r"[A-Za-z]", value)):
        return match.group()
    shares = [n / len(value) for n in Counter(value).values()]
    entropy = -sum(share * math.log2(share) for share in shares)  # bits per character
    if entropy < 3.5 or not is_noise(value):
        return match.group()
    counts["key"] += 1
    return f"{quote}KEY{quote}"


def is_placeholder(value):
    """Whether a value is an alphabet, a UUID, or an example such as 1234..., xxxx... and ...EXAMPLE (after bigcode's
    filters)."""
    n_runs = sum(abs(ord(a) - ord(b)) <= 1 for a, b in zip(value, value[1:]))
    is_alphabet = len(value) >= 30 and len(set(value)) == len(value)
    return n_runs > len(value) / 2 or is_alphabet or bool(UUID.fullmatch(value)) or "example" in value.lower()


def is_noise(value):
    """Whether a value looks random: no placeholder, no path, and not made of words. Noise has many pieces and few
    common pairs."""
    # One alphabet of base64 has + and /, the other one - and _ (RFC 4648): what has both is a path.
    is_path = re.search("[+/]", value) and re.search("[-_]", value)
    if is_path or is_placeholder(value):
        return False
    pairs = zip(value, value[1:])
    n_common = sum((a + b).lower() in COMMON_PAIRS for a, b in pairs if a.isupper() or b.islower())
    return n_common - len(PIECE.findall(value)) < 0.035 * sum(map(str.isalnum, value))
