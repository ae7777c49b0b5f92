"""Stage 2: documents, chats -> token shards, cleaned.

A first pass reads the documents once: worker processes replace personal data, filter, decontaminate, tokenize and sign
them, a chunk of `shard_bytes` at a time. Then near-duplicates are sought across all chunks, and the tokens of what is
kept become shards, shard n from chunk n. Documents go to train or val by the hash of their text, so that adding
documents moves none. What the folder holds depends on the documents and the settings alone, not on the number of
workers or on interruptions; report.html says what was dropped and why.
"""

import hashlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

import configurator
from configurator import UserError
from corpus import chats, chunks, clean, dedup, report
from corpus.documents import Document, Problem, read
from corpus.filters import Thresholds
from corpus.parallel import mapped
from shards import Shards, describe_foreign, files_of
from tokenizer import Tokenizer


@dataclass
class Reading:
    sources: list[str] = field(default_factory=lambda: ["stdlib"])  # presets, files, folders, hf:owner/name[:data_dir]
    out_dir: str = "data/stdlib"  # the shard folder
    tokenizer: str = "data/tokenizer.json"  # a tokenizer.json, a SentencePiece .model, or a name such as gpt2
    val_fraction: float = 0.05  # share of the documents for validation, by hash; .001 is enough for billions of tokens
    shard_bytes: int = 256_000_000  # text per shard: an interrupted run goes on after the last whole one
    num_workers: int = 0  # processes; 0 = one per core
    chats: bool = False  # the records are conversations: render them by the chat template, with a loss mask
    prompts: str = ""  # chats: a folder of <type>.pre.prompt and <type>.post.prompt, drawn for records with a type
    char_noise: float = 0.0  # chats: share of the characters of requests that are deleted or repeated
    adopt: bool = False  # out_dir already holds shards of llm.c or modded-nanogpt: only describe them
    against: list[str] = field(default_factory=list)  # shard folders: near copies of their val documents are dropped


@dataclass
class Settings(Thresholds, clean.CleanSettings, Reading):
    pass


BATCH_BYTES = 1_000_000  # text handed to a worker at a time
COUNTS = ("documents", "bytes", "tokens", "counted")  # counted: the tokens that count in the loss


def main(settings):
    if not 0 <= settings.char_noise < 1:
        raise UserError("char_noise must lie in [0, 1)")
    if not 0 <= settings.val_fraction < 1 or settings.shard_bytes < 1 or settings.num_workers < 0:
        raise UserError("val_fraction must lie in [0, 1), shard_bytes above 0, num_workers at 0 or above")
    settings.check()
    tokenizer, out, start = Tokenizer.load(settings.tokenizer), Path(settings.out_dir), time.time()
    if settings.adopt:
        write_manifest(settings, tokenizer, out, start, *adopted(out, tokenizer))
        return
    cleaner = clean.Cleaner(settings, tokenizer)  # a mistake in what it reads is seen here
    if up_to_date(settings, out, recipe(settings, tokenizer)):
        print(f"{out} holds just that already")
        return
    (out / "work").mkdir(parents=True, exist_ok=True)
    for leftover in (*out.glob("*.tmp"), *out.glob("work/*.tmp")):
        leftover.unlink()
    done = finished_work(out, recipe(settings, tokenizer))
    try:
        entries, counts = survey_all(settings, tokenizer, cleaner, out, done)
    except InputChanged:
        print("the documents are not those of the last run: starting over")
        entries, counts = survey_all(settings, tokenizer, cleaner, out, [])
    if not any(entry["documents"] for entry in entries):
        keep_drops(out, entries)
        raise UserError(f"no documents for training in {', '.join(settings.sources)}; see {out / 'dropped.jsonl'}")
    shards, summary = write_shards(settings, tokenizer, out, entries, counts)
    report.write(out, summary)
    write_manifest(settings, tokenizer, out, start, shards, summary["sources"])
    shutil.rmtree(out / "work")


# -- the first pass: documents -> chunks


def documents(settings):
    """(number of the source, Document or Problem); the documents of --against come under the numbers after them."""
    for number, source in enumerate(settings.sources):
        for item in read(source, chats.from_record if settings.chats else None):
            yield number, item
    for number, folder in enumerate(settings.against, len(settings.sources)):
        shards, tokenizer = Shards(folder, "val"), Tokenizer.load(Path(folder) / "tokenizer.json")
        for start, length in zip(*shards.documents(tokenizer.eot)):
            text = tokenizer.decode(shards.tokens(start + 1, length - 1).tolist())
            yield number, Document(text, f"val token {start}")


class InputChanged(Exception):
    """The documents differ from those that the finished chunks were made of."""


def batches(stream, settings, done, bar):
    """(batch, closing) for the workers: batch is a list of (source number, item); closing is None, or, with the last batch
    of a chunk, the sha256 over its documents. The chunks in done are compared instead of yielded."""
    chunk, chunk_size, chunk_hash, batch, batch_size = 0, 0, hashlib.sha256(), [], 0

    def close():
        if chunk >= len(done):
            return [(batch, chunk_hash.hexdigest())]
        if done[chunk]["documents_sha256"] != chunk_hash.hexdigest():
            raise InputChanged
        return []

    for number, item in stream:
        data = (item.where if isinstance(item, Problem) else item.text).encode("utf-8", "surrogateescape")
        bar.update(0 if isinstance(item, Problem) else len(data))
        chunk_hash.update(hashlib.sha256(data).digest())
        chunk_size += len(data)
        if chunk >= len(done):
            batch.append((number, item))
            batch_size += len(data)
        if chunk_size >= settings.shard_bytes:
            yield from close()
            chunk, chunk_size, chunk_hash, batch, batch_size = chunk + 1, 0, hashlib.sha256(), [], 0
        elif batch_size >= BATCH_BYTES:
            yield batch, None
            batch, batch_size = [], 0
    if chunk_size:
        yield from close()
        chunk += 1
    if chunk < len(done):
        raise InputChanged


def new_cleaner(settings, tokenizer):
    return clean.Cleaner(settings, Tokenizer.load(tokenizer))


def survey(cleaner, work):
    batch, closing = work
    return clean.survey(cleaner, batch, [*cleaner.s.sources, *cleaner.s.against]), closing


def survey_all(settings, tokenizer, cleaner, out, done):
    """(chunk entries, counts over all of them). Every finished chunk is noted in progress.json at once."""
    entries, chunk, counts = list(done), None, clean.no_counts()
    tokenizer.save(out / "tokenizer.json")
    num_workers = settings.num_workers or os.cpu_count()
    with tqdm(desc="cleaning", unit="B", unit_scale=True, smoothing=0.05) as bar:
        work = batches(documents(settings), settings, done, bar)
        start = (lambda *_: cleaner) if num_workers == 1 else new_cleaner
        results = mapped(survey, work, num_workers, start, settings, out / "tokenizer.json")
        try:
            for surveyed, closing in results:
                chunk = chunk or chunks.ChunkWriter(out / "work", len(entries))
                chunk.add(surveyed)
                clean.merged(counts, surveyed["counts"])
                if closing:
                    entries.append({**chunk.close(), "documents_sha256": closing, "counts": counts})
                    chunk, counts = None, clean.no_counts()
                    configurator.write_json(out / "work/progress.json", {"recipe": recipe(settings, tokenizer), "chunks": entries})  # fmt: skip
        finally:
            results.close()
            if chunk:
                chunk.abort()
    total = clean.no_counts()
    for entry in entries:
        clean.merged(total, entry["counts"])
    return entries, total


def recipe(settings, tokenizer):
    """What the shards depend on apart from the documents."""
    named = {f.name: getattr(settings, f.name) for c in (Thresholds, clean.CleanSettings, Reading) for f in fields(c)}
    for name in ("out_dir", "num_workers", "adopt"):
        del named[name]
    files = [*settings.decontaminate, settings.quality, settings.scores, *(Path(f) / "manifest.json" for f in settings.against)]  # fmt: skip
    read = {str(path): hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] for path in files if path}
    return {**named, "tokenizer": tokenizer.fingerprint, "files": read}


def finished_work(out, wanted):
    """The chunks that an interrupted run of the same recipe has finished, up to the first that is not whole."""
    try:
        state = json.loads((out / "work/progress.json").read_text(encoding="utf-8"))
        if state["recipe"] == wanted:
            whole = [chunks.is_whole(out / "work", entry) for entry in state["chunks"]]
            return state["chunks"][: (whole + [False]).index(False)]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return []


def up_to_date(settings, out, wanted):
    """Whether the folder's shards are whole and were made by the same recipe from the same documents."""
    try:
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        if manifest["recipe"] != wanted:
            return False
        files = [file for entry in manifest["files"] for file in files_of(entry)]
        if any((out / file["name"]).stat().st_size != file["size"] for file in files):
            return False
        with tqdm(desc="comparing", unit="B", unit_scale=True, leave=False) as bar:
            return not any(True for _ in batches(documents(settings), settings, manifest["shards"], bar))
    except InputChanged:
        print("the documents are not those of the last run: starting over")
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return False


# -- the second pass: chunks -> shards


def similarities(found, settings, pairs):
    """The Jaccard similarity of pairs of documents, in processes where there are many."""
    if len(pairs) < 20_000 or settings.num_workers == 1:
        return compare(found, pairs)
    parts = mapped(compare, np.array_split(pairs, len(pairs) // 5_000), settings.num_workers or os.cpu_count(), chunks.Chunks, found.folder, found.entries)  # fmt: skip
    return np.concatenate(list(parts))


def compare(found, pairs):
    return np.array([dedup.jaccard(found.shingles(a), found.shingles(b)) for a, b in pairs])


def write_shards(settings, tokenizer, out, entries, counts):
    """(manifest entries of the shards, the report)."""
    found, n_sources = chunks.Chunks(out / "work", entries), len(settings.sources)
    kept = found.duplicates(settings, partial(similarities, found, settings))
    wanted = (kept == np.arange(len(found))) & (found.documents["source"] < n_sources)
    val_limit = int(settings.val_fraction * 2**64)
    (out / "manifest.json").unlink(missing_ok=True)  # from here on the folder is not what it says
    shards = []
    for number, entry in enumerate(tqdm(entries, desc="writing shards", unit="shard", delay=2)):
        files = found.write_shard(number, wanted, val_limit, out)
        mine = slice(found.starts[number], found.starts[number + 1])
        counted = count(found.documents[mine][wanted[mine]], val_limit, settings.sources)
        shards.append({"documents_sha256": entry["documents_sha256"], "counts": counted, "files": files})
    keep_drops(out, entries, duplicate_lines(found, kept, n_sources))
    return shards, report.summary(counts, found, kept, settings, tokenizer)


def count(documents, val_limit, sources):
    """{source: {split: COUNTS}} of documents."""
    is_val = documents["split"] < val_limit
    result = {}
    for number, source in enumerate(sources):
        splits = {"train": ~is_val, "val": is_val}
        mine = {split: documents[(documents["source"] == number) & chosen] for split, chosen in splits.items()}
        result[source] = {split: [len(part), *(int(part[name].sum()) for name in COUNTS[1:])] for split, part in mine.items()}  # fmt: skip
    return result


def duplicate_lines(found, kept, n_sources):
    """dropped.jsonl's lines of the copies: each names the document that is kept in its place."""
    same = (found.documents["digest"] == found.documents["digest"][kept]).all(axis=1)
    for i in np.flatnonzero((kept != np.arange(len(kept))) & (found.documents["source"] < n_sources)):
        mine, other = found.meta(int(i)), found.meta(int(kept[i]))
        rule = "exact_duplicate" if same[i] else "near_duplicate"
        detail = f"{other['source']}/{other['where']}"
        yield {"id": mine["where"], "source": mine["source"], "rule": rule, "detail": detail}


def keep_drops(out, entries, lines=()):
    with open(out / "dropped.jsonl.tmp", "wb") as file:
        for entry in entries:
            with open(out / "work" / f"{entry['name']}.dropped", "rb") as part:
                shutil.copyfileobj(part, file)
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    os.replace(out / "dropped.jsonl.tmp", out / "dropped.jsonl")


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
