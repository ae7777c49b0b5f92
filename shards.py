"""The token files, and the only code that knows their format.

data/<name>/train_000000.bin   a header of 256 int32 (20240520, 1, number of tokens), then uint16 tokens: the
                               format of llm.c and modded-nanogpt, so files made for those load here and back
data/<name>/manifest.json      what is in them: counts per source and split, size and sha256 of every file
data/<name>/tokenizer.json     the tokenizer that made them

<|endoftext|> opens every document and closes none.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from configurator import UserError
from tokenizer import Tokenizer

MAGIC, VERSION, HEADER_BYTES = 20240520, 1, 1024


def header(n_tokens):
    fields = np.zeros(HEADER_BYTES // 4, dtype="<i4")
    fields[:3] = MAGIC, VERSION, n_tokens
    return fields.tobytes()


class ShardWriter:
    """Writes one file beside its final name and renames it when it is whole, so no half-written file is ever read."""

    def __init__(self, path):
        self.path, self.beside = Path(path), Path(f"{path}.tmp")
        self.n_tokens = 0
        self.file = open(self.beside, "wb")
        self.file.write(header(0))

    def write(self, tokens: np.ndarray):
        self.file.write(tokens.astype("<u2", copy=False).tobytes())
        self.n_tokens += len(tokens)

    def close(self):
        """Finish the file; {name, tokens, size, sha256} for the manifest, or None if nothing was written."""
        if self.n_tokens == 0:
            self.abort()
            return None
        self.file.seek(0)
        self.file.write(header(self.n_tokens))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        os.replace(self.beside, self.path)
        return {
            "name": self.path.name,
            "tokens": self.n_tokens,
            "size": self.path.stat().st_size,
            "sha256": sha256_file(self.path),
        }

    def abort(self):
        self.file.close()
        self.beside.unlink(missing_ok=True)


def sha256_file(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_header(path):
    """Number of tokens in a shard. Raises UserError for a bad header or a file of another length than it says."""
    with open(path, "rb") as f:
        fields = np.frombuffer(f.read(HEADER_BYTES), dtype="<i4")
    if len(fields) < HEADER_BYTES // 4 or fields[0] != MAGIC or fields[1] != VERSION:
        raise UserError(f"{path} is not a token shard: its header is wrong")
    n_tokens, size = int(fields[2]), os.path.getsize(path)
    if size != HEADER_BYTES + 2 * n_tokens:
        raise UserError(f"{path} is damaged: {size:,} bytes where its header promises {HEADER_BYTES + 2 * n_tokens:,}")
    return n_tokens


class Shards:
    """One split of a shard folder as one long array of tokens, memory-mapped."""

    def __init__(self, folder, split):
        self.folder, self.manifest = Path(folder), read_manifest(folder)
        files = [f for f in self.manifest["files"] if f["split"] == split]
        self.parts = []
        for entry in files:
            path = self.folder / entry["name"]
            if not path.exists():
                raise UserError(f"{path} is missing: run prepare_data.py again")
            if read_header(path) != entry["tokens"]:
                raise UserError(f"{path} is not the file that the manifest describes: run prepare_data.py again")
            self.parts.append(np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES))
        self.starts = np.cumsum([0] + [len(part) for part in self.parts])

    def __len__(self):
        return int(self.starts[-1])

    def tokens(self, start, count) -> np.ndarray:
        """Tokens [start, start + count) as int64, fewer at the end."""
        pieces = []
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        for part, part_start in zip(self.parts[first:], self.starts[first:]):
            if part_start >= start + count:
                break
            pieces.append(part[max(0, start - part_start) : start + count - part_start])
        return np.concatenate(pieces).astype(np.int64) if pieces else np.zeros(0, np.int64)

    def verify(self):
        """Compare every file with the manifest's sha256. Raises UserError naming the first that differs."""
        for entry in tqdm(self.manifest["files"], desc="verifying shards", unit="file", leave=False, delay=2):
            if sha256_file(self.folder / entry["name"]) != entry["sha256"]:
                raise UserError(
                    f"{self.folder / entry['name']} is damaged: its sha256 is not the manifest's; "
                    "run prepare_data.py again"
                )


def read_manifest(folder):
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
    """(manifest entry, [documents, bytes, tokens]) of shards written by llm.c or modded-nanogpt: *train*.bin, *val*.bin."""
    described = []
    for path in tqdm(sorted(Path(folder).glob("*.bin")), desc="reading shards", unit="file"):
        split = next((split for split in ("train", "val") if split in path.name), None)
        if split is None:
            raise UserError(f"{path} is neither a train nor a val shard by its name")
        n_tokens = read_header(path)
        counts = np.bincount(
            np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES), minlength=tokenizer.vocab_size
        )
        if len(counts) > tokenizer.vocab_size:
            raise UserError(f"{path} holds token {len(counts) - 1}, outside the tokenizer's {tokenizer.vocab_size:,}")
        entry = {
            "split": split,
            "name": path.name,
            "tokens": n_tokens,
            "size": path.stat().st_size,
            "sha256": sha256_file(path),
        }
        described.append((entry, [int(counts[tokenizer.eot]), int(counts @ tokenizer.byte_lengths()), n_tokens]))
    return described
