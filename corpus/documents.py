"""Readers: a source's name -> a stream of documents, in an order that depends on nothing but the source.

A source is a preset ("stdlib"), a file, a folder, or "hf:owner/name[:data_dir]" for a data set on the Hugging Face
hub. Memory stays constant: files of records are read record by record, see records.py and parquet.py. What cannot be
used comes out in the same stream as a Problem that says where and why, so that nothing is lost silently.
"""

import collections
import itertools
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from configurator import UserError
from corpus import parquet, records, wikipedia
from corpus.records import Problem, optional
from corpus.sources import root_of

TEXT = set(
    ".txt .md .py .pyi .c .h .cc .cpp .cxx .hpp .hh .cs .java .kt .scala .go .rs .swift .js .jsx .ts .tsx .rb .php .pl "
    ".pm .lua .r .jl .m .mm .sh .bash .zsh .ps1 .sql .hs .ml .mli .clj .ex .exs .erl .el .lisp .scm .f .f90 .v "
    ".vhd .sv .s .asm .d .dart .groovy .cu .cuh .proto .cmake .html .css .scss .vue .yaml .yml .toml "
    ".ipynb .tex .rst".split()
)
JSON = (".jsonl", ".ndjson", ".json")
MAX_TEXT = 16_000_000  # characters; a longer text file is read as several documents cut at line ends
# The standard library's tests are not shipped everywhere, and site-packages holds other people's work.
STDLIB_SKIP = ("site-packages", "dist-packages", "test", "tests", "idle_test", "lib-dynload")

# The names that published corpora give their fields: The Stack and StarCoderData (content, max_stars_*),
# The Stack v2 (path, repo_name, star_events_count), Dolma, OpenWebMath and C4 (text, url).
FIELDS = {
    "text": ("content", "text", "code"),
    "id": ("id", "hexsha", "blob_id", "url", "index"),
    "path": ("path", "max_stars_repo_path"),
    "repo": ("repo", "repo_name", "max_stars_repo_name"),
    "license": ("license", "licenses", "max_stars_repo_licenses", "detected_licenses"),
    "stars": ("stars", "max_stars_count", "star_events_count"),
    "date": ("date", "revision_date", "committer_date", "max_stars_repo_stars_event_max_datetime"),
    "language": ("language", "lang", "programming_language"),
}


@dataclass(slots=True)
class Document:
    """A text to train on, and what is known of it."""

    text: str
    where: str  # the file below the source, with :line for a record
    meta: dict = field(default_factory=dict)  # of id, path, repo, license, stars, date, language what the record gives


def read(source, parse=None, share=(0, 1), without=()):
    """Yield the Documents and Problems of a source. Raises UserError where the source itself is not there.

    parse(record, where): makes a Document or Problem of a record. If it is given, only files of records are read.
    share (i, n): only every n-th file, from the i-th on; a hub data set counts as one file.
    without: files and folders below the source that are no part of it.
    """
    root = root_of(source)
    if root is None:
        if share[0] == 0:
            yield from read_hub(source[3:], parse or from_record)
        return
    is_folder = root.is_dir()
    found = walk(root, STDLIB_SKIP if source == "stdlib" else (), without) if is_folder else [root]
    for item in itertools.islice(found, share[0], None, share[1]):
        if isinstance(item, Problem):
            yield item
        elif source != "stdlib" or item.suffix == ".py":
            yield from read_file(item, item.relative_to(root).as_posix() if is_folder else item.name, parse)


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


def read_file(path, where, parse=None):
    """Yield the Documents and Problems of a file. Its name says what it is, its first bytes how it is compressed."""
    name = without_compression(path.name.lower())
    kind = os.path.splitext(name)[1]
    if kind in JSON or kind == ".parquet":
        known = None if parse else set(itertools.chain(*FIELDS.values()))
        found = records.read_json(path, where) if kind in JSON else parquet.read_parquet(path, where, known)
        for item in found:
            yield item if isinstance(item, Problem) else (parse or from_record)(*item)
    elif kind == ".xml" and "wik" in name and parse is None:  # as dumps are named
        yield from read_dump(path, where)
    elif kind in TEXT and parse is None:
        yield from read_text(path, where)
    else:
        yield Problem(where, "unknown_format", path.suffix)


def without_compression(name):
    """A file's name without .gz and the like."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in records.COMPRESSED else name


# -- text


def read_text(path, where):
    """Yield one document per file; a file above MAX_TEXT becomes several, cut at line ends."""
    number = 1  # of the first line of the document
    try:
        with records.opened_text(path) as file:
            while lines := file.readlines(MAX_TEXT):
                place = where if number == 1 else f"{where}:{number}"
                name = without_compression(where) if number == 1 else place
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


def from_record(record, where):
    """The Document of a record, a dict with any of the names in FIELDS, or the Problem that it has."""
    if not isinstance(record, dict):
        return Problem(where, "bad_json", "not an object")
    found = {}
    for key, names in FIELDS.items():
        values = [record[name] for name in names if record.get(name) is not None]
        if values:
            found[key] = values[0]
    text = found.pop("text", None)
    return checked(text, where, found) if isinstance(text, str) else Problem(where, "no_text", field_names(record))


def field_names(record):
    """The names of a record's fields, for a Problem's detail, in characters that can be written to any file."""
    return "fields: " + records.escaped(", ".join(map(str, record))[:200])


def read_hub(name, parse):
    """Yield parse(record, where) for a hub data set's train split, streamed. data_dir: a part, such as a language.
    Raises UserError where the stream ends in an error: half of a data set must not pass for all of it."""
    datasets = optional("datasets", "hub data sets")
    name, _, data_dir = name.partition(":")
    row = 0
    try:
        stream = datasets.load_dataset(name, data_dir=data_dir or None, split="train", streaming=True)
        for row, record in enumerate(stream, 1):
            yield parse(record, f"{name}:{row}")
    except Exception as error:  # of datasets, of the network, of pyarrow, of packages that decode: of any kind
        place = f"after row {row}: " if row else ""
        raise UserError(f"cannot read {name!r} from the hub: {place}{type(error).__name__}: {error}") from None
