"""What lies between the first pass over documents and the shards: chunks of cleaned documents on disk.

The first pass cleans, tokenizes and signs documents and writes them in chunks; then duplicates are sought across all
chunks, from their signatures; then the tokens of the documents that are kept become shards, shard n from chunk n.
Memory holds one record per document (DOCUMENT) and one band of signatures. Everything else stays on disk:

    chunks/000000.tokens     uint16, each document opened by <|endoftext|>
    chunks/000000.mask       uint8, chats only: 1 for each token that counts in the loss
    chunks/000000.shingles   uint32, the sets of n-grams from which true similarities are counted
    chunks/000000.bands      uint64 (bands, documents), the signatures: see hashing.band_keys()
    chunks/000000.documents  a DOCUMENT per document
    chunks/000000.meta       a JSON line per document: source, where, repository, and what decides which copy is kept
    chunks/000000.dropped    a JSON line per document that the first pass dropped
    chunks/progress.json     what has been finished with which settings; the files have the sha256 that it names
    chunks/ordered/          with --order: the documents that are kept as chunks once more, see order.py
    chunks/shards/           the new shards and what describes them, until all of it is whole
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from shards import WholeFile, sha256_file

DOCUMENT = np.dtype(
    [
        ("tokens", "<u4"),  # with the <|endoftext|> that opens the document
        ("counted", "<u4"),  # those of them that count in the loss
        ("bytes", "<u4"),  # of the text
        ("shingles", "<u4"),
        ("meta", "<u4"),  # bytes of its line in .meta
        ("source", "<u4"),  # number of the source
        ("gaps", "u1"),  # 1 if it became a gap to fill
        ("split", "<u8"),  # the leading bits of the text's sha256, or of a pair's prompt's: low ones are validation
        ("digest", "<u8", 2),  # hashing.exact_digest()
    ]
)
STREAMS = ("tokens", "mask", "shingles", "documents", "meta", "dropped")
EXAMPLES = 3  # dropped documents that the report shows per rule


@dataclass
class Counts:
    """What the first pass reads, drops and replaces. The order in which counts are added up changes nothing in them.

    It holds dicts, lists and numbers only: asdict(counts) can be saved as JSON, Counts(**loaded) brings it back."""

    read: dict = field(default_factory=dict)  # {source: {"documents", "raw_bytes", "bytes", "tokens"}}
    drops: dict = field(default_factory=dict)  # {source: {step: {rule: {"documents", "bytes", "tokens"}}}}
    replaced: dict = field(default_factory=dict)  # {"email": 3, "ip": 1}
    retrieved: dict = field(default_factory=dict)  # {"neighbours": 30, "distractors": 10}: texts put before requests
    # {rule: [[sha256 of the text, id, detail, beginning of the text], ...]}: the EXAMPLES with the lowest sha256, which
    # is a random sample that depends on the texts alone
    examples: dict = field(default_factory=dict)
    closest: dict = field(default_factory=dict)  # {problem: [highest similarity, id of the document]}

    def add(self, other):
        """Add another's counts to these."""
        add(self.read, other.read)
        add(self.drops, other.drops)
        add(self.replaced, other.replaced)
        add(self.retrieved, other.retrieved)
        for rule, examples in other.examples.items():
            self.add_examples(rule, examples)
        for problem, (similarity, where) in other.closest.items():
            self.add_closest(problem, similarity, where)

    def add_examples(self, rule, examples):
        """Keep those dropped documents that are among the EXAMPLES with the lowest sha256."""
        self.examples[rule] = sorted(self.examples.get(rule, []) + examples)[:EXAMPLES]

    def add_closest(self, problem, similarity, where):
        """Keep a document that comes closer to a benchmark problem than those before."""
        self.closest[problem] = max(self.closest.get(problem, [0.0, ""]), [similarity, where])


def add(total, more):
    """Add the numbers of a nested dict to another's: {"a": {"x": 1}} and {"a": {"x": 2, "y": 1}} make {"a": {"x": 3,
    "y": 1}}."""
    for key, value in more.items():
        if isinstance(value, dict):
            add(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value


class ChunkWriter:
    """One chunk being written. Its files get their final names when close() is called."""

    def __init__(self, folder, number):
        self.base = Path(folder) / f"{number:06d}"
        self.bands, self.counts = [], Counts()
        self.files = {name: WholeFile(f"{self.base}.{name}") for name in (*STREAMS, "bands")}

    def add(self, surveyed):
        """Append the documents of a batch, a clean.Surveyed."""
        for name in STREAMS:
            self.files[name].write(surveyed.streams[name])
        self.bands += surveyed.bands
        self.counts.add(surveyed.counts)

    def append(self, document, tokens):
        """Append a DOCUMENT that has been cleaned before, and its tokens: without what duplicates are sought by."""
        document = document.copy()
        document["shingles"] = document["meta"] = 0
        self.files["documents"].write(document.tobytes())
        self.files["tokens"].write(tokens.tobytes())

    def close(self):
        """Finish the files. Returns what Chunks needs to know of them, as JSON can hold it."""
        bands = np.array(self.bands, np.uint64).T
        self.files["bands"].write(np.ascontiguousarray(bands).tobytes())
        for file in self.files.values():
            file.close()
        digests = {name: sha256_file(file.path) for name, file in self.files.items()}
        n_documents = self.files["documents"].path.stat().st_size // DOCUMENT.itemsize
        about = {"documents": n_documents, "bands": len(bands), "counts": asdict(self.counts)}
        return {"name": self.base.name, "sha256": digests, **about}

    def abort(self):
        """Close and delete the unfinished files."""
        for file in self.files.values():
            file.abort()


def is_whole(folder, entry):
    """Whether the files of a chunk are those that ChunkWriter.close() wrote. Raises OSError where one is missing."""
    name = entry["name"]
    return all(sha256_file(Path(folder, f"{name}.{stream}")) == sha for stream, sha in entry["sha256"].items())


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
        """Where each document's part begins in its chunk's file of that name, int64 (documents,)."""
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

    def metas(self):
        """Yield meta(i) of all documents in their order."""
        for entry in self.entries:
            with open(self.folder / f"{entry['name']}.meta", "rb") as lines:
                yield from map(json.loads, lines)

    def meta(self, i):
        """What is known of document i: source, where, and stars, date, path and repo where its record has them."""
        entry = self.entries[self.chunk_of(i)]
        with open(self.folder / f"{entry['name']}.meta", "rb") as file:
            file.seek(int(self.meta_starts[i]))
            return json.loads(file.readline())

    @cached_property
    def token_places(self):
        """(the chunks' files of tokens, memory-mapped; where each document begins in its file), for tokens()."""
        return [self.array(entry, "tokens", "<u2") for entry in self.entries], self.offsets("tokens")

    def tokens(self, i):
        """The tokens of document i, without the <|endoftext|> that opens it, uint16."""
        maps, starts = self.token_places
        return maps[self.chunk_of(i)][starts[i] + 1 : starts[i] + self.documents["tokens"][i]]

    def counts(self):
        """The Counts of all chunks together."""
        total = Counts()
        for entry in self.entries:
            total.add(Counts(**entry["counts"]))
        return total


def split_number(text):
    """64 bits of the sha256 of a text or a name: DOCUMENT's split, by which Settings.is_val() chooses."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])
