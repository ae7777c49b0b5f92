"""Readers: a source's name -> a stream of documents, in an order that depends on nothing but the source.

A source is a preset ("stdlib"), a file, a folder, or "hf:owner/name[:data_dir]" for a data set on the Hugging Face
hub. Memory stays constant: a file of JSON lines or a parquet file is read record by record. What cannot be used comes
out in the same stream as a Problem that says where and why, so that nothing is lost silently.
"""

import bz2
import gzip
import importlib
import itertools
import json
import os
import sysconfig
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from configurator import UserError
from corpus import wikipedia

TEXT = set(
    ".txt .md .py .pyi .c .h .cc .cpp .cxx .hpp .hh .cs .java .kt .scala .go .rs .swift .js .jsx .ts .tsx .rb .php .pl "
    ".pm .lua .r .jl .m .mm .sh .bash .zsh .ps1 .sql .hs .ml .mli .clj .ex .exs .erl .el .lisp .scm .f .f90 .v "
    ".vhd .sv .s .asm .d .dart .groovy .cu .cuh .proto .cmake .html .css .scss .vue .yaml .yml .toml "
    ".ipynb .tex .rst".split()
)
RECORDS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json", ".parquet")
MAX_TEXT = 16_000_000  # bytes; a longer text file is read as several documents cut at line ends
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


@dataclass(slots=True)
class Problem:
    """What a reader found in place of a document."""

    where: str  # as in Document
    rule: str  # bad_utf8, nul_byte, empty, bad_json, no_text, truncated, unreadable, unknown_format
    detail: str = ""


def read(source, parse=None, share=(0, 1)):
    """Yield the Documents and Problems of a source. Raises UserError where the source itself is not there.

    parse(record, where): makes a Document or Problem of a record. If it is given, only files of records are read.
    share (i, n): only every n-th file, from the i-th on; a hub data set counts as one file.
    """
    if source.startswith("hf:"):
        if share[0] == 0:
            yield from read_hub(source[3:], parse or from_record)
        return
    root = Path(sysconfig.get_paths()["stdlib"] if source == "stdlib" else source)
    if not root.exists():
        raise UserError(f"no source {source!r}: it is neither a preset (stdlib) nor a path that exists")
    files = walk(root, skip=STDLIB_SKIP if source == "stdlib" else ())
    for path in itertools.islice(files, share[0], None, share[1]):
        where = path.relative_to(root).as_posix() if root.is_dir() else path.name
        if source != "stdlib" or path.suffix == ".py":
            yield from read_file(path, where, parse)


def walk(root, skip):
    """Yield the files below root in sorted order, except for hidden ones, caches and the folders named in skip."""
    if root.is_file():
        yield root
        return
    for folder, subfolders, names in os.walk(root):
        wanted = [name for name in subfolders if not name.startswith(".") and name not in ("__pycache__", *skip)]
        subfolders[:] = sorted(wanted)  # os.walk goes into these
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def read_file(path, where, parse):
    """Yield the Documents and Problems of a file, whose name says what it is."""
    name = path.name.lower()
    if name.endswith(RECORDS):
        is_parquet = name.endswith(".parquet")
        for item in read_parquet(path, where, parse is None) if is_parquet else read_json(path, where):
            yield item if isinstance(item, Problem) else (parse or from_record)(*item)
    elif name.endswith((".xml", ".xml.bz2")) and "wik" in name and parse is None:  # as dumps are named
        yield from read_dump(path, where)
    elif path.suffix.lower() in TEXT and parse is None:
        yield from read_text(path, where)
    else:
        yield Problem(where, "unknown_format", path.suffix)


# -- text


def read_text(path, where):
    """Yield one document per file; a file above MAX_TEXT becomes several, cut at line ends."""
    try:
        with open(path, "rb") as file:
            number = 1  # of the first line of the document
            while lines := file.readlines(MAX_TEXT):
                yield from_bytes(b"".join(lines), where if number == 1 else f"{where}:{number}")
                number += len(lines)
            if number == 1:
                yield Problem(where, "empty")
    except OSError as error:
        yield Problem(where, "unreadable", error.strerror)


def from_bytes(data, where):
    """The Document of a text file, or the Problem that it has."""
    try:
        return checked(data.decode("utf-8"), where, {"path": where})
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Problem(where, "bad_utf8", f"line {line}")


def checked(text, where, meta):
    """The Document of a text, or the Problem that it has."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # JSON can hold such a thing
        return Problem(where, "bad_utf8", "half of a surrogate pair")
    if not text.strip():
        return Problem(where, "empty")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        return Problem(where, "nul_byte", f"line {line}")
    return Document(text, where, meta)


def read_dump(path, where):
    """Yield a document per article of a wiki's dump, plain or bz2 (multistream too); its id is its title."""
    parser = optional("mwparserfromhell", "Wikipedia dumps")
    title = "the beginning"
    try:
        with bz2.open(path) if path.suffix == ".bz2" else open(path, "rb") as file:
            for title, markup in wikipedia.pages(file):
                if markup is not None:
                    text = wikipedia.plain_text(parser, markup)
                    meta = {"path": f"{title}.txt", "id": title}
                    place = f"{where}:{title}"
                    yield Document(text, place, meta) if text else Problem(place, "empty")
    except (ElementTree.ParseError, EOFError, zlib.error, ValueError, LookupError, OSError) as error:
        of_system = getattr(error, "strerror", None)  # bz2's errors are OSErrors too, but without this
        yield Problem(f"{where}: after {title}", "unreadable" if of_system else "truncated", str(error))


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
    names = ", ".join(map(str, record))[:200]
    return "fields: " + names.encode("utf-8", "backslashreplace").decode()


def read_json(path, where):
    """Yield (record, where:line) or a Problem per line of JSON lines, or (record, where:[i]) of one JSON array."""
    number = 0
    try:
        lines = lines_of(path)
        for number, line in enumerate(lines, 1):
            if number == 1 and line.lstrip().startswith(b"["):
                found = parsed_json(line + b"".join(lines), where)
                if isinstance(found, Problem):
                    yield found
                else:
                    yield from ((record, f"{where}:[{i}]") for i, record in enumerate(found[0]))
            elif line.strip():
                found = parsed_json(line, f"{where}:{number}")
                is_broken = isinstance(found, Problem) and found.rule == "bad_json"
                if is_broken and number == 1 and path.name.endswith((".json", ".json.gz")):
                    yield Problem(where, "bad_json", "neither an array nor one record per line")
                    return  # one object over many lines
                yield found
        if number == 0:
            yield Problem(where, "empty")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Problem(f"{where}:{number + 1}", "truncated", str(error))
    except OSError as error:
        yield Problem(where, "unreadable", error.strerror)


def parsed_json(data, where):
    """(the value of a JSON text, where), or the Problem that the text has. data: bytes."""
    try:
        return json.loads(data), where
    except UnicodeDecodeError:
        return Problem(where, "bad_utf8")
    except (ValueError, RecursionError) as error:
        return Problem(where, "bad_json", str(error))


def lines_of(path):
    """Yield the lines, bytes, of a plain, gzip or zstandard file. Raises EOFError or zlib.error for a damaged one."""
    if path.suffix == ".zst":
        yield from zstd_lines(path)
    else:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            yield from file


def zstd_lines(path):
    """Yield the lines of a .zst file. zstandard's own reader takes a file that is cut off for a whole one."""
    zstandard = optional("zstandard", ".zst files")
    frame, rest = None, b""
    with open(path, "rb") as file:
        while data := file.read(1 << 20):
            while data:  # a file may hold several frames
                if frame is None or frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                try:
                    *lines, rest = (rest + frame.decompress(data)).split(b"\n")
                except zstandard.ZstdError as error:
                    raise zlib.error(str(error)) from None
                yield from (line + b"\n" for line in lines)
                data = frame.unused_data
    if frame and not frame.eof:
        raise EOFError("the last frame is cut off")
    if rest:
        yield rest


def read_parquet(path, where, known_columns):
    """Yield (record, where:row) of a parquet file. known_columns: whether to read only the columns in FIELDS."""
    parquet = optional("pyarrow.parquet", ".parquet files")
    row = 0
    try:
        with parquet.ParquetFile(path) as table:
            known = [name for name in table.schema_arrow.names if name in itertools.chain(*FIELDS.values())]
            for batch in table.iter_batches(batch_size=256, columns=known if known_columns else None):
                for record in batch.to_pylist():
                    row += 1
                    yield record, f"{where}:{row}"
    except (OSError, ValueError) as error:  # pyarrow's errors are kinds of these
        yield Problem(f"{where}:{row + 1}", "truncated", str(error))


def read_hub(name, parse):
    """Yield parse(record, where) for a hub data set's train split, streamed. data_dir: a part, such as a language."""
    datasets = optional("datasets", "hub data sets")
    name, _, data_dir = name.partition(":")
    try:
        stream = datasets.load_dataset(name, data_dir=data_dir or None, split="train", streaming=True)
        for row, record in enumerate(stream, 1):
            yield parse(record, f"{name}:{row}")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {name!r} from the hub: {error}") from None


def optional(module, purpose):
    """Import an optional package, or raise a UserError that says what to install. purpose: what needs it, plural."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.split(".")[0]
        raise UserError(f"{purpose} need the package {package}: pip install {package}") from None
