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
import time
from dataclasses import dataclass, field, fields
from pathlib import Path

from tqdm import tqdm

import configurator
from configurator import UserError
from cleaning import chunks, clean, to_shards
from corpus import chats
from corpus.documents import Document, Problem, read
from cleaning.rules import Thresholds
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


def main(settings):
    if not 0 <= settings.char_noise < 1:
        raise UserError("char_noise must lie in [0, 1)")
    if not 0 <= settings.val_fraction < 1 or settings.shard_bytes < 1 or settings.num_workers < 0:
        raise UserError("val_fraction must lie in [0, 1), shard_bytes above 0, num_workers at 0 or above")
    if settings.chats and settings.against:
        raise UserError("--against compares documents: it cannot be used with --chats")
    settings.check()
    tokenizer, out, start = Tokenizer.load(settings.tokenizer), Path(settings.out_dir), time.time()
    if settings.adopt:
        to_shards.write_manifest(settings, tokenizer, recipe(settings, tokenizer), out, start, *adopted(out, tokenizer))
        return
    cleaner = clean.Cleaner(settings, tokenizer)  # a mistake in what it reads is seen here
    wanted = recipe(settings, tokenizer)
    if up_to_date(settings, out, wanted):
        print(f"{out} holds just that already")
        return
    (out / "chunks").mkdir(parents=True, exist_ok=True)
    for leftover in (*out.glob("*.tmp"), *out.glob("chunks/*.tmp")):
        leftover.unlink()
    done = finished_work(out, wanted)
    try:
        entries, counts = survey_all(settings, wanted, cleaner, out, done)
    except InputChanged:
        print("the documents are not those of the last run: starting over")
        entries, counts = survey_all(settings, wanted, cleaner, out, [])
    if not any(entry["documents"] for entry in entries):
        to_shards.keep_drops(out, entries)
        raise UserError(f"no documents for training in {', '.join(settings.sources)}; see {out / 'dropped.jsonl'}")
    shards, summary = to_shards.write_shards(settings, tokenizer, out, entries, counts)
    to_shards.finish(settings, tokenizer, wanted, out, start, shards, summary)


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
        about = (
            number,
            item.where,
            item.rule if isinstance(item, Problem) else item.meta,
        )  # it decides which copy is kept
        chunk_hash.update(hashlib.sha256(data).digest() + repr(about).encode("utf-8", "surrogateescape"))
        chunk_size += len(data)
        if chunk >= len(done):
            batch.append((number, item))
            batch_size += len(data)
        if chunk_size >= settings.shard_bytes:
            yield from close()
            chunk, chunk_size, chunk_hash, batch, batch_size = chunk + 1, 0, hashlib.sha256(), [], 0
        elif batch_size >= clean.BATCH_BYTES:
            yield batch, None
            batch, batch_size = [], 0
    if chunk_size:
        yield from close()
        chunk += 1
    if chunk < len(done):
        raise InputChanged


def survey(cleaner, work):
    batch, closing = work
    return clean.survey(cleaner, batch, [*cleaner.s.sources, *cleaner.s.against]), closing


def survey_all(settings, wanted, cleaner, out, done):
    """(chunk entries, counts over all of them). Every finished chunk is noted in progress.json at once."""
    entries, chunk, counts = list(done), None, clean.no_counts()
    num_workers = settings.num_workers or os.cpu_count()
    with tqdm(desc="cleaning", unit="B", unit_scale=True, smoothing=0.05) as bar:
        work = batches(documents(settings), settings, done, bar)
        start = (lambda *_: cleaner) if num_workers == 1 else clean.new_cleaner
        results = mapped(survey, work, num_workers, start, settings, settings.tokenizer)
        try:
            for surveyed, closing in results:
                chunk = chunk or chunks.ChunkWriter(out / "chunks", len(entries))
                chunk.add(surveyed)
                clean.merged(counts, surveyed["counts"])
                if closing:
                    entries.append({**chunk.close(), "documents_sha256": closing, "counts": counts})
                    chunk, counts = None, clean.no_counts()
                    configurator.write_json(out / "chunks/progress.json", {"recipe": wanted, "chunks": entries})
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
        state = json.loads((out / "chunks/progress.json").read_text(encoding="utf-8"))
        if state["recipe"] == wanted:
            whole = [chunks.is_whole(out / "chunks", entry) for entry in state["chunks"]]
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


def adopted(out, tokenizer):
    """The same for a folder of foreign shards."""
    files = describe_foreign(out, tokenizer)
    if not files:
        raise UserError(f"no .bin shards in {out}")
    tokenizer.save(out / "tokenizer.json")
    return [{"files": [file], "counts": {out.name: {file["split"]: counts}}} for file, counts in files], {}


if __name__ == "__main__":
    configurator.run(main, Settings)
