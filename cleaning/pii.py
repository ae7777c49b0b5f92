"""Personal data and secrets: e-mail addresses, IP addresses, keys and tokens, replaced so that code still parses.

After bigcode-dataset/pii (StarCoder, arXiv:2301.03988, section 4): regular expressions instead of its neural model. What
is harmless stays: private, reserved and well-known addresses, example.com, version numbers. Replacing twice changes nothing.
"""

import ipaddress
import math
import re
from collections import Counter

# Each pattern begins with what is rare: a search that tries every word of a text is a hundred times as slow.
DOMAIN = re.compile(r"@(?:[A-Za-z0-9-]+\.)+(?:com|org|net|edu|gov|info|io|de|uk|fr|cn|jp|ru|in|it|nl|eu|ch|se|br|au|ca|us|es|pl|at|be|kr|tw|me|dev|ai|co)(?:\.[a-z]{2})?\b(?![\w.-]*[(\[])")  # fmt: skip
LOCAL_PART = re.compile(r"(?<![\w@.%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}\Z")
HARMLESS_EMAIL = re.compile(
    r"@(?:[\w-]+\.)*(?:example|localhost|test|invalid)\b|^(?:git|noreply|no-reply)@|noreply", re.I
)
DOTTED = re.compile(r"\.\d{1,3}\.\d{1,3}\.")
IPV4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\w)")
GROUPS = re.compile(r":[0-9a-fA-F]{1,4}:[0-9a-fA-F]{0,4}:")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}(?![\w:])|(?<![\w:.])(?:[0-9a-fA-F]{1,4}:){3,6}(?::[0-9a-fA-F]{1,4}){1,3}(?![\w:])")  # fmt: skip
VERSION_BEFORE = re.compile(r"(?:version|release|[=<>~^!]=|\bv|\bver\.?|rfc|section|oid|chapter)[\"'\s:=(]*$", re.I)
WELL_KNOWN = {"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "208.67.222.222", "208.67.220.220", "4.2.2.2"}
KEY_MARKS = ("AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "sk-", "xox", "AIza", "hf_", "sk_live_", "eyJ")  # fmt: skip
KEYS = re.compile(
    r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,}|glpat-[\w-]{20,}|sk-(?:proj-|ant-)?[\w-]{32,}"
    r"|xox[abprs]-[\w-]{20,}|AIza[\w-]{35}|hf_[A-Za-z]{30,}|sk_live_\w{20,}|eyJ[\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{10,})(?![\w-])"
)
PEM = re.compile(
    r"(-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----)[A-Za-z0-9+/=\s]{40,}?(-----END (?:[A-Z]+ )*PRIVATE KEY-----)"
)
QUOTED = re.compile(r"""(["'])([A-Za-z0-9+/=_-]{20,})\1""")
SECRET_NAME = re.compile(r"""(?:api_?key|secret|token|passwd|password|access_?key|auth_?key|private_?key)\w{0,20}["']?\s*[:=]\s*\Z""", re.I)  # fmt: skip


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
    return QUOTED.sub(lambda match: secret(match, counts), text), +counts


def without_emails(text, counts):
    parts, last = [], 0
    for match in DOMAIN.finditer(text):
        local = LOCAL_PART.search(text[max(last, match.start() - 65) : match.start()])
        if local and not HARMLESS_EMAIL.search(local.group() + match.group()):
            parts += [
                text[last : match.start() - len(local.group())],
                "name@example.com",
            ]  # a product, outside of strings
            last = match.end()
            counts["email"] += 1
    return "".join([*parts, text[last:]])


def address(match, counts, placeholder):
    """Documentation addresses (RFC 5737, 3849) in place of public ones."""
    try:
        found = ipaddress.ip_address(match.group())
    except ValueError:
        return match.group()
    before = match.string[max(0, match.start() - 12) : match.start()]
    if (
        not found.is_global
        or found.is_multicast
        or found.is_reserved
        or match.group() in WELL_KNOWN
        or VERSION_BEFORE.search(before)
        or low_octets(found)
    ):
        return match.group()
    counts["ip"] += 1
    return placeholder


def low_octets(found):
    """1.2.3.4 and 8.2.4.45 are versions, sections and examples; one address in 256 is as low by chance."""
    return found.version == 4 and all(octet < 64 for octet in found.packed)


def secret(match, counts):
    """A quoted value behind a name that says so, if it is noise and not words."""
    quote, value = match.groups()
    before = match.string[max(0, match.start() - 60) : match.start()]
    noise = SECRET_NAME.search(before) and re.search(r"\d", value) and re.search(r"[A-Za-z]", value)
    if not noise or entropy(value) < 3.5:
        return match.group()
    counts["key"] += 1
    return f"{quote}KEY{quote}"


def entropy(value):
    """Bits per character, by the characters' own frequencies."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


LICENSE = re.compile(r"copyright|\blicen[cs]ed?\b|\(c\)|spdx-", re.IGNORECASE)
HEADERS = re.compile(
    r"(?P<keep>\A\ufeff?(?:#!.*\n)?(?:#.*coding[:=].*\n)?\s*)"
    r"(?P<comment>(?:(?:[ \t]*(?:\#|//|--|;).*\n|[ \t]*\n(?=[ \t]*(?:\#|//|--|;)))+)|/\*(?:[^*]|\*(?!/))*\*/\s*)"
)


def without_license(text):
    """text without the comment that it opens with, where that names a copyright or licence (OpenCoder: 15 % of files
    have one; copies of it make files look alike)."""
    while (match := HEADERS.match(text)) and LICENSE.search(match["comment"]):
        text = match["keep"] + text[match.end() :].lstrip("\n")
    return text
