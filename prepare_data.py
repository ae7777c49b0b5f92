"""Stage 2: documents, chats -> token shards.

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
from corpus import chats
from corpus.documents import Problem, read
from shards import ShardWriter, describe_foreign, files_of
from tokenizer import Tokenizer


@dataclass
class Settings:
    sources: list[str] = field(default_factory=lambda: ["stdlib"])  # presets, files, folders, hf:owner/name[:data_dir]
    out_dir: str = "data/stdlib"  # the shard folder
    tokenizer: str = "data/tokenizer.json"  # a tokenizer.json, a SentencePiece .model, or a name such as gpt2
    val_fraction: float = 0.05  # share of the documents for validation, by hash; .001 is enough for billions of tokens
    shard_bytes: int = 256_000_000  # text per shard: an interrupted run goes on after the last whole one
    num_workers: int = 0  # processes that tokenize; 0 = one per core
    chats: bool = False  # the records are conversations: render them by the chat template, with a loss mask
    prompts: str = ""  # chats: a folder of <type>.pre.prompt and <type>.post.prompt, drawn for records with a type
    char_noise: float = 0.0  # chats: share of the characters of requests that are deleted or repeated
    adopt: bool = False  # out_dir already holds shards of llm.c or modded-nanogpt: only describe them


BATCH_BYTES = 1_000_000  # text handed to a worker at a time


def main(settings):
    if not 0 <= settings.char_noise < 1:
        raise UserError("char_noise must lie in [0, 1)")
    if not 0 <= settings.val_fraction < 1 or settings.shard_bytes < 1 or settings.num_workers < 0:
        raise UserError("val_fraction must lie in [0, 1), shard_bytes above 0, num_workers at 0 or above")
    tokenizer, out, start = Tokenizer.load(settings.tokenizer), Path(settings.out_dir), time.time()
    chats.Prompts(settings.prompts)  # a mistake in them is seen here
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


def unique_documents(settings, dropped, bar):
    """(source, text as UTF-8, sha256) of every document that is readable and the first of its text."""
    first_copy = {}
    for source in settings.sources:
        for item in read(source, chats.from_record if settings.chats else None):
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


def start_worker(settings, path):
    global worker
    worker = Worker(settings, Tokenizer.load(path))
    if parent := multiprocessing.parent_process():  # in a pool: leave Ctrl-C to the parent, and end when it is killed
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


class Worker:
    def __init__(self, settings, tokenizer):
        self.tokenizer, self.chats, self.char_noise = tokenizer, settings.chats, settings.char_noise
        self.prompts = chats.Prompts(settings.prompts)

    def encode(self, text):
        """(ids, mask, bytes) of a document or a conversation; the mask of a document is all 1."""
        if not self.chats:
            ids = self.tokenizer.encode(text)
            return ids, [1] * len(ids), len(text.encode())
        messages = chats.finished(text, self.prompts, self.char_noise)
        return *self.tokenizer.render(messages), sum(len(message["content"].encode()) for message in messages)


COUNTS = ("documents", "bytes", "tokens", "counted")  # counted: the tokens that count in the loss


def tokenize(work):
    """({split: (tokens, mask)}, {source: {split: counts}}, closing) of a batch."""
    batch, closing = work
    tokens, masks, counts = {"train": [], "val": []}, {"train": [], "val": []}, {}
    for source, split, data in batch:
        ids, mask, n_bytes = worker.encode(data.decode())
        tokens[split] += [worker.tokenizer.eot, *ids]
        masks[split] += [1 - worker.chats, *mask]
        count = counts.setdefault(source, {"train": [0] * len(COUNTS), "val": [0] * len(COUNTS)})[split]
        for i, n in enumerate((1, n_bytes, len(ids) + 1, sum(mask) + 1 - worker.chats)):
            count[i] += n
    arrays = {s: (np.array(tokens[s], dtype=np.uint16), np.array(masks[s], dtype=np.uint8)) for s in tokens}
    return arrays, counts, closing


def mapped(function, items, num_workers, *worker_arguments):
    """function over items in their order, in num_workers processes, with a bounded number of items under way."""
    if num_workers == 1:
        start_worker(*worker_arguments)
        yield from map(function, items)
        return
    with ProcessPoolExecutor(num_workers, initializer=start_worker, initargs=worker_arguments) as pool:
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

    def __init__(self, out, number, masked):
        self.writers = {split: ShardWriter(out / f"{split}_{number:06d}.bin", masked) for split in ("train", "val")}
        self.counts = {}

    def add(self, tokens, counts):
        for split, arrays in tokens.items():
            self.writers[split].write(*arrays)
        for source, splits in counts.items():
            mine = self.counts.setdefault(source, {split: [0] * len(COUNTS) for split in splits})
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
        work = batches(unique_documents(settings, dropped, bar), settings, done)
        num_workers = settings.num_workers or os.cpu_count()
        results = mapped(tokenize, work, num_workers, settings, out / "tokenizer.json")
        try:
            for tokens, counts, closing in results:
                shard = shard or OpenShard(out, len(finished), settings.chats)
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
        "chats": [settings.chats, settings.prompts, settings.char_noise],
    }


def finished_work(out, wanted):
    """The shards that an earlier run of the same recipe has finished, up to the first that is not whole."""
    for name in ("progress.json", "manifest.json"):
        try:
            state = json.loads((out / name).read_text(encoding="utf-8"))
            if state["recipe"] != wanted:
                continue
            shards = state["shards"]
            files = [[file for entry in shard["files"] for file in files_of(entry)] for shard in shards]
            whole = [all((out / file["name"]).stat().st_size == file["size"] for file in part) for part in files]
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
    sources = {
        source: {"train": [0] * len(COUNTS), "val": [0] * len(COUNTS)}
        for source in settings.sources
        if not settings.adopt
    }
    for shard in shards:
        for source, splits in shard["counts"].items():
            for split, count in splits.items():
                total = sources.setdefault(source, {"train": [0] * len(COUNTS), "val": [0] * len(COUNTS)})
                total[split] = [a + b for a, b in zip(total[split], count)]
    if not any(counts["train"][0] for counts in sources.values()):
        raise UserError(f"no documents for training in {', '.join(settings.sources)}; see {out / 'dropped.jsonl'}")
    manifest = {
        "tokenizer": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "seconds": round(time.time() - start, 3),
        "sources": {
            source: {
                **{split: dict(zip(COUNTS, count)) for split, count in splits.items()},
                "dropped": dropped.get(source, {}),
            }
            for source, splits in sources.items()
        },
        "splits": {
            split: {name: sum(counts[split][i] for counts in sources.values()) for i, name in enumerate(COUNTS)}
            for split in ("train", "val")
        },
        "files": [file for shard in shards for file in shard["files"]],
        "recipe": recipe(settings, tokenizer),
        "shards": shards,
        "settings": asdict(settings),
        "made_by": configurator.made_by(),
    }
    kept = {out / file["name"] for entry in manifest["files"] for file in files_of(entry)}
    for stale in {*out.glob("train_*.bin"), *out.glob("val_*.bin")} - kept:
        stale.unlink()
    configurator.write_json(out / "manifest.json", manifest)
    (out / "progress.json").unlink(missing_ok=True)
    print_table(manifest, out)


def print_table(manifest, out):
    print(
        f"\n{'source':<28}{'split':<7}{'documents':>11}{'bytes':>16}{'tokens':>15}{'counted':>15}{'bytes/token':>13}  dropped"
    )
    for source, counts in manifest["sources"].items():
        dropped = ", ".join(f"{n:,} {rule}" for rule, n in sorted(counts["dropped"].items())) or "none"
        for split in ("train", "val"):
            c = counts[split]
            print(
                f"{source[-27:]:<28}{split:<7}{c['documents']:>11,}{c['bytes']:>16,}{c['tokens']:>15,}{c['counted']:>15,}"
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
