"""Stage 2: documents -> token shards.

Exact duplicates are dropped, documents go to train or val by the hash of their text, so that adding documents
moves none, and worker processes tokenize. Shard n holds the n-th `shard_bytes` of text; what the folder holds
depends on the documents and the settings alone, not on the number of workers or on interruptions.
"""

import collections
import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

import configurator
from configurator import UserError
from corpus.documents import Problem, read
from shards import ShardWriter, describe_foreign
from tokenizer import Tokenizer


@dataclass
class Settings:
    sources: list[str] = field(default_factory=lambda: ["stdlib"])  # presets, files, folders, hf:owner/name[:data_dir]
    out_dir: str = "data/stdlib"  # the shard folder
    tokenizer: str = "data/tokenizer.json"  # a tokenizer.json, a SentencePiece .model, or a name such as gpt2
    val_fraction: float = 0.05  # share of the documents for validation, by hash; .001 is enough for billions of tokens
    shard_bytes: int = 256_000_000  # text per shard: an interrupted run goes on after the last whole one
    num_workers: int = 0  # processes that tokenize; 0 = one per core
    adopt: bool = False  # out_dir already holds shards of llm.c or modded-nanogpt: only describe them


BATCH_BYTES = 1_000_000  # text handed to a worker at a time


def main(settings):
    if not 0 <= settings.val_fraction < 1 or settings.shard_bytes < 1 or settings.num_workers < 0:
        raise UserError("val_fraction must lie in [0, 1), shard_bytes above 0, num_workers at 0 or above")
    tokenizer, out, start = Tokenizer.load(settings.tokenizer), Path(settings.out_dir), time.time()
    if settings.adopt:
        write_manifest(settings, tokenizer, out, start, *adopted(out, tokenizer))
        return
    out.mkdir(parents=True, exist_ok=True)
    for leftover in out.glob("*.tmp"):
        leftover.unlink()
    done = finished_work(out, recipe(settings, tokenizer))
    try:
        result = write_shards(settings, tokenizer, out, done)
    except InputChanged:
        print("the documents are not those of the last run: starting over")
        result = write_shards(settings, tokenizer, out, done=[])
    write_manifest(settings, tokenizer, out, start, *result)


# -- documents: read, drop the duplicates, cut into batches


class Dropped:
    """What was not taken and why: counts per source and rule, and one line each in dropped.jsonl."""

    def __init__(self, file):
        self.file, self.counts = file, collections.defaultdict(collections.Counter)

    def add(self, source, where, rule, detail):
        self.counts[source][rule] += 1
        self.file.write(
            json.dumps({"id": where, "source": source, "rule": rule, "detail": detail}, ensure_ascii=False) + "\n"
        )


def unique_documents(sources, dropped, bar):
    """(source, text as UTF-8, sha256) of every document that is readable and the first of its text."""
    first_copy = {}
    for source in sources:
        for item in read(source):
            if isinstance(item, Problem):
                dropped.add(source, item.where, item.rule, item.detail)
                continue
            data = item.text.encode()
            bar.update(len(data))
            digest = hashlib.sha256(data).digest()
            if digest in first_copy:
                dropped.add(source, item.where, "exact_duplicate", first_copy[digest])
            else:
                first_copy[digest] = f"{source}/{item.where}"
                yield source, data, digest


class InputChanged(Exception):
    """The documents differ from those that the finished shards were made of."""


def batches(documents, settings, done):
    """(batch, closing) for the workers: batch is a list of (source, split, text); closing is None, or, with the
    last batch of a shard, the sha256 over its documents. The shards in done are compared instead of yielded."""
    shard, shard_size, shard_hash, batch, batch_size = 0, 0, hashlib.sha256(), [], 0

    def close():
        if shard >= len(done):
            return [(batch, shard_hash.hexdigest())]
        if done[shard]["documents_sha256"] != shard_hash.hexdigest():
            raise InputChanged
        return []

    for source, data, digest in documents:
        split = "val" if int.from_bytes(digest[:8]) < settings.val_fraction * 2**64 else "train"
        shard_hash.update(digest)
        shard_size += len(data)
        if shard >= len(done):
            batch.append((source, split, data))
            batch_size += len(data)
        if shard_size >= settings.shard_bytes:
            yield from close()
            shard, shard_size, shard_hash, batch, batch_size = shard + 1, 0, hashlib.sha256(), [], 0
        elif batch_size >= BATCH_BYTES:
            yield batch, None
            batch, batch_size = [], 0
    if shard_size:
        yield from close()
        shard += 1
    if shard < len(done):
        raise InputChanged


# -- workers: text -> tokens


def start_worker(path):
    global worker_tokenizer
    worker_tokenizer = Tokenizer.load(path)
    if parent := multiprocessing.parent_process():  # in a pool: leave Ctrl-C to the parent, and end when it is killed
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def tokenize(work):
    """({split: tokens}, {source: {split: [documents, bytes, tokens]}}, closing) of a batch."""
    batch, closing = work
    tokens, counts = {"train": [], "val": []}, {}
    for source, split, data in batch:
        ids = worker_tokenizer.encode(data.decode())
        tokens[split] += [worker_tokenizer.eot, *ids]
        count = counts.setdefault(source, {"train": [0, 0, 0], "val": [0, 0, 0]})[split]
        for i, n in enumerate((1, len(data), len(ids) + 1)):
            count[i] += n
    return {split: np.array(ids, dtype=np.uint16) for split, ids in tokens.items()}, counts, closing


def mapped(function, items, num_workers, tokenizer_path):
    """function over items in their order, in num_workers processes, with a bounded number of items under way."""
    if num_workers == 1:
        start_worker(tokenizer_path)
        yield from map(function, items)
        return
    with ProcessPoolExecutor(num_workers, initializer=start_worker, initargs=(tokenizer_path,)) as pool:
        under_way = collections.deque()
        try:
            for item in items:
                under_way.append(pool.submit(function, item))
                if len(under_way) > 4 * num_workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool:
            raise UserError("a worker process died, perhaps for lack of memory: use a smaller --num_workers") from None
        finally:
            pool.shutdown(cancel_futures=True)


# -- tokens -> shards


class OpenShard:
    """The train and val file of the shard being written."""

    def __init__(self, out, number):
        self.writers = {split: ShardWriter(out / f"{split}_{number:06d}.bin") for split in ("train", "val")}
        self.counts = {}

    def add(self, tokens, counts):
        for split, ids in tokens.items():
            self.writers[split].write(ids)
        for source, splits in counts.items():
            mine = self.counts.setdefault(source, {split: [0, 0, 0] for split in splits})
            for split, count in splits.items():
                mine[split] = [a + b for a, b in zip(mine[split], count)]

    def close(self, documents_sha256):
        files = [{"split": split, **entry} for split, writer in self.writers.items() if (entry := writer.close())]
        return {"documents_sha256": documents_sha256, "counts": self.counts, "files": files}

    def abort(self):
        for writer in self.writers.values():
            writer.abort()


def write_shards(settings, tokenizer, out, done):
    """Shard entries and drop counts. Every finished shard is noted in progress.json at once."""
    finished, shard = list(done), None
    tokenizer.save(out / "tokenizer.json")
    with (
        open(out / "dropped.jsonl.tmp", "w", encoding="utf-8") as file,
        tqdm(desc="tokenizing", unit="B", unit_scale=True, smoothing=0.05) as bar,
    ):
        dropped = Dropped(file)
        work = batches(unique_documents(settings.sources, dropped, bar), settings, done)
        results = mapped(tokenize, work, settings.num_workers or os.cpu_count(), out / "tokenizer.json")
        try:
            for tokens, counts, closing in results:
                shard = shard or OpenShard(out, len(finished))
                shard.add(tokens, counts)
                if closing:
                    (out / "manifest.json").unlink(missing_ok=True)  # the folder is no longer what it says
                    finished.append(shard.close(closing))
                    shard = None
                    configurator.write_json(
                        out / "progress.json", {"recipe": recipe(settings, tokenizer), "shards": finished}
                    )
        finally:
            results.close()
            if shard:
                shard.abort()
    os.replace(out / "dropped.jsonl.tmp", out / "dropped.jsonl")
    return finished, {source: dict(counts) for source, counts in dropped.counts.items()}


def recipe(settings, tokenizer):
    """What the shards depend on apart from the documents."""
    return {
        "tokenizer": tokenizer.fingerprint,
        "sources": settings.sources,
        "val_fraction": settings.val_fraction,
        "shard_bytes": settings.shard_bytes,
    }


def finished_work(out, wanted):
    """The shards that an earlier run of the same recipe has finished, up to the first that is not whole."""
    for name in ("progress.json", "manifest.json"):
        try:
            state = json.loads((out / name).read_text(encoding="utf-8"))
            if state["recipe"] != wanted:
                continue
            shards = state["shards"]
            whole = [all((out / f["name"]).stat().st_size == f["size"] for f in shard["files"]) for shard in shards]
            return shards[: (whole + [False]).index(False)]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return []


def adopted(out, tokenizer):
    """The same for a folder of foreign shards."""
    files = describe_foreign(out, tokenizer)
    if not files:
        raise UserError(f"no .bin shards in {out}")
    tokenizer.save(out / "tokenizer.json")
    return [{"files": [file], "counts": {out.name: {file["split"]: counts}}} for file, counts in files], {}


# -- the manifest and the table


def write_manifest(settings, tokenizer, out, start, shards, dropped):
    sources = {source: {"train": [0, 0, 0], "val": [0, 0, 0]} for source in settings.sources if not settings.adopt}
    for shard in shards:
        for source, splits in shard["counts"].items():
            for split, count in splits.items():
                total = sources.setdefault(source, {"train": [0, 0, 0], "val": [0, 0, 0]})
                total[split] = [a + b for a, b in zip(total[split], count)]
    if not any(counts["train"][0] for counts in sources.values()):
        raise UserError(f"no documents for training in {', '.join(settings.sources)}; see {out / 'dropped.jsonl'}")
    named = ("documents", "bytes", "tokens")
    manifest = {
        "tokenizer": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "seconds": round(time.time() - start, 3),
        "sources": {
            source: {
                **{split: dict(zip(named, count)) for split, count in splits.items()},
                "dropped": dropped.get(source, {}),
            }
            for source, splits in sources.items()
        },
        "splits": {
            split: {name: sum(counts[split][i] for counts in sources.values()) for i, name in enumerate(named)}
            for split in ("train", "val")
        },
        "files": [file for shard in shards for file in shard["files"]],
        "recipe": recipe(settings, tokenizer),
        "shards": shards,
        "settings": asdict(settings),
        "made_by": configurator.made_by(),
    }
    for stale in {*out.glob("train_*.bin"), *out.glob("val_*.bin")} - {out / f["name"] for f in manifest["files"]}:
        stale.unlink()
    configurator.write_json(out / "manifest.json", manifest)
    (out / "progress.json").unlink(missing_ok=True)
    print_table(manifest, out)


def print_table(manifest, out):
    print(f"\n{'source':<28}{'split':<7}{'documents':>11}{'bytes':>16}{'tokens':>15}{'bytes/token':>13}  dropped")
    for source, counts in manifest["sources"].items():
        dropped = ", ".join(f"{n:,} {rule}" for rule, n in sorted(counts["dropped"].items())) or "none"
        for split in ("train", "val"):
            c = counts[split]
            print(
                f"{source[-27:]:<28}{split:<7}{c['documents']:>11,}{c['bytes']:>16,}{c['tokens']:>15,}"
                f"{c['bytes'] / max(1, c['tokens']):>13.3f}  {dropped if split == 'train' else ''}"
            )
    if any(counts["dropped"] for counts in manifest["sources"].values()):
        print(f"each dropped document and why: {out / 'dropped.jsonl'}")
    n_bytes = sum(split["bytes"] for split in manifest["splits"].values())
    print(
        f"{n_bytes / 1e6:,.1f} MB in {manifest['seconds']:.1f} s, {n_bytes / 1e6 / max(1e-9, manifest['seconds']):.1f} MB/s -> {out}"
    )


if __name__ == "__main__":
    configurator.run(main, Settings)
