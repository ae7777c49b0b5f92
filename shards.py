"""The token files, and the only code that knows their format.

data/<name>/train_000000.bin   a header of 256 int32 (20240520, 1, number of tokens), then uint16 tokens: the
                               format of llm.c and modded-nanogpt, so files made for those load here and back
data/<name>/manifest.json      what is in them: counts per source and split, size and sha256 of every file
data/<name>/tokenizer.json     the tokenizer that made them
data/<name>/train_000000.mask.bin   beside shards of chats: one byte per token, 1 where it counts in the loss

<|endoftext|> opens every document and closes none.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from configurator import UserError, not_special
from hints import how_to_make, name_of
from tokenizer import Tokenizer

MAGIC, VERSION, HEADER_BYTES = 20240520, 1, 1024
PATIENCE = 1  # seconds
# What a manifest may say of how it was made, if a person is to type it.
PLAIN_COMMAND = r"prepare_data\.py( --[\w./:,=@+-]+| [\w/][\w./@+-]*\.toml(:[\w-]+)?)*"


@contextlib.contextmanager
def exclusive(folder):
    """While this lasts, another process that asks for the same folder gets a UserError. The folder is made if need be,
    and goes again if nothing came into it.

    The lock is on the folder itself (flock): no file is left behind, and the system lets go of it when the process
    ends, however it ends. Where a file system has no locks, there is no protection. It holds on one machine."""
    folder = Path(folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle, folder)
        yield
    finally:
        os.close(handle)
        if is_new:
            with contextlib.suppress(OSError):  # something lies in it
                folder.rmdir()


def lock(handle, folder):
    """Lock an open folder. Raises UserError if another process holds it for longer than PATIENCE: forked workers of a
    run that was killed hold its lock too, until they have noticed."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise UserError(f"another run is writing to {folder}: wait for its end, or stop it") from None
            time.sleep(0.05)
        except OSError:
            return  # a file system without locks


def header(n_tokens):
    """The 1,024 bytes that open a shard."""
    fields = np.zeros(HEADER_BYTES // 4, dtype="<i4")
    fields[:3] = MAGIC, VERSION, n_tokens
    return fields.tobytes()


class WholeFile:
    """A file that has its name only when it is whole: until close() it lies beside it as <name>.tmp.

    A full disk is an OSError that names the file; then call abort(), which leaves nothing behind."""

    def __init__(self, path):
        self.path, self.beside = not_special(Path(path)), Path(f"{path}.tmp")
        self.file = open(self.beside, "wb")

    def write(self, data):
        """Append bytes."""
        with naming(self.path):
            self.file.write(data)

    def close(self):
        """Finish the file and give it its name."""
        with naming(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            os.replace(self.beside, self.path)

    def abort(self):
        """Leave nothing behind."""
        with contextlib.suppress(OSError):  # closing writes what is left, for which there may be no space
            self.file.close()
        self.beside.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path):
    """Have an OSError inside name the path: a full disk's does not say by itself which file had no space."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class ShardWriter:
    """Writes one shard, and the mask of a shard of chats, as WholeFiles."""

    def __init__(self, path, masked=False):
        self.path, self.n_tokens = Path(path), 0
        self.file, self.mask = WholeFile(self.path), WholeFile(mask_path(self.path)) if masked else None
        self.file.write(header(0))

    def write(self, tokens: np.ndarray, mask: np.ndarray | None = None):
        """Append tokens, and which of them count in the loss."""
        self.file.write(tokens.astype("<u2", copy=False).tobytes())
        self.n_tokens += len(tokens)
        if self.mask:
            self.mask.write(mask.astype(np.uint8, copy=False).tobytes())

    def close(self):
        """Finish the files; {name, tokens, size, sha256[, mask]} for the manifest, or None if nothing was written."""
        if self.n_tokens == 0:
            self.abort()
            return None
        with naming(self.path):
            self.file.file.seek(0)  # which writes what is left
        self.file.write(header(self.n_tokens))
        self.file.close()
        entry = {"name": self.path.name, "tokens": self.n_tokens, **file_entry(self.path)}
        if self.mask:
            self.mask.close()
            entry["mask"] = {"name": mask_path(self.path).name, **file_entry(mask_path(self.path))}
        return entry

    def abort(self):
        """Leave nothing behind."""
        for file in (self.file, self.mask):
            if file:
                file.abort()


def mask_path(path):
    """Where the loss mask of a shard lies."""
    return path.with_suffix(".mask.bin")


def files_of(entry):
    """The files that an entry of the manifest describes: the shard, and its mask where it has one."""
    return [entry, entry["mask"]] if "mask" in entry else [entry]


def file_entry(path):
    """What the manifest says of a file, so that damage is noticed."""
    return {"size": path.stat().st_size, "sha256": sha256_file(path)}


def sha256_file(path):
    """The sha256 of a file's content, in hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_header(path):
    """Number of tokens in a shard. Raises UserError for a bad header or a file of another length than it says."""
    with open(path, "rb") as f:
        head = f.read(HEADER_BYTES)
    fields = np.frombuffer(head, dtype="<i4") if len(head) == HEADER_BYTES else [0]
    if fields[0] != MAGIC or fields[1] != VERSION:
        raise UserError(f"{path} is not a token shard: its header is wrong")
    n_tokens, size = int(fields[2]), os.path.getsize(path)
    if size != HEADER_BYTES + 2 * n_tokens:
        promised = HEADER_BYTES + 2 * n_tokens
        raise UserError(f"{path} is damaged: {size:,} bytes where its header promises {promised:,}")
    return n_tokens


class Shards:
    """One split of a shard folder as one long array of tokens, memory-mapped. has_mask: whether it holds chats.
    has_pairs: whether documents 2i and 2i + 1 are a better and a worse answer to one prompt."""

    def __init__(self, folder, split):
        self.folder = Path(folder)
        while True:
            self.manifest = read_manifest(folder)
            try:
                self.open(split)
                problem = None
            except (UserError, OSError, ValueError) as error:
                problem = error
            if read_manifest(folder) == self.manifest:
                break  # else prepare_data.py has put new shards into their place in between
        if problem:
            raise UserError(f"{problem}{how_to_make_again(self.folder, self.manifest)}")

    def open(self, split):
        """Map the files of the manifest. Raises UserError for one that is not as the manifest says."""
        self.files = files = [f for f in self.manifest["files"] if f["split"] == split]
        self.key = files[0]["sha256"][:16] if files else ""  # names the data by its first file, wherever it lies
        self.has_mask = any("mask" in entry for entry in files)
        self.has_pairs = self.manifest.get("pairs") is True
        self.parts, self.masks = [], []
        for entry in files:
            path = self.folder / entry["name"]
            if not path.exists():
                raise UserError(f"{path} is missing")
            if read_header(path) != entry["tokens"]:
                raise UserError(f"{path} is not the file that the manifest describes")
            self.parts.append(mapped(path, "<u2", HEADER_BYTES))
            if self.has_mask:
                if not mask_path(path).exists() or mask_path(path).stat().st_size != entry["tokens"]:
                    raise UserError(f"{mask_path(path)} does not fit its shard")
                self.masks.append(mapped(mask_path(path), np.uint8))
        self.starts = np.cumsum([0] + [len(part) for part in self.parts])

    def __len__(self):
        return int(self.starts[-1])

    def tokens(self, start, count) -> np.ndarray:
        """Tokens [start, start + count) as int64, fewer at the end."""
        return self.span(self.parts, start, count)

    def mask(self, start, count) -> np.ndarray:
        """For the same tokens 1 where they count in the loss, else 0, int64. In documents all of them count."""
        if self.has_mask:
            return self.span(self.masks, start, count)
        return np.ones(min(count, len(self) - start), np.int64)

    def span(self, parts, start, count):
        """Elements [start, start + count) of the long array that the parts are pieces of."""
        pieces = []
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        for part, part_start in zip(parts[first:], self.starts[first:]):
            if part_start >= start + count:
                break
            pieces.append(part[max(0, start - part_start) : start + count - part_start])
        return np.concatenate(pieces).astype(np.int64) if pieces else np.zeros(0, np.int64)

    def sha256(self):
        """The sha256 of what these shards hold, from those that the manifest gives their files."""
        digests = [file["sha256"] for entry in self.files for file in files_of(entry)]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def documents(self, eot):
        """(first token of each document, its length), two int64 arrays. Token eot opens them; every token is read."""
        found = [np.flatnonzero(part == eot) + start for part, start in zip(self.parts, self.starts)]
        starts = np.concatenate(found) if found else np.zeros(0, np.int64)
        return starts, np.diff(np.append(starts, len(self)))

    def verify(self):
        """Compare every file of the folder, those of the other split too, with the manifest's sha256. Raises UserError
        naming the first that differs."""
        for entry in tqdm(self.manifest["files"], desc="verifying shards", unit="file", leave=False, delay=2):
            for file in files_of(entry):
                path = self.folder / file["name"]
                if not path.exists() or sha256_file(path) != file["sha256"]:
                    again = how_to_make_again(self.folder, self.manifest)
                    raise UserError(f"{path} is damaged: its sha256 is not the manifest's{again}")


def mapped(path, dtype, offset=0):
    """What a file holds from an offset on, memory-mapped."""
    if path.stat().st_size == offset:
        return np.zeros(0, dtype)  # nothing: mmap refuses that
    return np.memmap(path, dtype, "r", offset)


# -- the manifest


def read_manifest(folder):
    """manifest.json of a shard folder. Raises UserError where there is none, or where it is damaged."""
    path = Path(folder) / "manifest.json"
    if not path.exists():
        raise UserError(f"no shards in {folder}{how_to_make_again(folder, None)}")
    manifest = None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        check_manifest(manifest)
        return manifest
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        what = str(error)
    except KeyError as error:
        what = f"it has no {error}"
    raise UserError(f"{path} is damaged ({what[:200]}){how_to_make_again(folder, manifest)}")


def check_manifest(manifest):
    """Raises ValueError, TypeError, AttributeError or KeyError if a manifest has not the shape that prepare_data.py
    gives it, or if it names a file outside its folder."""
    if not isinstance(manifest["tokenizer"], str) or not isinstance(manifest["files"], list):
        raise ValueError("tokenizer must be text, files a list")
    names = []
    for entry in manifest["files"]:
        if entry["split"] not in ("train", "val"):
            raise ValueError(f"a split named {entry['split']!r}")
        check_number("tokens", entry["tokens"])
        if entry["size"] != HEADER_BYTES + 2 * entry["tokens"]:
            raise ValueError(f"{entry['tokens']} tokens in {entry['size']} bytes")
        for file in files_of(entry):
            names.append(PurePosixPath(file["name"]))
            if not names[-1].name or names[-1].is_absolute() or ".." in names[-1].parts or "\0" in file["name"]:
                raise ValueError(f"{file['name']!r} is no name of a file in the folder")
            os.fsencode(file["name"])
            if not re.fullmatch("[0-9a-f]{64}", file["sha256"]):
                raise ValueError(f"{file['sha256']!r} is no sha256")
        if "mask" in entry and names[-1] != mask_path(names[-2]):
            raise ValueError(f"{names[-1]} is no mask of {names[-2]}")
    if len(set(names)) < len(names):
        raise ValueError("it names a file twice")
    for split in manifest.get("splits", {}).values():
        for name, number in split.items():
            check_number(name, number)


def check_number(name, value):
    """Raises ValueError for what cannot be a number of tokens, bytes or documents."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} is {value!r}")


def how_to_make_again(folder, manifest):
    """The end of a message about a damaged folder: ": run `...`", the command by which it was made, where its manifest
    holds one that can be typed as it stands and makes this folder. manifest: None where there is none."""
    with contextlib.suppress(KeyError, TypeError):  # no manifest, or a damaged one
        made_with, made_for = manifest["made_by"]["command"], manifest["settings"]["out_dir"]
        if re.fullmatch(PLAIN_COMMAND, made_with) and name_of(made_for) == name_of(folder):
            return f": run `python {made_with}` again"
    return how_to_make(folder, f"python prepare_data.py --sources=YOUR_TEXT --out_dir={folder}")


def load_tokenizer(folders):
    """The tokenizer of shard folders. Raises UserError where they were made by different ones."""
    tokenizers = {}
    for folder in folders:
        manifest = read_manifest(folder)
        made_with, hint = manifest["tokenizer"], partial(how_to_make_again, folder, manifest)
        tokenizers[folder] = Tokenizer.load(tokenizer_path(folder, manifest), hint)
        if made_with != tokenizers[folder].fingerprint:
            raise UserError(
                f"the shards in {folder} were made by tokenizer {made_with}, not by its tokenizer.json{hint()}"
            )
    (first, one), *others = tokenizers.items()
    for folder, other in others:
        if other.fingerprint != one.fingerprint:
            raise UserError(
                f"{first} and {folder} were made by different tokenizers ({one.fingerprint}, {other.fingerprint})"
            )
    return one


def tokenizer_path(folder, manifest):
    """Where the tokenizer of a folder's shards lies: beside them."""
    first = manifest["files"][0]["name"] if manifest["files"] else "none"
    return Path(folder, first).with_name("tokenizer.json")


# -- shards that other programs wrote


def describe_foreign(folder, tokenizer):
    """[(manifest entry, [documents, bytes, tokens, counted])] of the shards *train*.bin and *val*.bin in a folder that
    llm.c or modded-nanogpt has written, made with a tokenizer whose ids are tokenizer's."""
    described = []
    paths = [path for path in sorted(Path(folder).glob("*.bin")) if not path.name.endswith(".mask.bin")]
    for path in tqdm(paths, desc="reading shards", unit="file"):
        if "train" not in path.name and "val" not in path.name:
            raise UserError(f"{path} is neither a train nor a val shard by its name")
        split = "train" if "train" in path.name else "val"
        n_tokens = read_header(path)
        if n_tokens == 0:
            raise UserError(f"{path} holds no tokens")
        tokens = mapped(path, "<u2", HEADER_BYTES)
        counts = np.bincount(tokens, minlength=tokenizer.vocab_size)
        if len(counts) > tokenizer.vocab_size:
            raise UserError(f"{path} holds token {len(counts) - 1}, outside the tokenizer's {tokenizer.vocab_size:,}")
        entry = {"split": split, "name": path.name, "tokens": n_tokens, **file_entry(path)}
        n_documents, n_bytes = int(counts[tokenizer.eot]), int(counts @ tokenizer.byte_lengths())
        described.append((entry, [n_documents, n_bytes, n_tokens, n_tokens]))
    return described
