"""What lies between the first pass over documents and the shards: chunks of surveyed documents on disk.

The first pass cleans, tokenizes and signs documents and writes them in chunks; then duplicates are sought across all
chunks, from their signatures; then the tokens of the documents that are kept become shards, chunk n shard n. Memory
holds one entry per document (DOCUMENT) and one band of signatures; everything else stays on disk:

    chunks/000000.tokens     uint16, each document opened by <|endoftext|>; .mask beside it for chats
    chunks/000000.shingles   uint32, the sets of n-grams that true similarities are counted from
    chunks/000000.bands      uint64 (bands, documents)
    chunks/000000.documents  DOCUMENT per document
    chunks/000000.meta       a JSON line per document: source, where, and what decides which copy is kept
    chunks/000000.dropped    a JSON line per document that the first pass dropped
"""

import json
import os
from pathlib import Path

import numpy as np

DOCUMENT = np.dtype(
    [
        ("tokens", "<u4"),
        ("counted", "<u4"),  # those that count in the loss
        ("bytes", "<u4"),
        ("shingles", "<u4"),
        ("source", "<u4"),
        ("split", "<u8"),  # the leading bits of the text's sha256: below val_fraction it is validation
        ("meta", "<u8"),  # where its line begins
        ("digest", "<u8", 2),  # dedup.exact_digest
    ]
)
STREAMS = ("tokens", "mask", "shingles", "meta", "dropped")


class ChunkWriter:
    """One chunk being written. Its files have their final names once close() returns the entry for it."""

    def __init__(self, folder, number):
        self.base, self.documents, self.bands, self.meta_size = Path(folder) / f"{number:06d}", [], [], 0
        self.files = {name: open(f"{self.base}.{name}.tmp", "wb") for name in STREAMS}

    def add(self, survey):
        """survey: what clean.survey() made of a batch."""
        for name in STREAMS:
            self.files[name].write(survey[name])
        documents = survey["documents"]
        documents["meta"] += self.meta_size
        self.meta_size += len(survey["meta"])
        self.documents.append(documents)
        self.bands.append(survey["bands"])

    def close(self):
        arrays = {"documents": np.concatenate(self.documents), "bands": np.concatenate(self.bands).T}
        for name, array in arrays.items():
            self.files[name] = open(f"{self.base}.{name}.tmp", "wb")
            self.files[name].write(np.ascontiguousarray(array).tobytes())
        for name, file in self.files.items():
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(f"{self.base}.{name}.tmp", f"{self.base}.{name}")
        sizes = {name: os.path.getsize(f"{self.base}.{name}") for name in self.files}
        return {"name": self.base.name, "documents": len(arrays["documents"]), "bands": len(arrays["bands"]), "sizes": sizes}  # fmt: skip

    def abort(self):
        for name, file in self.files.items():
            file.close()
            Path(f"{self.base}.{name}.tmp").unlink(missing_ok=True)


def is_whole(folder, entry):
    """Whether the files of an entry are there, with their sizes."""
    paths = {Path(folder) / f"{entry['name']}.{name}": size for name, size in entry["sizes"].items()}
    return all(path.exists() and path.stat().st_size == size for path, size in paths.items())


class Chunks:
    """All chunks of a folder as one numbered list of documents."""

    def __init__(self, folder, entries):
        self.folder, self.entries = Path(folder), entries
        self.starts = np.cumsum([0] + [entry["documents"] for entry in entries])
        self.documents = np.concatenate(
            [self.array(entry, "documents", DOCUMENT) for entry in entries] or [np.zeros(0, DOCUMENT)]
        )
        self.n_bands = entries[0]["bands"] if entries else 0
        self.shingle_maps = [self.array(entry, "shingles", "<u4") for entry in entries]
        ends = np.cumsum(self.documents["shingles"], dtype=np.int64)
        self.shingle_starts = ends - self.documents["shingles"]

    def array(self, entry, name, dtype):
        path = self.folder / f"{entry['name']}.{name}"
        return np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)

    def __len__(self):
        return len(self.documents)

    def chunk_of(self, i):
        return int(np.searchsorted(self.starts, i, side="right")) - 1

    def band(self, number):
        """The keys of one band for every document."""
        parts = [self.array(e, "bands", "<u8").reshape(-1, e["documents"])[number] for e in self.entries if e["documents"]]  # fmt: skip
        return np.concatenate(parts)

    def shingles(self, i):
        chunk = self.chunk_of(i)
        start = self.shingle_starts[i] - self.shingle_starts[self.starts[chunk]]
        return self.shingle_maps[chunk][start : start + self.documents["shingles"][i]]

    def meta(self, i):
        chunk = self.chunk_of(i)
        with open(self.folder / f"{self.entries[chunk]['name']}.meta", "rb") as file:
            file.seek(int(self.documents["meta"][i]))
            return json.loads(file.readline())

    def tokens(self, i):
        """The tokens of a document, without <|endoftext|>."""
        chunk = self.chunk_of(i)
        lengths = self.documents["tokens"][self.starts[chunk] : i + 1].astype(np.int64)
        return self.array(self.entries[chunk], "tokens", "<u2")[int(lengths[:-1].sum()) + 1 : int(lengths.sum())]
