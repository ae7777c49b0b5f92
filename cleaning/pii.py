"""What is taken out of a document: personal data and secrets give way to placeholders, a licence at the top goes.

After bigcode-dataset/pii (StarCoder, arXiv:2301.03988, section 4): regular expressions in place of its neural model.
Harmless things stay: private, reserved and well-known addresses, example.com, version numbers.
"""

import ipaddress
import math
import re
from collections import Counter
from functools import cache

from cleaning.languages import UNKNOWN

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


# -- licences

# What a licence says, with its line ends and decorations already replaced by single spaces.
LICENSE = re.compile(
    r"SPDX License Identifier|SPDX FileCopyrightText|@licen[cs]e\b|(?i:all rights (?:are )?reserved)"
    r"|(?i:copyrights?)[ ,:]*(?:\([cC]\)|©|\d{4}|(?i:by|holders?)\b|[A-Z])|(?:\([cC]\)|©)[ ,]*(?i:copyright|by\b|\d{4})"
    r"|(?i:\blicen[cs]ed? (?:under|to you|by|as|for details|agreement|information)\b|under the terms of)"
    r"|(?i:\b(?:MIT|BSD|ISC|Apache|GPL|GNU|Public|zlib|Boost|software|artistic|PSF|X11|MPL|same|2\.0) licen[cs]e\b)"
    r"|(?i:\blicen[cs]e[ :'\"(]+(?:MIT|BSD|ISC|Apache|[AL]?GPL|GNU|MPL|PSF|zlib|CC0|CC BY|public|proprietary))"
    r"|(?i:\b(?:see|in) (?:the )?(?:accompanying |file |top level )*[\"'`]?(?:licen[cs]e|copying|copyright)\b)"
    r"|(?i:permission is hereby granted|permission to use|redistribution and use|redistribute it and or)"
    r"|(?i:without (?:any |even the implied )?warranty|free software foundation|in(?:to)? the public domain)"
    r"|(?i:disclaims? copyright)"
)
DECORATION = re.compile(r"[\s*#/;%!<>|=_-]+")
# Comments that a tool reads: these stay, whatever else they say. The words after a marker such as # or //.
DIRECTIVE = re.compile(
    r"[ \t]*(?://[a-z]+:[a-z]|///[ \t]*<|#(?:end)?region\b|#'|#pragma\b|[!cC*]\$|#\$ -|%&"
    r"|(?:#+|/[/*]+!?|\*+|--\[*|;+|%+|!|'|<!--|\(\*|\{-)?[ \t]*(?:"
    r"-\*-|(?:vim?|ex):|.{0,30}coding[:=]|/// [a-z]|!TEX|\+build\b|go:|export [A-Z]|line .*:\d|syntax=|escape="
    r"|(?:frozen_string_literal|warn_indent|shareable_constant_value|encoding|typed|rubocop|cython|distutils|pylint"
    r"|mypy|ruff|flake8|noqa|isort|fmt|yapf|pyright|pytype|pyre|type|nosec|pragma|doctest|jscs|jshint|jslint|tslint"
    r"|phpcs|psalm|luacheck|stylelint|checkov|tflint|spell-checker|cspell|swiftlint|swiftformat|ktlint|scalastyle"
    r"|ignore_for_file|language|RUN|REQUIRES|UNSUPPORTED|XFAIL)(?:[-:]|$|[ \t]*=|[ \t]*ignore)"
    r"|(?:@ts-|@flow|@jsx|@jest|@babel|@format|@dart|@schema|@vue|eslint|prettier|deno-lint|biome-|istanbul|globals? "
    r"|shellcheck|SBATCH|PBS|BSUB|compdef|autoload|swift-tools-version|clang-format|NOLINT|IWYU|yamllint"
    r"|yaml-language-server|requires -|MARK: |hlint)"
    r"))"
)
PEP_723 = re.compile(r"[ \t]*# /// [a-z]")  # begins metadata, which end at a line # ///
LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n|\Z)")
BLANK = re.compile(r"(?:[ \t\f]*(?:\r\n?|\n))*")
# What may stand before a header: blank lines, and lines that a program reads.
PROLOGUE = re.compile(
    r"\ufeff|[ \t\f]*(?:\r\n?|\n)|(?:(?i:#!|<\?|<!doctype|#lang|---|%yaml|@charset|@echo off|[\"']use strict[\"'])"
    r"|[ \t]*#[ \t]*(?:ifndef|ifdef|if|define|include|import|pragma|requires)\b)[^\r\n]*(?:\r\n?|\n|\Z)"
)


@cache
def comment_starts(comments):
    """(pattern of what begins a line comment, pattern of what begins a block) of a languages.Comments. The mark is
    group 1 of each."""
    lines = []
    for mark in comments.lines:
        if mark == "#":  # #! and #[ begin no comment, nor do C's preprocessor lines where // is a comment too
            also = "|[ \\t]*(?:include|define|if|ifn?def|endif|else|elif|undef|pragma|import|error|line)\\b"
            lines.append(r"\#(?![!\[]" + (also if "//" in comments.lines else "") + ")")
        elif mark.isalpha() or mark == "*":  # Fortran's C and *, and REM: words of their own, not indented
            lines.append(rf"(?<![ \t]){re.escape(mark)}(?!\w)")
        else:
            lines.append(re.escape(mark))
    blocks = [re.escape(start) for start, _ in comments.blocks]
    # {-# and {$ are pragmas, MySQL executes /*!40101, old browsers <!--[if.
    return re.compile(rf"[ \t]*({'|'.join(lines) or '(?!)'})"), re.compile(
        rf"[ \t]*({'|'.join(blocks) or '(?!)'})(?![#$\[]|\+(?!\+)|!\d)"
    )


def comment_end(text, at, comments):
    """Where the comment that begins at text[at] ends; at if there is none. Line comments are one comment if they have
    the same mark and no blank line or directive between them."""
    line_start, block_start = comment_starts(comments)
    if block := block_start.match(text, at):
        opening = block[1]
        inner, closing = block.end(), dict(comments.blocks)[opening]
        end = text.find(closing, inner)
        if end >= 0 and text.find(opening, inner, end) < 0:  # some languages nest comments: these stay
            return end + len(closing)
    first = line_start.match(text, at)
    if not first:
        return at
    stop, is_metadata = LINE.match(text, at).end(), PEP_723.match(text, at)
    if DIRECTIVE.match(text, at) and not is_metadata:
        return stop
    while (line := line_start.match(text, stop)) and line[1] == first[1]:
        if is_metadata and text.startswith("# ///", stop):
            return LINE.match(text, stop).end()
        if DIRECTIVE.match(text, stop) and not is_metadata:
            break
        stop = LINE.match(text, stop).end()
    return stop


def is_license(comment):
    """Whether a comment says what a licence says and holds no directive."""
    return LICENSE.search(DECORATION.sub(" ", comment)) and not any(map(DIRECTIVE.match, comment.splitlines()))


def without_license(text, comments=UNKNOWN):
    """text without the comments at its top that are a copyright notice or a licence; all else stays byte for byte.
    OpenCoder found one in 15 % of files; the same licence makes different files look like near-duplicates.

    comments: the languages.Comments of its language. The top ends where anything but comments, blank lines and what
    PROLOGUE names begins."""
    kept, at = [], 0
    while at < len(text):
        stop = comment_end(text, at, comments)
        if stop > at and is_license(text[at:stop]):
            at = BLANK.match(text, stop).end()
            continue
        if stop == at:
            prologue = PROLOGUE.match(text, at)
            if not prologue or prologue.end() == at:
                break
            stop = prologue.end()
        kept.append(text[at:stop])
        at = stop
    return "".join(kept) + text[at:]
