"""Stage 2: documents, chats -> token shards, cleaned.

    python prepare_data.py --sources=my_code/,more.jsonl.gz --out_dir=data/mine
    python prepare_data.py --sources=chats.jsonl --chats --out_dir=data/chats

A first pass reads the documents once: worker processes replace personal data, filter,
decontaminate, tokenize and sign them (MinHash signatures, by which similar documents are found);
what they return is written in chunks of `shard_bytes` of text. Then near-duplicates are sought
across all chunks, and the tokens of what is kept become shards, shard n from chunk n.

Documents go to train or val by the hash of their text, so that adding documents moves none. What
the folder holds depends on the documents and the settings alone, not on the number of workers or on
interruptions; report.html says what was dropped and why.
"""

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

import configurator
from cleaning import chunks, clean
from cleaning.counts import Counts
from cleaning.settings import Settings
from cleaning.to_shards import COUNTS, Run, finish, write_manifest, write_shards
from configurator import UserError
from corpus import chats
from corpus.documents import Document, Problem, read
from corpus.parallel import mapped
from shards import Shards, describe_foreign, files_of
from tokenizer import Tokenizer


def main(settings):
    """Fill settings.out_dir with shards, or do nothing where it holds just those already."""
    start = time.time()
    settings.check()
    tokenizer = Tokenizer.load(settings.tokenizer)
    cleaner = clean.Cleaner(settings, tokenizer)  # a mistake in what it reads is seen here
    run = Run(settings, tokenizer, settings.ingredients(tokenizer.fingerprint), start)
    if settings.adopt:
        adopt(run)
        return
    if up_to_date(run):
        print(f"{run.out} holds just that already")
        return

    # The first pass: documents -> chunks. It goes on after the chunks that an interrupted run has finished.
    (run.out / "chunks").mkdir(parents=True, exist_ok=True)
    for leftover in (*run.out.glob("*.tmp"), *run.out.glob("chunks/*.tmp")):
        leftover.unlink()
    try:
        entries = survey_all(run, cleaner, finished_chunks(run))
    except InputChanged:
        print("the documents are not those of the last run: starting over")
        entries = survey_all(run, cleaner, [])

    # The second: chunks -> shards, without the copies that are found among all of them.
    shards, report = write_shards(run, entries, Counts.total(entries))
    finish(run, shards, report)


# -- the first pass


class InputChanged(Exception):
    """The documents differ from those that the finished chunks were made of."""


@dataclass
class Work:
    """A batch of documents for a worker, or the end of a chunk."""

    batch: list = field(default_factory=list)  # (number of the source, Document or Problem)
    chunk_sha256: str = ""  # at the end of a chunk, over all of its documents


def documents(settings):
    """Yield (number of the source, Document or Problem); documents of --against come under the numbers after those."""
    for number, source in enumerate(settings.sources):
        for item in read(source, chats.from_record if settings.chats else None):
            yield number, item
    for number, folder in enumerate(settings.against, len(settings.sources)):
        shards, tokenizer = Shards(folder, "val"), Tokenizer.load(Path(folder) / "tokenizer.json")
        for start, length in zip(*shards.documents(tokenizer.eot)):
            text = tokenizer.decode(shards.tokens(start + 1, length - 1).tolist())
            yield number, Document(text, f"val token {start}")


class ChunkOfDocuments:
    """The next documents of a stream, up to shard_bytes of text. Iterate once; then size and sha256 are those of what
    was read."""

    def __init__(self, stream, shard_bytes, bar):
        self.stream, self.shard_bytes, self.bar = stream, shard_bytes, bar
        self.size, self.sha256 = 0, hashlib.sha256()

    def __iter__(self):
        """Yield (number of the source, Document or Problem)."""
        for number, item in self.stream:
            unreadable = isinstance(item, Problem)
            data = (item.where if unreadable else item.text).encode("utf-8", "surrogateescape")
            about = (number, item.where, item.rule if unreadable else item.meta)  # it decides which copy is kept
            self.sha256.update(hashlib.sha256(data).digest())
            self.sha256.update(repr(about).encode("utf-8", "surrogateescape"))
            self.bar.update(0 if unreadable else len(data))
            self.size += len(data)
            yield number, item
            if self.size >= self.shard_bytes:
                return


def work_of(settings, done, bar):
    """Yield the Work for the workers. The documents of the chunks that are done are read and compared instead: raises
    InputChanged where they are others. bar: a progress bar that counts bytes."""
    stream = documents(settings)
    for entry in done:
        chunk = ChunkOfDocuments(stream, settings.shard_bytes, bar)
        for _ in chunk:
            pass
        if chunk.sha256.hexdigest() != entry["documents_sha256"]:
            raise InputChanged
    while True:
        chunk = ChunkOfDocuments(stream, settings.shard_bytes, bar)
        for batch in clean.batches(chunk):
            yield Work(batch)
        if not chunk.size:
            return
        yield Work(chunk_sha256=chunk.sha256.hexdigest())


def survey(cleaner, work):
    """What a worker does: (the batch as a clean.Surveyed, Work.chunk_sha256)."""
    return cleaner.survey(work.batch), work.chunk_sha256


def survey_all(run, cleaner, done):
    """Write the chunks after those that are done. Returns the entries of all; progress.json has each at once."""
    settings, folder = run.settings, run.out / "chunks"
    entries, chunk, counts = list(done), None, Counts()
    num_workers = settings.num_workers or os.cpu_count()
    with tqdm(desc="cleaning", unit="B", unit_scale=True, smoothing=0.05) as bar:
        all_work = work_of(settings, done, bar)
        if num_workers == 1:
            results = (survey(cleaner, work) for work in all_work)
        else:
            results = mapped(survey, all_work, num_workers, clean.new_cleaner, settings, settings.tokenizer)
        try:
            for surveyed, chunk_sha256 in results:
                chunk = chunk or chunks.ChunkWriter(folder, len(entries))
                chunk.add(surveyed)
                counts.add(surveyed.counts)
                if chunk_sha256:
                    entry = chunk.close()
                    entries.append({**entry, "documents_sha256": chunk_sha256, "counts": asdict(counts)})
                    chunk, counts = None, Counts()
                    progress = {"ingredients": run.ingredients, "chunks": entries}
                    configurator.write_json(folder / "progress.json", progress)
        finally:
            results.close()
            if chunk:
                chunk.abort()
    return entries


def finished_chunks(run):
    """Entries of the chunks that an interrupted run with the same ingredients has finished, up to the first that is
    not whole."""
    whole = []
    try:
        progress = json.loads((run.out / "chunks/progress.json").read_text(encoding="utf-8"))
        if progress["ingredients"] == run.ingredients:
            for entry in progress["chunks"]:
                if not chunks.is_whole(run.out / "chunks", entry):
                    break
                whole.append(entry)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no progress, or of another version
    return whole


# -- folders that need no passes


def up_to_date(run):
    """Whether the folder's shards are whole and were made with the same ingredients from the same documents."""
    try:
        manifest = json.loads((run.out / "manifest.json").read_text(encoding="utf-8"))
        if manifest["ingredients"] != run.ingredients:
            return False
        for entry in manifest["files"]:
            for file in files_of(entry):
                if (run.out / file["name"]).stat().st_size != file["size"]:
                    return False
        with tqdm(desc="comparing", unit="B", unit_scale=True, leave=False) as bar:
            more = next(work_of(run.settings, manifest["shards"], bar), None)
        return more is None
    except InputChanged:
        print("the documents are not those of the last run: starting over")
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no manifest, or of another version
    return False


def adopt(run):
    """Describe the shards of llm.c or modded-nanogpt that lie in the folder: manifest and tokenizer beside them."""
    shards = []
    for file, numbers in describe_foreign(run.out, run.tokenizer):
        counts = {run.out.name: {file["split"]: dict(zip(COUNTS, numbers))}}
        shards.append({"files": [file], "counts": counts})
    if not any(shard["files"][0]["split"] == "train" for shard in shards):
        raise UserError(f"no .bin shards for training in {run.out}")
    run.tokenizer.save(run.out / "tokenizer.json")
    write_manifest(run, shards, dropped={})


if __name__ == "__main__":
    configurator.run(main, Settings)
