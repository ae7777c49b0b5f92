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
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from configurator import UserError
from tokenizer import Tokenizer

MAGIC, VERSION, HEADER_BYTES = 20240520, 1, 1024


@contextlib.contextmanager
def exclusive(folder):
    """While this lasts no other process gets past its own exclusive(folder): UserError there. The folder is made if need
    be, and goes again if nothing came into it.

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
    """Lock an open folder. Raises UserError if another process holds it for longer than a second: forked workers of a
    run that was killed hold its lock too, until they have noticed."""
    end = time.monotonic() + 1
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


class ShardWriter:
    """Writes one shard, and the mask of a shard of chats, beside their final names and renames them when they are
    whole, so that no half-written file is ever read. A full disk is an OSError; then call abort()."""

    def __init__(self, path, masked=False):
        self.path, self.beside = Path(path), Path(f"{path}.tmp")
        self.n_tokens = 0
        self.file = open(self.beside, "wb")
        self.file.write(header(0))
        self.mask_beside = Path(f"{mask_path(self.path)}.tmp")
        self.mask = open(self.mask_beside, "wb") if masked else None

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
        self.file.seek(0)
        self.file.write(header(self.n_tokens))
        finish(self.file, self.beside, self.path)
        entry = {"name": self.path.name, "tokens": self.n_tokens, **file_entry(self.path)}
        if self.mask:
            finish(self.mask, self.mask_beside, mask_path(self.path))
            entry["mask"] = {"name": mask_path(self.path).name, **file_entry(mask_path(self.path))}
        return entry

    def abort(self):
        """Leave nothing behind."""
        for file, beside in ((self.file, self.beside), (self.mask, self.mask_beside)):
            if file:
                file.close()
                beside.unlink(missing_ok=True)


def mask_path(path):
    """Where the loss mask of a shard lies."""
    return path.with_suffix(".mask.bin")


def files_of(entry):
    """The files that an entry of the manifest describes: the shard, and its mask where it has one."""
    return [entry, entry["mask"]] if "mask" in entry else [entry]


def finish(file, beside, path):
    """Close a whole file and give it its name."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
    os.replace(beside, path)


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
        raise UserError(f"{path} is damaged: {size:,} bytes where its header promises {HEADER_BYTES + 2 * n_tokens:,}")
    return n_tokens


class Shards:
    """One split of a shard folder as one long array of tokens, memory-mapped. has_mask: whether it holds chats."""

    def __init__(self, folder, split):
        self.folder, self.manifest = Path(folder), read_manifest(folder)
        files = [f for f in self.manifest["files"] if f["split"] == split]
        self.key = files[0]["sha256"][:16] if files else ""  # names the data by its first file, wherever it lies
        self.files = files
        self.has_mask = any("mask" in entry for entry in files)
        self.parts, self.masks = [], []
        for entry in files:
            path = self.folder / entry["name"]
            if not path.exists():
                raise UserError(f"{path} is missing: run prepare_data.py again")
            if read_header(path) != entry["tokens"]:
                raise UserError(f"{path} is not the file that the manifest describes: run prepare_data.py again")
            self.parts.append(np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES))
            if self.has_mask:
                if not mask_path(path).exists() or mask_path(path).stat().st_size != entry["tokens"]:
                    raise UserError(f"{mask_path(path)} does not fit its shard: run prepare_data.py again")
                self.masks.append(np.memmap(mask_path(path), dtype=np.uint8, mode="r"))
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
        """Compare every file with the manifest's sha256. Raises UserError naming the first that differs."""
        for entry in tqdm(self.manifest["files"], desc="verifying shards", unit="file", leave=False, delay=2):
            for file in files_of(entry):
                if sha256_file(self.folder / file["name"]) != file["sha256"]:
                    raise UserError(
                        f"{self.folder / file['name']} is damaged: its sha256 is not the manifest's; "
                        "run prepare_data.py again"
                    )


def read_manifest(folder):
    """manifest.json of a shard folder. Raises UserError where there is none, or where it is damaged."""
    path = Path(folder) / "manifest.json"
    if not path.exists():
        raise UserError(f"no shards in {folder}: run prepare_data.py --out_dir={folder} first")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["files"], manifest["tokenizer"]
        return manifest
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: run prepare_data.py again") from None


def load_tokenizer(folders):
    """The tokenizer of shard folders. Raises UserError where they were made by different ones."""
    tokenizers = {}
    for folder in folders:
        made_with = read_manifest(folder)["tokenizer"]
        tokenizers[folder] = Tokenizer.load(Path(folder) / "tokenizer.json")
        if made_with != tokenizers[folder].fingerprint:
            raise UserError(f"the shards in {folder} were made by tokenizer {made_with}, not by its tokenizer.json")
    (first, one), *others = tokenizers.items()
    for folder, other in others:
        if other.fingerprint != one.fingerprint:
            raise UserError(
                f"{first} and {folder} were made by different tokenizers ({one.fingerprint}, {other.fingerprint})"
            )
    return one


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
        tokens = np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES)
        counts = np.bincount(tokens, minlength=tokenizer.vocab_size)
        if len(counts) > tokenizer.vocab_size:
            raise UserError(f"{path} holds token {len(counts) - 1}, outside the tokenizer's {tokenizer.vocab_size:,}")
        entry = {"split": split, "name": path.name, "tokens": n_tokens, **file_entry(path)}
        n_documents, n_bytes = int(counts[tokenizer.eot]), int(counts @ tokenizer.byte_lengths())
        described.append((entry, [n_documents, n_bytes, n_tokens, n_tokens]))
    return described
