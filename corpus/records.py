"""Files of records, JSON lines and JSON arrays, plain or compressed -> records, one at a time; parquet.py has parquet.

What cannot be read comes out in the same stream as a Problem that says where and why, and costs nothing but itself: a
bad line is one line, a file that is cut off keeps what stands before the cut. Memory holds one record.
"""

import bz2
import codecs
import errno
import gzip
import importlib
import io
import itertools
import json
import lzma
import os
import re
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path

from configurator import UserError

JSON = (".jsonl", ".ndjson", ".json")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zstd")
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what opened_text() makes of bytes that are not UTF-8
# What may stand between two JSON values; files that were joined have byte order marks in the middle.
SEPARATORS = re.compile(r"[\s,\ufeff]*")
PIECE = 1 << 20  # characters that are read at a time
MAX_AHEAD = 16_000_000  # characters in which the end of a first object over several lines is sought
MAX_VALUE = 256_000_000  # characters of a line or an element of an array; memory is not for longer ones


@dataclass(slots=True)
class Problem:
    """What a reader found in place of a document or record."""

    where: str  # the file below the source, with :line for a record
    # bad_utf8, nul_byte, empty, bad_json, no_text, truncated, unreadable, hidden, unknown_format, not_wanted; of blobs
    # no_blob, lost_blob, bad_encoding, vendor, generated; of conversations those that chats.py names
    rule: str
    detail: str = ""


def optional(module, purpose):
    """Import an optional package, or raise a UserError that says what to install. purpose: what needs it, plural."""
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except Exception as error:  # a package that is damaged or does not fit its neighbours can fail in any way
        is_missing = isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == package
        what = f": pip install {package}" if is_missing else f", whose import fails: {error!r}"
        raise UserError(f"{purpose} need the package {package}{what}") from None


# -- bytes and text


def without_compression(name):
    """A file's name without .gz and the like."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in COMPRESSED else name


def open_regular(path):
    """Open a file for reading bytes. Raises OSError, for a FIFO or a device too: reading it could block for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(path, "rb")


def opened(path):
    """Open a file for reading bytes. What is compressed is told by its first bytes, since names lie. Raises OSError;
    a damaged file raises one of DAMAGE when it is read."""
    file, suffix = open_regular(path), os.path.splitext(path)[1]
    start = file.peek()[:512]
    opener = next((opener for magic, opener in MAGIC.items() if re.match(magic, start)), None)
    is_binary = suffix.lower() in COMPRESSED and re.search(rb"[\0-\x08\x0e-\x1f]", start)
    if not opener and not is_binary:
        return file
    file.close()
    if not opener:
        raise EOFError(f"it does not begin as a {suffix} file does")
    return opener(path)


class Zstandard(io.RawIOBase):
    """The decompressed bytes of a .zst file. zstandard's own reader takes a file that is cut off for a whole one."""

    def __init__(self, path):
        self.zstandard = optional("zstandard", ".zst files")
        self.file, self.frame = open_regular(path), None
        self.data, self.rest = b"", memoryview(b"")  # compressed, decompressed: not used yet

    def readable(self):
        """What io.BufferedReader asks."""
        return True

    def close(self):
        """Close the file too."""
        self.file.close()
        super().close()

    def readinto(self, buffer):
        """Fill a buffer; returns the number of bytes, 0 at the end. Raises EOFError for a damaged file."""
        while not self.rest:
            self.data = self.data or self.file.read(8192)  # a little, because some data grow 30,000 times
            if not self.data:
                if self.frame and not self.frame.eof:
                    raise EOFError("the last frame is cut off")
                return 0
            if self.frame is None or self.frame.eof:  # a file may hold several frames
                # Windows of up to 2 GB, as zstd --long=31 makes them; 128 MB is zstandard's own limit.
                self.frame = self.zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
            try:
                self.rest = memoryview(self.frame.decompress(self.data))
            except self.zstandard.ZstdError as error:
                raise EOFError(str(error)) from None
            self.data = self.frame.unused_data
        n = min(len(buffer), len(self.rest))
        buffer[:n] = self.rest[:n]
        self.rest = self.rest[n:]
        return n


def open_zstandard(path):
    """Open a .zst file for reading the decompressed bytes."""
    return io.BufferedReader(Zstandard(path))


# The first bytes of compressed files, as patterns. zstandard's second one is a frame that is skipped.
MAGIC = {
    rb"\x1f\x8b": gzip.open,
    rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": bz2.open,
    rb"\xfd7zXZ\0": lzma.open,
    rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18": open_zstandard,
}
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeError)  # what reading a damaged file raises


def damage(error, where, number):
    """The Problem of a file whose reading ended in an error. number: of the line or row that was read."""
    if of_system := getattr(error, "strerror", None):  # decompressors raise OSErrors too, but without this
        return Problem(where, "unreadable", of_system)
    is_bad_text = isinstance(error, UnicodeError)  # in UTF-16; opened_text() has no errors for UTF-8
    return Problem(f"{where}:{number}", "bad_utf8" if is_bad_text else "truncated", str(error))


def opened_text(path):
    """Open a file for reading UTF-8, or UTF-16 if it begins with that byte order mark; the mark is left out. Bytes that
    are not UTF-8 become characters of NOT_UTF8. Lines end at newline characters alone. Raises as opened() does."""
    file = opened(path)
    start = file.peek(3)
    is_utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if start.startswith(codecs.BOM_UTF8):
        file.read(len(codecs.BOM_UTF8))  # the codec "utf-8-sig" would do it, and be slower
    return io.TextIOWrapper(file, "utf-16" if is_utf16 else "utf-8", "surrogateescape", newline="\n")


# -- JSON


def read_json(path, where):
    """Yield (value, where:line) or a Problem per line of JSON lines, or (value, where:[i]) of the elements of a JSON
    array. Objects over several lines may follow each other too. At the end the Problem of the file itself, if any."""
    problems, number = [], 1
    pieces = pieces_of(path, where, problems)
    for first in pieces:
        start = SEPARATORS.match(first).end()
        if start < len(first):
            break
        number += first.endswith("\n")
    else:
        first, start = "", 0
    ahead, is_stream = first, first.startswith("[", start)
    if not is_stream and n_lines(first) == 0:
        ahead += taken(pieces, MAX_AHEAD)  # a bad line, or an object over several lines
        is_stream = n_lines(ahead) > 1
    pieces = itertools.chain(io.StringIO(ahead, newline="\n"), pieces)
    is_empty = True
    for item in (stream_values if is_stream else values_of_lines)(pieces, where, number, problems):
        is_empty = False
        yield item
    if is_empty and not problems:
        yield Problem(where, "empty")
    yield from problems


def pieces_of(path, where, problems):
    """Yield the lines of a text file, those above PIECE characters in several pieces. If the file turns out to be
    damaged or cannot be read, its Problem is appended to problems."""
    number = 1
    try:
        with opened_text(path) as file:
            while piece := file.readline(PIECE):
                yield piece
                number += piece.endswith("\n")
    except DAMAGE as error:
        problems.append(damage(error, where, number))


def taken(pieces, n_characters):
    """The next pieces in one string, of at least so many characters if there are so many."""
    found, size = [], 0
    while size < n_characters and (piece := next(pieces, "")):
        found.append(piece)
        size += len(piece)
    return "".join(found)


def lines_of(pieces, problems):
    """Yield whole lines from pieces; the last one is left out if it was cut off, that is, if there are problems."""
    parts, size = [], 0
    for piece in pieces:
        size += len(piece)
        parts.append(piece if size <= MAX_VALUE else "\0")  # so that the line cannot pass for a whole one
        if piece.endswith("\n"):
            yield "".join(parts)
            parts, size = [], 0
    if parts and not problems:
        yield "".join(parts)


def n_lines(text):
    """The number of lines that the first JSON value in a text takes; 0 if it cannot be read."""
    start = SEPARATORS.match(text).end()
    item, end = value_at(text, start, "")
    return 0 if isinstance(item, Problem) else text.count("\n", start, end) + 1


def value_at(text, start, where):
    """((value, where) or a Problem, end) of the JSON value that begins at text[start]. end is None where there is no
    JSON, len(text) where the text may end before the value does."""
    try:
        value, end = DECODER.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        detail, place = getattr(error, "msg", str(error)), getattr(error, "pos", start)
        is_bad_utf8 = NOT_UTF8.search(text, start, place + 1)
        # An escape or a word such as -Infinity may be cut off; a string is said to be wrong where it begins.
        is_cut_off = isinstance(error, ValueError) and (place + 16 > len(text) or detail.startswith("Unterminated"))
        return Problem(where, "bad_utf8" if is_bad_utf8 else "bad_json", detail), len(text) if is_cut_off else None
    if not text.isascii() and NOT_UTF8.search(text, start, end):
        return Problem(where, "bad_utf8"), end
    return (value, where), end


def integer(digits):
    """The value of an integer in JSON; infinity for one of more digits than Python converts, which is no reason to lose
    its record."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


DECODER = json.JSONDecoder(parse_int=integer)


def values_of_lines(pieces, where, number, problems):
    """Yield (value, where:line) of the JSON value in each line; if a line has several, the others are where:line.2, ...
    A Problem stands for a value that cannot be read and what follows it in its line. number: of the first line."""
    for number, line in enumerate(lines_of(pieces, problems), number):
        start, k, item = SEPARATORS.match(line).end(), 1, None
        while start < len(line) and not isinstance(item, Problem):
            item, end = value_at(line, start, f"{where}:{number}" if k == 1 else f"{where}:{number}.{k}")
            yield item
            start, k = SEPARATORS.match(line, end or start).end(), k + 1


def stream_values(pieces, where, number, problems):
    """Yield (value, where:[i]) of the elements of arrays, (value, where:line) of values outside of arrays, line by line
    or not; an array of turns is one value. number: of the first line. A Problem stands for a value that cannot be read
    and for what follows it up to the next line that begins with an object (or an array of turns) as deep as that value,
    if there is one. No Problem stands for what is cut off at the end if the file has a Problem itself."""
    text, position, n_elements, in_array, of_turns, indent = "", 0, 0, False, False, ""
    while True:
        start = SEPARATORS.match(text, position).end()
        if "\n" in (between := text[position:start]):
            number += between.count("\n")
            indent = between.rpartition("\n")[2]
        if text.startswith("]" if in_array else "[", start):
            of_turns = of_turns or not in_array and holds_turns(text, start)
            if in_array or not of_turns:
                in_array, position = not in_array, start + 1
                continue
        item, end = value_at(text, start, f"{where}:[{n_elements}]" if in_array else f"{where}:{number}")
        size = len(text) - start
        if end == len(text) and (more := taken(pieces, max(PIECE, size)) if size <= MAX_VALUE else ""):
            text, position = text[start:] + more, 0
            continue
        if size == 0:
            if in_array and not problems:
                yield Problem(where, "bad_json", "the array has no end")
            return
        is_bad = end is None or end == len(text) and isinstance(item, Problem)
        if is_bad:
            opening = "[" if of_turns and not in_array else "{"
            end, text = next_object(text, start, indent + opening, pieces)
            item.detail += "" if end else "; nothing that follows is read"
        if not (is_bad and end is None and problems):
            yield item
        if end is None:
            return
        number += text.count("\n", start, end)
        position, n_elements = end, n_elements + in_array


def holds_turns(text, start):
    """Whether the array that begins at text[start] is a conversation, by its first element."""
    item, _ = value_at(text, SEPARATORS.match(text, start + 1).end(), "")
    first = {} if isinstance(item, Problem) else item[0]
    return isinstance(first, dict) and any(first.keys() >= names for names in ({"role", "content"}, {"from", "value"}))


def next_object(text, start, beginning, pieces):
    """(where the next line after text[start] that begins so begins, or None; the text with the pieces that were read to
    find it)."""
    line = "\n" + beginning
    while (found := text.find(line, start)) < 0 and len(text) < start + MAX_AHEAD and (more := taken(pieces, PIECE)):
        text += more
    return (None if found < 0 else found), text


def records(path):
    """Yield (record, place) of a file that a person names, which must hold JSON objects only, in any form that
    read_json() takes. place is "line 3" or "element [2]". Raises UserError naming the first that is anything else."""
    for item in read_json(Path(path), "line"):
        found = item if isinstance(item, Problem) else Problem(item[1], "not an object")
        if found.rule == "empty":
            return
        if found.rule == "unreadable":
            raise UserError(f"cannot read {path}: {found.detail}")
        place = found.where.replace("line:[", "element [").replace(":", " ")
        if found is item or not isinstance(item[0], dict):
            what = f"{place}: {found.rule} {found.detail}".strip()
            raise UserError(f"{path} is not a file of JSON records, one a line ({what})")
        yield item[0], place


def json_lines(records):
    """Records as the text of a file of JSON lines."""
    return b"".join(map(json_line, records)).decode()


def read_lines(path):
    """Yield the records() of a file without their places."""
    for record, _ in records(path):
        yield record


def escaped(text):
    """A text that can be printed anywhere: half surrogates, as in file names that are not Unicode, are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def json_line(record):
    """A record as a line of JSON, bytes. Half surrogates are escaped: what reads the line finds the same ones again."""
    return escaped(json.dumps(record, ensure_ascii=False)).encode() + b"\n"
