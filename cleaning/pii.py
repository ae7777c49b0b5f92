"""Personal data and secrets: e-mail and IP addresses, keys and tokens give way to placeholders, and code still parses.

After bigcode-dataset/pii (StarCoder, arXiv:2301.03988, section 4): regular expressions in place of its neural model.
Harmless things stay: private, reserved and well-known addresses, example.com, version numbers.
"""

import ipaddress
import math
import re
from collections import Counter

# Each pattern begins with something rare: a search that tries every word of a text takes a hundred times as long.
TOP_DOMAINS = (
    "com|org|net|edu|gov|info|io|de|uk|fr|cn|jp|ru|in|it|nl|eu|ch|se|br|au|ca|us|es|pl|at|be|kr|tw|me|dev|ai|co"
)
DOMAIN = re.compile(r"@(?:[A-Za-z0-9-]+\.)+(?:" + TOP_DOMAINS + r")(?:\.[a-z]{2})?\b(?![\w.-]*[(\[])")
LOCAL_PART = re.compile(r"(?<![\w@.%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}\Z")  # what stands before the @
HARMLESS_EMAIL = re.compile(
    r"(?i)@(?:[\w-]+\.)*(?:example|localhost|test|invalid)\b|^(?:git|noreply|no-reply)@|noreply"
)
DOTTED = re.compile(r"\.\d{1,3}\.\d{1,3}\.")
IPV4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\w)")
GROUPS = re.compile(r":[0-9a-fA-F]{1,4}:[0-9a-fA-F]{0,4}:")
IPV6 = re.compile(
    r"(?<![\w:.])(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}(?![\w:])"
    r"|(?<![\w:.])(?:[0-9a-fA-F]{1,4}:){3,6}(?::[0-9a-fA-F]{1,4}){1,3}(?![\w:])"
)
VERSION_BEFORE = re.compile(r"(?i)(?:version|release|[=<>~^!]=|\bv|\bver\.?|rfc|section|oid|chapter)[\"'\s:=(]*$")
WELL_KNOWN = {"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "208.67.222.222", "208.67.220.220", "4.2.2.2"}
# What keys of Amazon, GitHub, GitLab, OpenAI, Slack, Google, Hugging Face and Stripe, and JSON web tokens begin with.
KEY_MARKS = "AKIA ASIA ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- sk- xox AIza hf_ sk_live_ eyJ".split()
KEYS = re.compile(
    r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,}|glpat-[\w-]{20,}"
    r"|sk-(?:proj-|ant-)?[\w-]{32,}|xox[abprs]-[\w-]{20,}|AIza[\w-]{35}|hf_[A-Za-z]{30,}|sk_live_\w{20,}"
    r"|eyJ[\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{10,})(?![\w-])"
)
PEM = re.compile(
    r"(-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----)[A-Za-z0-9+/=\s]{40,}?(-----END (?:[A-Z]+ )*PRIVATE KEY-----)"
)
QUOTED = re.compile(r"""(["'])([A-Za-z0-9+/=_-]{20,})\1""")
SECRET_NAME = re.compile(
    r"(?i)(?:api_?key|secret|token|passwd|password|access_?key|auth_?key|private_?key)\w{0,20}[\"']?\s*[:=]\s*\Z"
)


def replaced(text):
    """(text with placeholders, Counter of what was replaced: email, ip, key)."""
    counts = Counter()
    if "@" in text:
        text = without_emails(text, counts)
    if DOTTED.search(text):
        text = IPV4.sub(lambda match: address(match, counts, "192.0.2.1"), text)
    if GROUPS.search(text):
        text = IPV6.sub(lambda match: address(match, counts, "2001:db8::1"), text)
    if "PRIVATE KEY" in text:
        text, counts["key"] = PEM.subn(r"\1KEY\2", text)
    if any(mark in text for mark in KEY_MARKS):
        text, n = KEYS.subn("KEY", text)
        counts["key"] += n
    text = QUOTED.sub(lambda match: secret(match, counts), text)
    return text, +counts


def without_emails(text, counts):
    """text with name@example.com in place of e-mail addresses, which counts["email"] counts. DOMAIN spares products of
    matrices, such as matrix@weights.T.com(1)."""
    parts, last = [], 0
    for match in DOMAIN.finditer(text):
        local = LOCAL_PART.search(text[max(last, match.start() - 65) : match.start()])
        if local and not HARMLESS_EMAIL.search(local.group() + match.group()):
            parts += [text[last : match.start() - len(local.group())], "name@example.com"]
            last = match.end()
            counts["email"] += 1
    return "".join(parts) + text[last:]


def address(match, counts, placeholder):
    """What to write for a match of IPV4 or IPV6: the placeholder (from RFC 5737 or 3849) for a public address, else the
    match itself, for example a version number."""
    found = match.group()
    try:
        ip = ipaddress.ip_address(found)
    except ValueError:
        return found
    before = match.string[max(0, match.start() - 12) : match.start()]
    is_public = ip.is_global and not ip.is_multicast and not ip.is_reserved and found not in WELL_KNOWN
    # All four numbers below 64 occur in versions and examples, and in one random address in 256.
    has_low_octets = ip.version == 4 and all(octet < 64 for octet in ip.packed)
    if not is_public or has_low_octets or VERSION_BEFORE.search(before):
        return found
    counts["ip"] += 1
    return placeholder


def secret(match, counts):
    """What to write for a quoted value: "KEY" if it looks random and is assigned to a name such as password, else the
    match itself."""
    quote, value = match.groups()
    before = match.string[max(0, match.start() - 60) : match.start()]
    if not (SECRET_NAME.search(before) and re.search(r"\d", value) and re.search(r"[A-Za-z]", value)):
        return match.group()
    shares = [n / len(value) for n in Counter(value).values()]
    entropy = -sum(share * math.log2(share) for share in shares)  # bits per character
    if entropy < 3.5:
        return match.group()
    counts["key"] += 1
    return f"{quote}KEY{quote}"


LICENSE = re.compile(r"copyright|\blicen[cs]ed?\b|\(c\)|spdx-", re.IGNORECASE)
HEADERS = re.compile(
    r"(?P<keep>\A\ufeff?(?:#!.*\n)?(?:#.*coding[:=].*\n)?\s*)"
    r"(?P<comment>(?:(?:[ \t]*(?:\#|//|--|;).*\n|[ \t]*\n(?=[ \t]*(?:\#|//|--|;)))+)|/\*(?:[^*]|\*(?!/))*\*/\s*)"
)


def without_license(text):
    """text without comments at its top that name a copyright or licence. OpenCoder found one in 15 % of files; the same
    licence makes different files look like near-duplicates."""
    while (match := HEADERS.match(text)) and LICENSE.search(match["comment"]):
        text = match["keep"] + text[match.end() :].lstrip("\n")
    return text
