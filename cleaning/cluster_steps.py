"""The first pass and the second as datatrove pipeline steps, for when one machine is not enough.

The same functions as to_shards.py's, cut into tasks: Read and Survey in as many tasks as you like (each reads every
n-th file and writes one chunk), Decide in one, WriteShards in as many as there are chunks, Finish in one. Between them
lie files in a folder that all machines see. What is kept is what one machine would keep, for no step depends on order.
Any datatrove reader can stand in for Read, and its filters between Read and Survey. See python -m cleaning.cluster.
"""

import json
from pathlib import Path

import numpy as np
from datatrove.data import Document as TroveDocument
from datatrove.pipeline.base import PipelineStep

import configurator
from cleaning import chunks, clean, report, to_shards
from corpus import chats
from corpus.documents import Document, Problem, read
from tokenizer import Tokenizer


class Step(PipelineStep):
    def __init__(self, settings):
        super().__init__()
        self.settings = settings


class Read(Step):
    """Documents of our sources as datatrove documents; what cannot be read passes through with its problem."""

    name, type = "WizardLearner sources", "READER"

    def run(self, data=None, rank=0, world_size=1):
        parse = chats.from_record if self.settings.chats else None
        for source in self.settings.sources:
            for item in read(source, parse, (rank, world_size)):
                about = {"source": source}
                if isinstance(item, Problem):
                    yield TroveDocument("", item.where, metadata=about | {"problem": [item.rule, item.detail]})
                else:
                    yield TroveDocument(item.text, item.where, metadata=about | item.meta)


class Survey(Step):
    """Clean, tokenize and sign documents: one chunk per task."""

    name, type = "WizardLearner cleaning", "FILTER"

    def run(self, data, rank=0, world_size=1):
        s, folder = self.settings, Path(self.settings.out_dir) / "chunks"
        folder.mkdir(parents=True, exist_ok=True)
        cleaner = clean.new_cleaner(s, s.tokenizer)
        chunk, counts, batch, size = chunks.ChunkWriter(folder, rank), clean.no_counts(), [], 0

        def add():
            surveyed = clean.survey(cleaner, batch, s.sources)
            chunk.add(surveyed)
            clean.merged(counts, surveyed["counts"])
            batch.clear()

        try:
            for document in data:
                batch.append(ours(document, s.sources))
                size += len(document.text)
                if size > clean.BATCH_BYTES:
                    add()
                    size = 0
            add()
            entry = chunk.close()
        except BaseException:
            chunk.abort()
            raise
        self.stat_update("documents", value=entry["documents"])
        configurator.write_json(folder / f"{entry['name']}.json", {**entry, "counts": counts})
        return iter(())


def ours(document, sources):
    """(source number, Document or Problem) of a datatrove document; one from another reader belongs to the first source."""
    meta = dict(document.metadata)
    source, problem = meta.pop("source", sources[0]), meta.pop("problem", None)
    item = Problem(document.id, *problem) if problem else Document(document.text, document.id, meta)
    return sources.index(source), item


def surveyed(out):
    """The chunks of a folder, and their counts together."""
    entries = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted((Path(out) / "chunks").glob("[0-9]*.json"))
    ]
    total = clean.no_counts()
    for entry in entries:
        clean.merged(total, entry["counts"])
    return chunks.Chunks(Path(out) / "chunks", entries), total


class Decide(Step):
    """Seek duplicates across all chunks: chunks/kept.npy. One task."""

    name, type = "WizardLearner deduplication", "DEDUP"

    def run(self, data=None, rank=0, world_size=1):
        out = Path(self.settings.out_dir)
        found, _ = surveyed(out)
        kept = to_shards.duplicates(found, self.settings)
        np.save(out / "chunks/kept.npy", kept)
        (out / "manifest.json").unlink(missing_ok=True)
        return iter(())


class WriteShards(Step):
    """Shard n from chunk n, for the chunks of this task."""

    name, type = "WizardLearner shards", "WRITER"

    def run(self, data=None, rank=0, world_size=1):
        out = Path(self.settings.out_dir)
        found, _ = surveyed(out)
        kept = np.load(out / "chunks/kept.npy")
        for number in range(rank, len(found.entries), world_size):
            shard = to_shards.write_shard(self.settings, found, kept, number, out)
            configurator.write_json(out / f"chunks/shard_{number:06d}.json", shard)
        return iter(())


class Finish(Step):
    """Report and manifest. One task."""

    name, type = "WizardLearner manifest", "WRITER"

    def __init__(self, settings, recipe, start):
        super().__init__(settings)
        self.recipe, self.start = recipe, start

    def run(self, data=None, rank=0, world_size=1):
        s, out = self.settings, Path(self.settings.out_dir)
        found, counts = surveyed(out)
        kept = np.load(out / "chunks/kept.npy")
        shards = [
            json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "chunks").glob("shard_*.json"))
        ]
        tokenizer = Tokenizer.load(s.tokenizer)
        to_shards.keep_drops(out, found.entries, to_shards.duplicate_lines(found, kept, len(s.sources)))
        summary = report.summary(counts, found, kept, s, tokenizer)
        to_shards.finish(s, tokenizer, self.recipe, out, self.start, shards, summary)
        return iter(())
