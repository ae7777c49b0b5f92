"""Near-duplicates, side by side: this repository, datasketch and datatrove on the same files.

    pip install datasketch datatrove tokenizers "xxhash<4"
    python -m experiments.dedup_speed --source=DIR
    python -m experiments.dedup_speed --documents=1e6    time and memory alone

All three use 5-grams of the same words and 14 bands of 8 rows (datatrove's default) in one process.
Measured is the time from texts in memory to clusters. Only this repository compares the pairs that
it finds by their true similarity, and its time includes that.
"""

import needs  # noqa: F401

import re
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

import configurator
from cleaning import dedup, hashing
from cleaning.chunks import DOCUMENT
from cleaning.view import View
from configurator import UserError
from corpus.documents import Document, read
from corpus.records import optional
from experiments.common import print_table
from ranges import Natural, Positive

BANDS, ROWS, THRESHOLD = 14, 8, 0.7


@dataclass
class Settings:
    """What to deduplicate."""

    # -- documents
    source: str = "stdlib"  # the files
    megabytes: Positive = 20.0  # of text to take from them
    # instead: cluster so many made-up documents, one in ten of them a copy, and measure the memory
    documents: Natural = 0
    # -- results
    json: str = ""  # write the results here too


def main(settings):
    """Compare the three on files, or measure the memory that this repository needs."""
    if settings.documents:
        return measure_memory(settings.documents)
    texts, size = [], 0
    for item in read(settings.source):
        if isinstance(item, Document) and size < settings.megabytes * 1e6:
            texts.append(item.text)
            size += len(item.text.encode())
    if not texts:
        raise UserError(f"no documents in {settings.source}")
    texts += [text.replace("self", "this") + "\n# a copy\n" for text in texts[::10]]  # something to find
    size = sum(len(text.encode()) for text in texts)
    results, rows = {}, []
    for name, count_kept in (("WizardLearner", ours), ("datasketch", with_datasketch), ("datatrove", with_datatrove)):
        start = time.perf_counter()
        n_kept = count_kept(texts)
        seconds = time.perf_counter() - start
        results[name] = {"seconds": seconds, "kept": n_kept}
        relative = results["WizardLearner"]["seconds"] / seconds
        rows.append([name, f"{seconds:.1f}", f"{size / 1e6 / seconds:.2f}", f"{relative:.3f}", f"{n_kept:,}"])
    print(f"{len(texts):,} documents, {size / 1e6:.1f} MB, {BANDS} bands of {ROWS}, one process\n")
    print_table(["", "seconds", "MB/s", "relative", "kept"], rows, "<>>>>")
    if settings.json:
        about = {"bytes": size, "documents": len(texts), "made_by": configurator.made_by()}
        configurator.write_json(settings.json, {"results": results, **about})


def ours(texts):
    """Deduplicate as prepare_data.py does; how many texts remain."""
    sets = [hashing.shingles(View(text).fivegrams) for text in tqdm(texts, desc="WizardLearner", leave=False)]
    signatures = [hashing.signature(shingles, BANDS * ROWS) for shingles in sets]
    bands = np.stack([hashing.band_keys(signature, BANDS, ROWS) for signature in signatures])
    digests = np.stack([hashing.exact_digest(text) for text in texts])
    sizes = np.array([len(shingles) for shingles in sets])

    def verify(pairs):
        """Whether the similarity of each pair reaches the threshold."""
        return np.array([dedup.jaccard(sets[a], sets[b]) >= THRESHOLD for a, b in pairs])

    clusters = dedup.exact_clusters(digests, dedup.Clusters(len(texts)))
    dedup.near_clusters(lambda i: bands[:, i], BANDS, sizes, digests, verify, THRESHOLD, clusters)
    return len(np.unique(clusters.roots(np.arange(len(texts)))))


def words(text):
    """The words of which the other two make 5-grams."""
    return re.findall(r"[a-z0-9_]+|[^\x00-\x7f]", text.lower())


def with_datasketch(texts):
    """Deduplicate with datasketch's MinHashLSH; how many texts remain."""
    datasketch = optional("datasketch", "comparisons")
    lsh = datasketch.MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    clusters = dedup.Clusters(len(texts))
    for i, text in enumerate(tqdm(texts, desc="datasketch", leave=False)):
        found = words(text)
        minhash = datasketch.MinHash(num_perm=BANDS * ROWS)
        minhash.update_batch({" ".join(found[k : k + 5]).encode() for k in range(len(found) - 4)})
        clusters.union((i, j) for j in lsh.query(minhash))
        lsh.insert(i, minhash)
    return len(np.unique(clusters.roots(np.arange(len(texts)))))


def with_datatrove(texts):
    """Deduplicate with datatrove's four MinHash steps; how many texts remain."""
    optional("datatrove", "comparisons")
    from datatrove.data import Document as TroveDocument
    from datatrove.pipeline.dedup import minhash
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):
        """Stands for the language whose words datatrove would look for."""

        word_tokenize = staticmethod(words)
        sent_tokenize = span_tokenize = None

    Words.__abstractmethods__ = frozenset()
    config = minhash.MinhashConfig(n_grams=5, num_buckets=BANDS, hashes_per_bucket=ROWS)
    documents = (TroveDocument(text, str(i)) for i, text in enumerate(tqdm(texts, desc="datatrove", leave=False)))
    with tempfile.TemporaryDirectory() as folder:
        signatures, buckets, remove = f"{folder}/signatures", f"{folder}/buckets", f"{folder}/remove"
        minhash.MinhashDedupSignature(signatures, config, language=Words()).run(documents, 0, 1)
        for bucket in range(BANDS):
            minhash.MinhashDedupBuckets(signatures, buckets, config=config).run(None, bucket, BANDS)
        minhash.MinhashDedupCluster(buckets, remove, config=config).run(None, 0, 1)
        n_removed = sum(path.stat().st_size // 4 for path in Path(remove).glob("*.remove"))
    return len(texts) - n_removed


def measure_memory(n):
    """Print time and memory of seeking duplicates among n documents: what chunks.Chunks and to_shards.choose_kept() do
    and hold in memory, with the signatures on disk."""
    rng, n_bands = np.random.default_rng(0), dedup.banding(THRESHOLD)[0]
    copies = rng.permutation(n)[: n // 10]
    with tempfile.TemporaryDirectory() as folder:
        for i in range(n_bands):  # a copy has the keys of the document before it
            keys = rng.integers(0, 2**63, n, dtype=np.uint64)
            keys[copies] = keys[copies - 1]
            keys.tofile(f"{folder}/{i}")
        del keys

        def band(i):
            """The keys of one band, from its file."""
            return np.memmap(f"{folder}/{i}", np.uint64, "r")

        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        documents = np.zeros(n, DOCUMENT)
        documents["digest"], documents["shingles"] = rng.integers(0, 2**63, (n, 2), dtype=np.uint64), 100
        sizes, digests = documents["shingles"], documents["digest"]
        clusters = dedup.exact_clusters(digests, dedup.Clusters(n))
        dedup.near_clusters(band, n_bands, sizes, digests, lambda pairs: np.ones(len(pairs), bool), THRESHOLD, clusters)
        n_copies = np.count_nonzero(dedup.choose(clusters, lambda i: i) != np.arange(n))
    seconds = time.perf_counter() - start
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024  # ru_maxrss: the peak, in KB
    print(f"{n:,} documents, {n_copies:,} copies found in {seconds:.0f} s; ", end="")
    print(f"memory {megabytes:.0f} MB, signatures on disk {n * n_bands * 8 / 1e6:.0f} MB")


if __name__ == "__main__":
    configurator.run(main, Settings)
