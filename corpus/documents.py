"""Readers: a source's name -> a stream of documents, in an order that depends on nothing but the source.

sources.py says what a source can be. Memory stays constant: files of records are read record by record, see records.py
and parquet.py. What cannot be used comes out in the same stream as a Problem that says where and why, so that nothing
is lost silently.
"""

import collections
import hashlib
import itertools
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from corpus import blobs, hub, parquet, records, shapes, wikipedia
from corpus.records import Problem
from corpus.sources import Source, is_stdlib, parsed

TEXT = set(
    ".txt .md .py .pyi .c .h .cc .cpp .cxx .hpp .hh .cs .java .kt .scala .go .rs .swift .js .jsx .ts .tsx .rb .php .pl "
    ".pm .lua .r .jl .m .mm .sh .bash .zsh .ps1 .sql .hs .ml .mli .clj .ex .exs .erl .el .lisp .scm .f .f90 .v "
    ".vhd .sv .s .asm .d .dart .groovy .cu .cuh .proto .cmake .html .css .scss .vue .yaml .yml .toml "
    ".ipynb .tex .rst".split()
)
MAX_TEXT = 16_000_000  # characters; a longer text file is read as several documents cut at line ends
OF_FILES = {"path", "blob_id"}
OF_BLOBS = ("blob_id", "files", "src_encoding", "is_vendor", "is_generated")  # columns that blobs.py wants to see
META = list(shapes.SHAPES["meta"].items())
NOTHING_SAID = Source("", None)  # of how records are read: their fields decide
# The standard library's tests are not shipped everywhere, and site-packages holds other people's work.
STDLIB_SKIP = ("site-packages", "dist-packages", "test", "tests", "idle_test", "lib-dynload")


@dataclass(slots=True)
class Document:
    """A text to train on, and what is known of it."""

    text: str
    where: str  # the file below the source, with :line for a record
    meta: dict = field(default_factory=dict)  # of id, path, repo, license, stars, date, language what the record gives
    files: list = field(default_factory=list)  # of a repository: [(path, text)]


def read(source, parse=None, share=(0, 1), without=(), count_tokens=None):
    """Yield the Documents and Problems of a source, up to its budget. Raises UserError where the source is not there.

    parse(record, where, shape): makes a Document or Problem of a record. If it is given, only records are read.
    share (i, n): only every n-th file, from the i-th on; a hub data set counts as one file.
    without: files and folders below the source that are no part of it.
    count_tokens(text): how many a text has, for a source with a budget of tokens; None = a quarter of its bytes.
    """
    source = parsed(source)
    if source.path:
        found = read_local(source, parse, share, without)
    else:
        found = documents_of(hub.records_of(source) if share[0] == 0 else iter(()), source, parse)
    if source.share == 1 and not source.documents and not source.tokens:
        return found
    n_parts = share[1] if source.path and source.path.is_dir() else 1  # a hub set and a file are read by one alone
    return within_budget(found, source, n_parts, count_tokens)


def read_local(source, parse, share, without):
    """Yield the Documents and Problems of a file or folder."""
    is_folder = source.path.is_dir()
    for item in itertools.islice(files(source, without), share[0], None, share[1]):
        if isinstance(item, Problem):
            yield item
        elif not is_stdlib(source.name) or item.suffix == ".py":
            where = item.relative_to(source.path).as_posix() if is_folder else item.name
            yield from read_file(item, where, parse, source)


def files(source, without=()):
    """The files of a source, a Source, and Problems where some are passed over; none of a hub data set."""
    if not source.path or not source.path.is_dir():
        return [source.path] if source.path else []
    found = walk(source.path, STDLIB_SKIP if is_stdlib(source.name) else (), without)
    return hub.files_of(list(found), source) if source.known or source.split else found


def within_budget(found, source, n_parts, count_tokens):
    """Yield Documents and Problems until the source's budget is used up, of which each of n_parts has its part. Tokens
    are counted in bytes, of which a token has as many as in the first million."""
    n_documents, n_bytes, tokens_per_byte, sample = 0, 0, 0.25, 0
    for item in found:
        if isinstance(item, Document):
            if source.share < 1 and draw(item.text) >= source.share:
                continue
            size = len(item.text.encode("utf-8", "surrogatepass"))
            if count_tokens and source.tokens and n_bytes < 1_000_000:
                sample += count_tokens(item.text)
                tokens_per_byte = sample / (n_bytes + size)
            n_documents, n_bytes = n_documents + 1, n_bytes + size
        yield item
        if source.documents and n_documents * n_parts >= source.documents:
            return
        if source.tokens and n_bytes * tokens_per_byte * n_parts >= source.tokens:
            return


def draw(text):
    """A number from 0 to 1 that depends on a text alone, and not on that by which train and val are told apart."""
    return int.from_bytes(hashlib.sha256(b"share" + text.encode("utf-8", "surrogatepass")).digest()[:8]) / 2**64


def walk(root, skip=(), without=()):
    """Yield the files below a folder, sorted by the bytes of their names, those of a folder before its subfolders'.
    Links are followed last, so that what can be reached in two ways is read once, under its own name.

    Folders named in skip, paths in without and Python's caches are no part of the source. What else is passed over
    comes out as Problems: folders that cannot be listed, links that lead nowhere, and one for all hidden names."""
    skip = ("__pycache__", *skip)
    without = {identity(path.stat()) for path in map(Path, without) if path.exists()}
    folders, links, done, hidden = [root], collections.deque(), set(without), []
    while folders or links:
        path = folders.pop() if folders else links.popleft()
        try:
            status = path.stat()
            is_done = identity(status) in done
            done.add(identity(status))
            if not stat.S_ISDIR(status.st_mode):  # a link to a file; its own folder may have been read
                target = path.resolve()
                if not is_done and (target.name.startswith(".") or identity(target.parent.stat()) not in done):
                    yield path
                continue
            entries = [] if is_done else sorted(os.scandir(path), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            yield Problem(path.relative_to(root).as_posix(), "unreadable", error.strerror)
            continue
        subfolders = []
        for entry in (entry for entry in entries if entry.name not in skip):
            child = path / entry.name
            if entry.name.startswith("."):
                hidden.append(child.relative_to(root).as_posix())
            elif entry.is_symlink():
                (links.appendleft if os.path.isdir(child) else links.append)(child)  # folders first
            elif entry.is_dir(follow_symlinks=False):
                subfolders.append(child)
            elif not (without and os.path.exists(child) and identity(child.stat()) in without):
                yield child
        folders += reversed(subfolders)
    if hidden:
        more = ", ..." if len(hidden) > 5 else ""
        yield Problem(".", "hidden", f"{len(hidden)} names that begin with a dot: {', '.join(hidden[:5])}{more}")


def identity(status):
    """What two names of one file or folder have in common. status: what stat() returns."""
    return status.st_dev, status.st_ino


def read_file(path, where, parse=None, source=NOTHING_SAID):
    """Yield the Documents and Problems of a file. Its name says what it is, its first bytes how it is compressed.
    source: how its records are read."""
    name = records.without_compression(path.name.lower())
    kind = os.path.splitext(name)[1] or (".json" if source.known else "")  # wiki2019zh's files have no suffix
    if kind in records.JSON or kind == ".parquet":
        columns = None if parse else known_fields(source)
        found = records.read_json(path, where) if kind in records.JSON else parquet.read_parquet(path, where, columns)
        yield from documents_of(found, source, parse)
    elif kind == ".xml" and "wik" in name and parse is None:  # as dumps are named
        yield from read_dump(path, where)
    elif kind in TEXT and parse is None:
        yield from read_text(path, where)
    else:
        yield Problem(where, "unknown_format", path.suffix)


# -- text


def read_text(path, where):
    """Yield one document per file; a file above MAX_TEXT becomes several, cut at line ends."""
    number = 1  # of the first line of the document
    try:
        with records.opened_text(path) as file:
            while lines := file.readlines(MAX_TEXT):
                place = where if number == 1 else f"{where}:{number}"
                name = records.without_compression(where) if number == 1 else place
                yield checked("".join(lines), place, {"path": name})
                number += len(lines)
            if number == 1:
                yield Problem(where, "empty")
    except records.DAMAGE as error:
        yield records.damage(error, where, number)


def plain(text):
    """A text with line ends as Unix has them and without a byte order mark: copies that differ in nothing else are one
    text, whichever of them is read first."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.removeprefix("\ufeff")


def checked(text, where, meta):
    """The Document of a text, or the Problem that it has."""
    text = plain(text)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # half of a surrogate pair: JSON can hold such a thing, or see opened_text()
        line = text.count("\n", 0, error.start) + 1
        return Problem(where, "bad_utf8", f"line {line}")
    if not text.strip():
        return Problem(where, "empty")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        return Problem(where, "nul_byte", f"line {line}")
    return Document(text, where, meta)


def read_dump(path, where):
    """Yield a document per article of a wiki's dump, plain or bz2 (multistream too); its id is its title."""
    title = "the beginning"
    try:
        with records.opened(path) as file:
            for title, text in wikipedia.articles(file):
                yield checked(text, f"{where}:{title}", {"path": f"{title}.txt", "id": title})
    except wikipedia.NoArticles as error:
        yield Problem(where, "no_articles", str(error))
    except (ElementTree.ParseError, ValueError, LookupError, *records.DAMAGE) as error:
        of_system = getattr(error, "strerror", None)  # bz2's errors are OSErrors too, but without this
        if of_system:
            yield Problem(where, "unreadable", of_system)
        else:
            yield Problem(f"{where}: after {title}", "truncated", str(error))


# -- records


def documents_of(items, source, parse=None):
    """Yield the Documents and Problems of (record, where) and Problems: those that meet the source's conditions, with
    the text that their blob_id stands for."""
    if source.keep:
        items = wanted(items, source.keep)
    shape, may_be_repository = source.shape or None, parse is None and not source.shape
    parse = parse or from_record
    for item in with_texts(iter(items), source):
        if isinstance(item, Problem):
            yield item
        elif may_be_repository and isinstance(item[0], dict) and "files" in item[0] and is_repository(item[0]):
            yield from repository(*item)
        else:
            yield parse(*item, shape)


def with_texts(items, source):
    """Yield the items; from the first record on that names its text instead of holding it, with their texts."""
    for item in items:
        record = item[0] if isinstance(item, tuple) else None
        may_lack = isinstance(record, dict) and ("blob_id" in record or "files" in record)
        if may_lack and (blobs.lacks_text(record) or is_repository(record)):
            place = source.contents or blobs.BASE, source.cache or blobs.CACHE
            ahead = min(2 * int(source.documents), blobs.WINDOW)  # no more is fetched than a small budget may need
            yield from blobs.completed(itertools.chain([item], items), *place, window=ahead)
            return
        yield item


def is_repository(record):
    """Whether a record is a list of files with their paths or blobs, and no text of its own."""
    files = record.get("files") if isinstance(record, dict) else None
    is_list = isinstance(files, list) and any(isinstance(file, dict) and file.keys() & OF_FILES for file in files)
    return is_list and all(record.get(name) is None for name in ("content", "text", "code"))


def wanted(items, keep):
    """Yield the items whose records meet all conditions, and a Problem for each other record. A condition on a field
    that a repository does not have is one on its files."""
    conditions = [(text, shapes.field_of(text), shapes.condition(text)) for text in keep]
    for item in items:
        record, where = (None, None) if isinstance(item, Problem) else item
        files = record["files"] if is_repository(record) else []
        own = [(text, met) for text, name, met in conditions if not files or name in record]
        of_files = [(text, met) for text, name, met in conditions if files and name not in record]
        if where and (reason := unmet(record, own)):
            yield Problem(where, "not_wanted", reason)
        elif of_files:
            reasons = [unmet(file, of_files) for file in files]
            for number, reason in enumerate(reasons):
                if reason:
                    yield Problem(f"{where}:{path_of(files[number], number)}", "not_wanted", reason)
            yield {**record, "files": [file for file, reason in zip(files, reasons) if not reason]}, where
        else:
            yield item


def unmet(record, conditions):
    """Which of some (text, function) a record does not meet, in words; None where it meets all."""
    return next((f"not so: {text}" for text, met in conditions if not met(record)), None)


def path_of(file, number):
    """The path of a file of a repository, or its number where it has none."""
    return str(file.get("path") or number) if isinstance(file, dict) else str(number)


def known_fields(source):
    """The columns of a table that matter to documents."""
    names = {*itertools.chain(*shapes.SHAPES["meta"].values()), *OF_BLOBS}
    for shape in [*shapes.SHAPES["documents"], source.shape]:
        names |= {*shape.get("fields", ()), *(shapes.fields_of(shape["text"]) if "text" in shape else ())}
    return names | {shapes.field_of(text) for text in source.keep}


def from_record(record, where, shape=None):
    """The Document of a record, or the Problem that it has. shape: its template as an entry of shapes.toml; None = that
    of its fields, where a text that is none counts as none."""
    if not isinstance(record, dict):
        return Problem(where, "bad_json", "not an object")
    found = {}
    for key, names in META:
        for name in names:
            if record.get(name) is not None and is_plain(record[name]):
                found[key] = record[name]
                break
    if shape is None:
        for shape in shapes.possible("documents", tuple(record)):
            if record[shape["fields"][0]] is not None:
                break
        else:
            shape = None
    try:
        text = text_of(record, shape) if shape and "text" in shape else None
    except (TypeError, AttributeError):  # a field that has to be text is none
        text = None
    return Problem(where, "no_text", field_names(record)) if text is None else checked(text, where, found)


def is_plain(value):
    """Whether a field says something of a document: a word, a number, a time, a list of words. What is nested, perhaps
    so deeply that it could not be sent to a process, says nothing."""
    if isinstance(value, list):
        return all(isinstance(part, str) for part in value)
    return not isinstance(value, dict)


def text_of(record, shape):
    """The text of a record by a shape's template. None, TypeError or AttributeError where a field is no text."""
    main = shape.get("fields", [""])[0]
    if main and not ("title" in record or "desc" in record):  # most records: nothing stands around the text
        return record[main] if isinstance(record[main], str) else None

    def as_text(value, path):
        """A field as the template wants it. What makes the shape, or stands in a given template, must be text or a
        number; another field says nothing if it is neither."""
        if isinstance(value, int | float) and path != main:
            return str(value)
        return value if isinstance(value, str) or path == main or not main else ""

    title = record.get("title")
    if main and isinstance(title, str) and title.strip() and record[main].lstrip().startswith(title.strip()):
        return record[main]
    return shapes.filled(shape["text"], record, as_text)


def repository(record, where):
    """Yield the Document of a record that holds the files of a repository, and a Problem for each file that is none."""
    name, files = record.get("repo_name") or record.get("repo"), []
    for number, file in enumerate(record["files"]):
        path = path_of(file, number)
        item = from_record(file, f"{where}:{path}")
        if isinstance(item, Problem):
            yield item
        else:
            files.append((path, item.text))
    meta = {"repo": name if isinstance(name, str) else "", "id": where}
    item = checked(joined(files), where, meta)
    if isinstance(item, Document):
        item.files = files
    yield item


def joined(files):
    """The files [(path, text)] of a repository as one text, in which copies are sought."""
    return "\n\n".join(f"{path}\n{text}" for path, text in files)


def field_names(record):
    """The names of a record's fields, for a Problem's detail, in characters that can be written to any file."""
    return "fields: " + records.escaped(", ".join(map(str, record))[:200])
