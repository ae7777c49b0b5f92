"""Readers: a source's name -> a stream of documents, in an order that depends on nothing but the source.

A source is a preset ("stdlib"), a file, a folder, or "hf:owner/name[:data_dir]" for a data set on the Hugging
Face hub. Memory stays constant: a file of JSON lines or a parquet file is read record by record. What cannot
be used comes out in the same stream as a Problem that says where and why, so that nothing is lost silently.
"""

import gzip
import importlib
import itertools
import json
import os
import sysconfig
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from configurator import UserError

CODE = set(
    ".py .pyi .c .h .cc .cpp .cxx .hpp .hh .cs .java .kt .scala .go .rs .swift .js .jsx .ts .tsx .rb .php .pl "
    ".pm .lua .r .jl .m .mm .sh .bash .zsh .ps1 .sql .hs .ml .mli .clj .ex .exs .erl .el .lisp .scm .f .f90 .v "
    ".vhd .sv .s .asm .d .dart .groovy .cu .cuh .proto .cmake .html .css .scss .vue .yaml .yml .toml "
    ".ipynb .tex .rst".split()
)
TEXT = CODE | {".txt", ".md"}
RECORDS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json", ".parquet")
MAX_TEXT = 16_000_000  # bytes; a longer text file is read as several documents cut at line ends

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
    text: str
    where: str  # file, and :line for a record, below the source
    meta: dict = field(
        default_factory=dict
    )  # id, path, repo, license, stars, date, language: what the record gives of them


@dataclass(slots=True)
class Problem:
    where: str
    rule: str  # bad_utf8, nul_byte, empty, bad_json, no_text, truncated, unreadable, unknown_format
    detail: str = ""


def read(source, parse=None, share=(0, 1)):
    """Yield the Documents and Problems of a source. Raises UserError where the source itself is not there.
    parse(record, where) makes a Document of a record; given, other files than those of records are not read.
    share (i, n): only every n-th file, from the i-th on; a hub data set counts as one file."""
    if source.startswith("hf:"):
        yield from read_hub(source[3:], parse or from_record) if share[0] == 0 else ()
        return
    root = stdlib_folder() if source == "stdlib" else Path(source)
    if not root.exists():
        raise UserError(f"no source {source!r}: it is neither a preset (stdlib) nor a path that exists")
    files = walk(root, skip=STDLIB_SKIP if source == "stdlib" else ())
    for path in itertools.islice(files, share[0], None, share[1]):
        where = path.relative_to(root).as_posix() if root.is_dir() else path.name
        if source != "stdlib" or path.suffix == ".py":
            yield from read_file(path, where, parse)


# The library proper: its test suites are not shipped everywhere, and site-packages is other people's.
STDLIB_SKIP = ("site-packages", "dist-packages", "test", "tests", "idle_test", "lib-dynload")


def stdlib_folder():
    return Path(sysconfig.get_paths()["stdlib"])


def walk(root, skip=()):
    """Files below root in sorted order; hidden folders and caches are passed over."""
    if root.is_file():
        yield root
        return
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(d for d in subfolders if not d.startswith(".") and d != "__pycache__" and d not in skip)
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def read_file(path, where, parse=None):
    name = path.name.lower()
    if name.endswith(RECORDS):
        lines = read_parquet(path, where, parse is None) if name.endswith(".parquet") else read_json(path, where)
        for item in lines:
            yield item if isinstance(item, Problem) else (parse or from_record)(*item)
    elif name.endswith((".xml", ".xml.bz2")) and "wik" in name and parse is None:  # as dumps are named
        from corpus.wikipedia import read_dump  # it needs this module

        yield from read_dump(path, where)
    elif path.suffix.lower() in TEXT and parse is None:
        yield from read_text(path, where)
    else:
        yield Problem(where, "unknown_format", path.suffix)


def read_text(path, where):
    """One document per file; a file above MAX_TEXT becomes several, cut at line ends."""
    try:
        with open(path, "rb") as f:
            line = 1
            while lines := f.readlines(MAX_TEXT):
                data = b"".join(lines)
                yield from_bytes(data, where if line == 1 else f"{where}:{line}")
                line += len(lines)
            if line == 1:
                yield Problem(where, "empty")
    except OSError as error:
        yield Problem(where, "unreadable", error.strerror)


def from_bytes(data, where):
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Problem(where, "bad_utf8", f"line {data.count(10, 0, error.start) + 1}")
    return checked(text, where, {"path": where})


def checked(text, where, meta):
    """The document, or the Problem that its text has."""
    if not text.strip():
        return Problem(where, "empty")
    if "\0" in text:
        return Problem(where, "nul_byte", f"line {text.count(chr(10), 0, text.index(chr(0))) + 1}")
    return Document(text, where, meta)


def from_record(record, where):
    """record: a dict with any of the names in FIELDS."""
    if not isinstance(record, dict):
        return Problem(where, "bad_json", "not an object")
    found = {
        key: next((record[name] for name in names if record.get(name) is not None), None)
        for key, names in FIELDS.items()
    }
    text = found.pop("text")
    if not isinstance(text, str):
        return Problem(where, "no_text", "fields: " + ", ".join(map(str, record))[:200])
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return Problem(where, "bad_utf8", "half of a surrogate pair")
    return checked(text, where, {key: value for key, value in found.items() if value is not None})


def read_json(path, where):
    """(record, where:line) of a file of JSON lines, plain or compressed. A file that is one JSON array is read too."""
    number = 0
    try:
        with open_compressed(path) as f:
            for number, line in enumerate(f, 1):
                if number == 1 and line.lstrip()[:1] == b"[":
                    records = json.loads(line + f.read())
                    yield from ((record, f"{where}:[{i}]") for i, record in enumerate(records))
                    return
                if line.strip():
                    try:
                        yield json.loads(line), f"{where}:{number}"
                    except UnicodeDecodeError:
                        yield Problem(f"{where}:{number}", "bad_utf8")
                    except (ValueError, RecursionError) as error:
                        if number == 1 and path.name.endswith((".json", ".json.gz")):  # one object over many lines
                            yield Problem(where, "bad_json", "neither an array nor one record per line")
                            return
                        yield Problem(f"{where}:{number}", "bad_json", str(error))
            if number == 0:
                yield Problem(where, "empty")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Problem(f"{where}:{number + 1}", "truncated", str(error))
    except (ValueError, RecursionError) as error:  # of the array
        yield Problem(where, "bad_json", str(error))
    except OSError as error:
        yield Problem(where, "unreadable", error.strerror)


def open_compressed(path):
    """The bytes of a plain, gzip or zstandard file as a file object."""
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".zst":
        return ZstdLines(path)
    return open(path, "rb")


class ZstdLines:
    """The lines of a .zst file. zstandard's own reader takes a cut-off file for a whole one; this raises EOFError."""

    def __init__(self, path):
        self.zstandard = optional("zstandard", ".zst files")
        self.file = open(path, "rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def blocks(self):
        frame = None
        while data := self.file.read(1 << 20):
            while data:  # a file may hold several frames
                frame = frame if frame and not frame.eof else self.zstandard.ZstdDecompressor().decompressobj()
                try:
                    yield frame.decompress(data)
                except self.zstandard.ZstdError as error:
                    raise zlib.error(str(error)) from None
                data = frame.unused_data
        if frame and not frame.eof:
            raise EOFError("the last frame is cut off")

    def __iter__(self):
        rest = b""
        for block in self.blocks():
            *lines, rest = (rest + block).split(b"\n")
            yield from (line + b"\n" for line in lines)
        if rest:
            yield rest

    def read(self):
        raise zlib.error("a JSON array in a .zst file is not supported: use one record per line")


def read_parquet(path, where, known_columns):
    """(record, where:row) of a parquet file; known_columns reads no others than those in FIELDS."""
    parquet = optional("pyarrow.parquet", ".parquet files")
    row = 0
    try:
        with parquet.ParquetFile(path) as table:
            wanted = {name for names in FIELDS.values() for name in names}
            columns = [name for name in table.schema_arrow.names if name in wanted] if known_columns else None
            for batch in table.iter_batches(batch_size=256, columns=columns):
                for record in batch.to_pylist():
                    row += 1
                    yield record, f"{where}:{row}"
    except (OSError, ValueError) as error:  # pyarrow's errors are kinds of these
        yield Problem(f"{where}:{row + 1}", "truncated", str(error))


def read_hub(name, parse):
    """Stream the train split of a hub data set; data_dir picks a part, such as a language of bigcode/starcoderdata."""
    datasets = optional("datasets", "hub data sets")
    name, _, data_dir = name.partition(":")
    try:
        stream = datasets.load_dataset(name, data_dir=data_dir or None, split="train", streaming=True)
        for row, record in enumerate(stream, 1):
            yield parse(record, f"{name}:{row}")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {name!r} from the hub: {error}") from None


def optional(module, purpose):
    """Import an optional package, or say in one line what to install."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.split(".")[0]
        raise UserError(f"{purpose} need the package {package}: pip install {package}") from None
