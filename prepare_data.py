"""Stage 2: documents, chats, pairs of answers -> token shards, cleaned.

    python prepare_data.py --sources=my_code/,more.jsonl.gz --out_dir=data/mine
    python prepare_data.py --sources=chats.jsonl --chats --out_dir=data/chats
    python prepare_data.py --sources=pairs.jsonl --pairs --out_dir=data/pairs
    python prepare_data.py --sources=dolly --chats --show=3    only show records

A first pass reads the documents once: worker processes replace personal data, filter,
decontaminate, tokenize and sign them (MinHash signatures, by which similar documents are found);
what they return is written in chunks of `shard_bytes` of text. The second pass seeks duplicates
across all chunks; the tokens of the documents that are kept become shards, shard n from chunk n.

Documents go to train or val by the hash of their text, pairs by that of their prompt, so that adding
some moves none. What the folder holds depends on the documents and the settings alone, not on the
number of workers or on interruptions; what it held before stays until the new shards are whole.
report.html says what was dropped and why.
"""

import needs  # noqa: F401

import hashlib
import itertools
import json
import shutil
import time

from tqdm import tqdm

import configurator
from cleaning import chunks, clean
from cleaning.chunks import ChunkWriter
from cleaning.settings import Settings
from cleaning.to_shards import COUNTS, Run, describe, digest_of, print_table, settle, write_shards
from configurator import UserError
from cores import n_cores
from corpus.documents import Document, Problem
from corpus.pairs import ANSWERS
from corpus.parallel import mapped
from corpus.records import escaped
from shards import Shards, describe_foreign, exclusive, load_tokenizer
from tokenizer import Tokenizer

BATCH_BYTES = 1_000_000  # text handed to a worker at a time
STARTING_OVER = "the documents are not those of the last run: starting over"


def main(settings):
    """Fill settings.out_dir with shards, or do nothing if it already holds the shards that would be made."""
    start = time.time()
    settings.check()
    if settings.show:
        show(settings)
        return
    tokenizer = Tokenizer.load(settings.tokenizer)
    cleaner = clean.Cleaner(settings, tokenizer)  # raises UserError for damaged files before anything is written
    run = Run(settings, tokenizer, settings.ingredients(tokenizer.fingerprint), start)
    with exclusive(run.out):
        settle(run.out)  # where a run died while it put its shards into their place
        if settings.adopt:
            adopt(run)
        else:
            prepare(run, cleaner)


def prepare(run, cleaner):
    """Both passes, as far as they are not done already."""
    for leftover in (*run.out.glob("*.tmp"), *run.out.glob("chunks/*.tmp")):
        leftover.unlink()
    if up_to_date(run):
        if not (run.out / "chunks/progress.json").exists():
            shutil.rmtree(run.out / "chunks", ignore_errors=True)
        print(f"{run.out} holds just that already")
        return

    # The first pass: documents -> chunks. It goes on after the chunks that an interrupted run has finished.
    (run.out / "chunks").mkdir(exist_ok=True)
    try:
        entries = write_chunks(run, cleaner, finished_chunks(run))
    except InputChanged:
        print(STARTING_OVER)
        entries = write_chunks(run, cleaner, [])

    # The second pass: chunks -> shards, without the copies that are found among all of the documents.
    write_shards(run, entries)


def show(settings):
    """Print the first records of each source as they are understood, and those that are not."""
    for source in settings.sources:
        for item in itertools.islice(settings.read(source), settings.show):
            print(f"\n-- {escaped(source)}: {escaped(item.where)}")
            if isinstance(item, Problem):
                print(f"   cannot be used: {item.rule}: {item.detail}")
            elif settings.chats:
                messages = json.loads(item.text)["messages"]
                said_by = [message["role"] for message in messages]
                if settings.pairs:
                    said_by[-2:] = ANSWERS
                for name, message in zip(said_by, messages):
                    print(f"[{name}]\n{escaped(message['content'])}")
            else:
                about = ", ".join(f"{key} {value}" for key, value in item.meta.items())
                print(f"[{escaped(about)}]\n{escaped(item.text)}")


# -- the first pass


class InputChanged(Exception):
    """The documents differ from those that the finished chunks were made of."""


def documents(settings, tokenizer):
    """Yield (number of the source, Document or Problem). Folders of --against are numbered after the sources."""
    for number, source in enumerate(settings.sources):
        for item in settings.read(source, tokenizer=tokenizer):
            yield number, item
    for number, folder in enumerate(settings.against, len(settings.sources)):
        shards, tokenizer = Shards(folder, "val"), load_tokenizer([folder])
        for start, length in zip(*shards.documents(tokenizer.eot)):
            text = tokenizer.decode(shards.tokens(start + 1, length - 1).tolist())
            yield number, Document(text, f"val token {start}")


def batches(settings, tokenizer, bar):
    """Yield (batch, sha256): batch is a list of what documents() yields, about BATCH_BYTES of text. sha256 is "" except
    with the last batch of a chunk, which is shard_bytes of text: there it is the sha256 of all documents of the chunk.
    bar: a progress bar that counts bytes."""
    batch, batch_bytes, chunk_bytes, sha256 = [], 0, 0, hashlib.sha256()
    for number, item in documents(settings, tokenizer):
        unreadable = isinstance(item, Problem)
        data = (item.where if unreadable else item.text).encode("utf-8", "surrogateescape")
        about = (number, item.where, item.rule if unreadable else item.meta)  # it decides which copy is kept
        sha256.update(hashlib.sha256(data).digest())
        sha256.update(repr(about).encode("utf-8", "surrogateescape"))
        bar.update(0 if unreadable else len(data))
        batch.append((number, item))
        batch_bytes += len(data)
        chunk_bytes += len(data)
        is_chunk_full = chunk_bytes >= settings.shard_bytes
        if is_chunk_full or batch_bytes >= BATCH_BYTES:
            yield batch, sha256.hexdigest() if is_chunk_full else ""
            batch, batch_bytes = [], 0
        if is_chunk_full:
            chunk_bytes, sha256 = 0, hashlib.sha256()
    if chunk_bytes:
        yield batch, sha256.hexdigest()


def new_batches(run, done, bar):
    """Yield the batches() after the chunks that are done. Raises InputChanged if the documents of those chunks, which
    are read again, are no longer the same."""
    expected = [entry["documents_sha256"] for entry in done]
    for batch, sha256 in batches(run.settings, run.tokenizer, bar):
        if not expected:
            yield batch, sha256
        elif sha256:  # a chunk that is done ends here
            if sha256 != expected.pop(0):
                raise InputChanged
    if expected:
        raise InputChanged


def survey(cleaner, work):
    """What a worker does with a batch: (its clean.Surveyed, the sha256 that came with it)."""
    batch, sha256 = work
    return cleaner.survey(batch), sha256


def write_chunks(run, cleaner, done):
    """Write the chunks after those that are done. Returns the entries of all chunks, which progress.json holds too."""
    settings, folder = run.settings, run.out / "chunks"
    entries, chunk = list(done), None
    num_workers = settings.num_workers or n_cores()
    with tqdm(desc="cleaning", unit="B", unit_scale=True, smoothing=0.05) as bar:
        work = new_batches(run, done, bar)
        if num_workers == 1:
            results = (survey(cleaner, item) for item in work)
        else:
            results = mapped(survey, work, num_workers, clean.new_cleaner, settings)
        try:
            for surveyed, sha256 in results:
                chunk = chunk or ChunkWriter(folder, len(entries))
                chunk.add(surveyed)
                if sha256:
                    entries.append({**chunk.close(), "documents_sha256": sha256})
                    chunk = None
                    progress = {"ingredients": run.ingredients, "chunks": entries}
                    configurator.write_json(folder / "progress.json", {**progress, "sha256": digest_of(progress)})
        finally:
            results.close()
            if chunk:
                chunk.abort()
    return entries


def finished_chunks(run):
    """Entries of the chunks that an interrupted run with the same ingredients has finished, up to the first of which a
    file is missing or damaged."""
    folder, whole = run.out / "chunks", []
    try:
        progress = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        if progress.pop("sha256") != digest_of(progress) or progress["ingredients"] != run.ingredients:
            return whole
        for entry in progress["chunks"]:
            if not chunks.is_whole(folder, entry):
                break
            whole.append(entry)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # no progress, or none that this version has written
    return whole


# -- folders that need no passes


def up_to_date(run):
    """Whether the folder's shards are whole and were made with the same ingredients from the same documents."""
    try:
        shards = Shards(run.out, "train")
        manifest = shards.manifest
        content = {key: value for key, value in manifest.items() if key != "digest"}
        if manifest["digest"] != digest_of(content) or manifest["ingredients"] != run.ingredients:
            return False
        load_tokenizer([run.out])
        shards.verify()
        with tqdm(desc="comparing", unit="B", unit_scale=True, leave=False) as bar:
            return next(new_batches(run, manifest["shards"], bar), None) is None
    except InputChanged:
        print(STARTING_OVER)
    except (UserError, KeyError, TypeError):
        pass  # no manifest, one of another version, or damaged files
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
    manifest = describe(run, shards, dropped={})
    configurator.write_json(run.out / "manifest.json", manifest)
    print_table(manifest, run.out)


if __name__ == "__main__":
    configurator.run(main, Settings)
