"""Near-duplicates, side by side: this repository, datasketch and datatrove on the same files with the same parameters.

    pip install datasketch datatrove tokenizers "xxhash<4" && python experiments/dedup_speed.py --source=DIR
    python experiments/dedup_speed.py --documents=1000000      time and memory of the clustering of so many documents

5-grams of the same words, 14 bands of 8 rows (datatrove's default), one process each, from texts in memory to clusters. Only
this repository verifies its candidates by their true similarity; the others' time goes without that.
"""

import re
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

import configurator
from configurator import UserError
from cleaning import dedup
from cleaning.chunks import DOCUMENT
from corpus.documents import Document, optional, read
from cleaning.view import View

BANDS, ROWS, THRESHOLD = 14, 8, 0.7
WORD = re.compile(r"[a-z0-9_]+|[^\x00-\x7f]")


@dataclass
class Settings:
    source: str = "stdlib"  # the files
    megabytes: float = 20.0  # of text to take from them
    documents: int = 0  # instead: cluster so many made-up documents, one in ten of them a copy, and measure the memory
    json: str = ""  # write the results here too


def main(s):
    if s.documents:
        return measure_memory(s.documents)
    texts, size = [], 0
    for item in read(s.source):
        if isinstance(item, Document) and size < s.megabytes * 1e6:
            texts.append(item.text)
            size += len(item.text.encode())
    if not texts:
        raise UserError(f"no documents in {s.source}")
    copies = [
        text.replace("self", "this") + "\n# a copy\n" for text in texts[::10]
    ]  # so that there is something to find
    texts, size = texts + copies, size + sum(len(text.encode()) for text in copies)
    results = {}
    for name, run in (("WizardLearner", ours), ("datasketch", with_datasketch), ("datatrove", with_datatrove)):
        start = time.perf_counter()
        n_kept = run(texts)
        results[name] = {"seconds": time.perf_counter() - start, "kept": n_kept}
    print(f"{len(texts):,} documents, {size / 1e6:.1f} MB, {BANDS} bands of {ROWS}, one process\n")
    print(f"{'':<16}{'seconds':>9}{'MB/s':>8}{'relative':>10}{'kept':>9}")
    for name, r in results.items():
        print(f"{name:<16}{r['seconds']:>9.1f}{size / 1e6 / r['seconds']:>8.2f}{results['WizardLearner']['seconds'] / r['seconds']:>10.3f}{r['kept']:>9,}")  # fmt: skip
    if s.json:
        configurator.write_json(s.json, {"results": results, "bytes": size, "documents": len(texts), "made_by": configurator.made_by()})  # fmt: skip


def ours(texts):
    sets = [dedup.shingles(View(text).fivegrams) for text in tqdm(texts, desc="WizardLearner", leave=False)]
    bands = np.stack([dedup.band_keys(dedup.signature(s, BANDS * ROWS), BANDS, ROWS) for s in sets])
    digests = np.stack([dedup.exact_digest(text) for text in texts])
    clusters = dedup.exact_clusters(digests, dedup.Clusters(len(texts)))
    verify = lambda pairs: np.array([dedup.jaccard(sets[a], sets[b]) >= THRESHOLD for a, b in pairs])  # noqa: E731
    sizes = np.array([len(s) for s in sets])
    dedup.near_clusters(lambda i: bands[:, i], BANDS, sizes, digests, verify, THRESHOLD, clusters)
    return len(np.unique(clusters.roots(np.arange(len(texts)))))


def measure_memory(n):
    """What chunks.Chunks and to_shards.duplicates() hold and do, for n documents whose signatures lie on disk."""
    rng, bands = np.random.default_rng(0), dedup.banding(THRESHOLD)[0]
    copies = rng.permutation(n)[: n // 10]
    with tempfile.TemporaryDirectory() as folder:
        for i in range(bands):  # a copy has the keys of the document before it
            keys = rng.integers(0, 2**63, n, dtype=np.uint64)
            keys[copies] = keys[copies - 1]
            keys.tofile(f"{folder}/{i}")
        del keys
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        documents = np.zeros(n, DOCUMENT)
        documents["digest"], documents["shingles"] = rng.integers(0, 2**63, (n, 2), dtype=np.uint64), 100
        clusters = dedup.exact_clusters(documents["digest"], dedup.Clusters(n))
        band, verify = lambda i: np.memmap(f"{folder}/{i}", np.uint64, "r"), lambda pairs: np.ones(len(pairs), bool)
        dedup.near_clusters(band, bands, documents["shingles"], documents["digest"], verify, THRESHOLD, clusters)
        kept = dedup.choose(clusters, lambda i: i)
    found, grown = int((kept != np.arange(n)).sum()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{n:,} documents, {found:,} copies found in {time.perf_counter() - start:.0f} s; memory {grown / 1024:.0f} MB, signatures on disk {n * bands * 8 / 1e6:.0f} MB")  # fmt: skip


def words(text):
    return WORD.findall(text.lower())


def with_datasketch(texts):
    datasketch = optional("datasketch", "the comparison")
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
    optional("datatrove", "the comparison")
    from datatrove.data import Document as TroveDocument
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupSignature,
    )
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):
        word_tokenize = staticmethod(words)
        sent_tokenize = span_tokenize = None

    Words.__abstractmethods__ = frozenset()
    config = MinhashConfig(n_grams=5, num_buckets=BANDS, hashes_per_bucket=ROWS)
    documents = (TroveDocument(text, str(i)) for i, text in enumerate(tqdm(texts, desc="datatrove", leave=False)))
    with tempfile.TemporaryDirectory() as folder:
        MinhashDedupSignature(f"{folder}/signatures", config, language=Words()).run(documents, 0, 1)
        for bucket in range(BANDS):
            MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config).run(None, bucket, BANDS)
        MinhashDedupCluster(f"{folder}/buckets", f"{folder}/remove", config=config).run(None, 0, 1)
        removed = sum(path.stat().st_size // 4 for path in Path(folder, "remove").glob("*.remove"))
    return len(texts) - removed


if __name__ == "__main__":
    configurator.run(main, Settings)
