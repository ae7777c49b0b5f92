"""The passes of prepare_data.py as steps of datatrove pipelines; cluster.py runs them.

read and survey run in as many tasks as you like, each of which reads every n-th file and writes one chunk; decide in
one task, write_shards in many, finish in one. They hand each other files, in a folder that all machines see.

datatrove calls step(data, rank, world_size) for task rank of world_size; data is what the step before it yields. Any
datatrove reader can stand in for read, and datatrove's filters between read and survey.
"""

import json
from pathlib import Path

import numpy as np
from datatrove.data import Document as TroveDocument

import configurator
from cleaning import chunks, clean, to_shards
from configurator import UserError
from corpus.documents import Document, Problem, checked
from tokenizer import Tokenizer

NOTHING_LEFT = "nothing_left.txt"  # in the folder of the chunks


def read(settings, data, rank, world_size):
    """Yield the documents of every world_size-th file as datatrove documents. What cannot be read passes as a document
    without text, with the Problem in its metadata."""
    for source in settings.sources:
        for item in settings.read(source, (rank, world_size)):
            if isinstance(item, Document) and item.files:
                what = f"{source} holds repositories, whose files a cluster run cannot keep together"
                raise UserError(f"{what}: prepare it with prepare_data.py")
            if isinstance(item, Problem):
                yield TroveDocument("", item.where, metadata={"source": source, "problem": [item.rule, item.detail]})
            else:
                yield TroveDocument(item.text, item.where, metadata={"source": source, **item.meta})


def survey(settings, data, rank, world_size):
    """Clean, tokenize and sign datatrove documents: chunk number rank, and its entry as a JSON file beside."""
    folder = Path(settings.out_dir) / "chunks"
    folder.mkdir(parents=True, exist_ok=True)
    cleaner, chunk = clean.new_cleaner(settings), chunks.ChunkWriter(folder, rank)
    try:
        for document in data:
            chunk.add(cleaner.survey([ours(document, settings.sources)]))
        entry = chunk.close()
    except BaseException:
        chunk.abort()
        raise
    configurator.write_json(folder / f"{entry['name']}.json", entry)


def ours(document, sources):
    """(number of the source, Document or Problem) of a datatrove document. What another reader than ours has read
    belongs to the first source."""
    meta = dict(document.metadata)
    source, problem = meta.pop("source", sources[0]), meta.pop("problem", None)
    item = Problem(document.id, *problem) if problem else checked(document.text, document.id, meta)
    return sources.index(source), item


def decide(settings, data, rank, world_size):
    """Seek duplicates across all chunks: chunks/kept.npy, or in NOTHING_LEFT why there is nothing to keep."""
    found = all_chunks(settings)
    try:
        np.save(found.folder / "kept.npy", to_shards.choose_kept(found, settings))
    except UserError as error:  # not a failed task, which datatrove would show with all of its calls
        configurator.write_text(found.folder / NOTHING_LEFT, str(error))


def write_shards(settings, data, rank, world_size):
    """Shard n from chunk n, for every world_size-th chunk, and their manifest entries as JSON files."""
    found = all_chunks(settings)
    if (found.folder / NOTHING_LEFT).exists():
        return
    kept = np.load(found.folder / "kept.npy")
    for number in range(rank, len(found.entries), world_size):
        shard = to_shards.write_shard(settings, found, kept, number)
        configurator.write_json(found.folder / f"shard_{number:06d}.json", shard)


def finish(settings, ingredients, start, data, rank, world_size):
    """Report and manifest; the chunks are deleted. start: the time.time() at which the run began."""
    run = to_shards.Run(settings, Tokenizer.load(settings.tokenizer), ingredients, start)
    found = all_chunks(settings)
    if (found.folder / NOTHING_LEFT).exists():
        return
    kept = np.load(found.folder / "kept.npy")
    to_shards.finish(run, found, kept, read_json(found.folder, "shard_*.json"))


def all_chunks(settings):
    """The Chunks that the survey tasks have written."""
    folder = Path(settings.out_dir) / "chunks"
    return chunks.Chunks(folder, read_json(folder, "[0-9]*.json"))


def read_json(folder, pattern):
    """The JSON files of a pattern, in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(pattern))]
