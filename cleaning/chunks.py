"""What lies between the first pass over documents and the shards: chunks of cleaned documents on disk.

The first pass cleans, tokenizes and signs documents and writes them in chunks; then duplicates are sought across all
chunks, from their signatures; then the tokens of the documents that are kept become shards, chunk n shard n. Memory
holds one record per document (DOCUMENT) and one band of signatures; everything else stays on disk:

    chunks/000000.tokens     uint16, each document opened by <|endoftext|>
    chunks/000000.mask       uint8, chats only: 1 for each token that counts in the loss
    chunks/000000.shingles   uint32, the sets of n-grams from which true similarities are counted
    chunks/000000.bands      uint64 (bands, documents), the signatures: see dedup.py
    chunks/000000.documents  a DOCUMENT per document
    chunks/000000.meta       a JSON line per document: source, where, and what decides which copy is kept
    chunks/000000.dropped    a JSON line per document that the first pass dropped
"""

import json
import os
from pathlib import Path

import numpy as np

DOCUMENT = np.dtype(
    [
        ("tokens", "<u4"),  # with the <|endoftext|> that opens the document
        ("counted", "<u4"),  # those of them that count in the loss
        ("bytes", "<u4"),  # of the text
        ("shingles", "<u4"),
        ("meta", "<u4"),  # bytes of its line in .meta
        ("source", "<u4"),  # number of the source
        ("split", "<u8"),  # the leading bits of the text's sha256: below val_fraction it is validation
        ("digest", "<u8", 2),  # dedup.exact_digest
    ]
)
STREAMS = ("tokens", "mask", "shingles", "documents", "meta", "dropped")


class ChunkWriter:
    """One chunk being written. Its files get their final names when close() is called; until then they end in .tmp."""

    def __init__(self, folder, number):
        self.base = Path(folder) / f"{number:06d}"
        self.bands = []
        self.files = {name: open(f"{self.base}.{name}.tmp", "wb") for name in (*STREAMS, "bands")}

    def add(self, surveyed):
        """Append the documents of a batch, a clean.Surveyed."""
        for name in STREAMS:
            self.files[name].write(getattr(surveyed, name))
        self.bands += surveyed.bands

    def close(self):
        """Finish the files. Returns the chunk's entry for progress.json: name, documents, bands, sizes of the files."""
        bands = np.array(self.bands, np.uint64).T
        self.files["bands"].write(np.ascontiguousarray(bands).tobytes())
        sizes = {}
        for name, file in self.files.items():
            file.flush()
            os.fsync(file.fileno())
            sizes[name] = file.tell()
            file.close()
            os.replace(f"{self.base}.{name}.tmp", f"{self.base}.{name}")
        n_documents = sizes["documents"] // DOCUMENT.itemsize
        return {"name": self.base.name, "documents": n_documents, "bands": len(bands), "sizes": sizes}

    def abort(self):
        """Close and delete the unfinished files."""
        for name, file in self.files.items():
            file.close()
            Path(f"{self.base}.{name}.tmp").unlink(missing_ok=True)


def is_whole(folder, entry):
    """Whether the files of a chunk's entry are there and have their sizes."""
    for name, size in entry["sizes"].items():
        path = Path(folder) / f"{entry['name']}.{name}"
        if not path.exists() or path.stat().st_size != size:
            return False
    return True


class Chunks:
    """All chunks of a folder as one numbered list of documents. entries: what ChunkWriter.close() returned for each."""

    def __init__(self, folder, entries):
        self.folder, self.entries = Path(folder), entries
        self.starts = np.cumsum([0] + [entry["documents"] for entry in entries])
        parts = [self.array(entry, "documents", DOCUMENT) for entry in entries]
        self.documents = np.concatenate([np.zeros(0, DOCUMENT), *parts])
        self.n_bands = max((entry["bands"] for entry in entries), default=0)
        self.shingle_maps = [self.array(entry, "shingles", "<u4") for entry in entries]
        self.shingle_starts, self.meta_starts = self.offsets("shingles"), self.offsets("meta")

    def __len__(self):
        return len(self.documents)

    def array(self, entry, name, dtype):
        """One file of a chunk, memory-mapped."""
        path = self.folder / f"{entry['name']}.{name}"
        return np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)

    def slice_of(self, chunk):
        """The slice of the numbered list that a chunk's documents make up."""
        return slice(self.starts[chunk], self.starts[chunk + 1])

    def offsets(self, name):
        """Where each document's part of a stream begins in its chunk's file, int64 (documents,)."""
        found = np.zeros(len(self), np.int64)
        for chunk in range(len(self.entries)):
            sizes = self.documents[name][self.slice_of(chunk)].astype(np.int64)
            found[self.slice_of(chunk)] = np.cumsum(sizes) - sizes
        return found

    def chunk_of(self, i):
        """The number of the chunk that holds document i."""
        return int(np.searchsorted(self.starts, i, side="right")) - 1

    def band(self, number):
        """The keys of one band for every document, uint64 (documents,)."""
        parts = []
        for entry in self.entries:
            if entry["documents"]:
                parts.append(self.array(entry, "bands", "<u8").reshape(-1, entry["documents"])[number])
        return np.concatenate(parts)

    def shingles(self, i):
        """The set of n-grams of document i, uint32, sorted."""
        start = self.shingle_starts[i]
        return self.shingle_maps[self.chunk_of(i)][start : start + self.documents["shingles"][i]]

    def meta(self, i):
        """What is known of document i: source, where, and stars, date and path where its record has them."""
        entry = self.entries[self.chunk_of(i)]
        with open(self.folder / f"{entry['name']}.meta", "rb") as file:
            file.seek(int(self.meta_starts[i]))
            return json.loads(file.readline())

    def tokens(self, i):
        """The tokens of document i, without <|endoftext|>, uint16. Slow: for a few documents to look at."""
        start = self.offsets("tokens")[i]
        stream = self.array(self.entries[self.chunk_of(i)], "tokens", "<u2")
        return stream[start + 1 : start + self.documents["tokens"][i]]
