"""Chunks of cleaned documents -> shards: which copies to keep, the tokens of the rest, report, manifest."""

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

import configurator
from cleaning import dedup, report
from cleaning.chunks import Chunks
from cleaning.counts import add
from cleaning.settings import Settings
from configurator import UserError
from corpus.parallel import mapped
from shards import ShardWriter, files_of
from tokenizer import Tokenizer

COUNTS = ("documents", "bytes", "tokens", "counted")  # counted: the tokens that count in the loss
MANY_PAIRS, PAIRS_PER_TASK = 20_000, 5_000  # from how many on pairs are compared in several processes


@dataclass
class Run:
    """One run of stage 2, as all of its parts need it."""

    settings: Settings
    tokenizer: Tokenizer
    ingredients: dict  # settings.ingredients()
    start: float  # time.time()

    @property
    def out(self):
        """The shard folder."""
        return Path(self.settings.out_dir)


# -- which copies to keep


def duplicates(chunks, settings):
    """For each document of the chunks the one that is kept of its copies, int64 (documents,): kept[i] is the number of
    the document that replaces i, or i itself if it stays. Documents of --against win over all others."""
    digests, clusters = chunks.documents["digest"], dedup.Clusters(len(chunks))
    if settings.clean and settings.exact_dedup:
        dedup.exact_clusters(digests, clusters)
    if settings.clean and settings.near_dedup:
        sizes, threshold = chunks.documents["shingles"], settings.near_threshold
        verify = partial(similar, chunks, settings)
        dedup.near_clusters(chunks.band, chunks.n_bands, sizes, digests, verify, threshold, clusters)

    def priority(i):
        own = chunks.documents["source"][i] < len(settings.sources)
        return own, *dedup.priority(chunks.meta(i), digests[i])

    return dedup.choose(clusters, priority)


def similar(chunks, settings, pairs):
    """Whether the true similarity of each pair of documents reaches the threshold: bool (pairs,)."""
    if len(pairs) < MANY_PAIRS or settings.num_workers == 1:
        return jaccards(chunks, pairs) >= settings.near_threshold
    parts = np.array_split(pairs, len(pairs) // PAIRS_PER_TASK)
    num_workers = settings.num_workers or os.cpu_count()
    results = mapped(jaccards, parts, num_workers, Chunks, chunks.folder, chunks.entries)
    return np.concatenate(list(results)) >= settings.near_threshold


def jaccards(chunks, pairs):
    """The Jaccard similarity of each pair of documents, float (pairs,)."""
    return np.array([dedup.jaccard(chunks.shingles(a), chunks.shingles(b)) for a, b in pairs])


# -- shards


def write_shards(run, entries, counts):
    """(manifest entries of the shards, the report) from chunks' entries and the first pass's Counts."""
    chunks = Chunks(run.out / "chunks", entries)
    kept = duplicates(chunks, run.settings)
    refuse_nothing(run.settings, chunks, kept)
    (run.out / "manifest.json").unlink(missing_ok=True)  # from here on the folder is not what it says
    numbers = tqdm(range(len(entries)), desc="writing shards", unit="shard", delay=2)
    shards = [write_shard(run.settings, chunks, kept, number) for number in numbers]
    keep_drops(run.out, entries, duplicate_lines(chunks, kept, len(run.settings.sources)))
    return shards, report.summary(counts, chunks, kept, run.settings, run.tokenizer)


def refuse_nothing(settings, chunks, kept):
    """Raise UserError where no document would be left for training, before anything in the folder is replaced."""
    stays, is_val = split_of(settings, chunks, kept, slice(None))
    if not (stays & ~is_val).any():
        out = Path(settings.out_dir)
        keep_drops(out, chunks.entries, duplicate_lines(chunks, kept, len(settings.sources)))
        raise UserError(f"no documents for training in {', '.join(settings.sources)}; see {out / 'dropped.jsonl'}")


def split_of(settings, chunks, kept, part):
    """(whether each document goes into the shards, whether it is one of validation): bool arrays for a slice."""
    documents, numbers = chunks.documents[part], np.arange(len(chunks))[part]
    stays = (kept[part] == numbers) & (documents["source"] < len(settings.sources))
    return stays, documents["split"] < int(settings.val_fraction * 2**64)


def write_shard(settings, chunks, kept, number):
    """Write the kept documents of a chunk as train and val file. Returns the manifest's entry for them."""
    entry, part = chunks.entries[number], chunks.slice_of(number)
    documents, (stays, is_val) = chunks.documents[part], split_of(settings, chunks, kept, part)
    tokens, mask = chunks.array(entry, "tokens", "<u2"), chunks.array(entry, "mask", np.uint8)
    files, counts = [], {source: {} for source in settings.sources}
    for split, chosen in (("train", stays & ~is_val), ("val", stays & is_val)):
        for i, source in enumerate(settings.sources):
            mine = documents[chosen & (documents["source"] == i)]
            sums = {name: int(mine[name].sum()) for name in COUNTS[1:]}
            counts[source][split] = {"documents": len(mine), **sums}
        writer = ShardWriter(Path(settings.out_dir) / f"{split}_{number:06d}.bin", bool(len(mask)))
        try:
            of_chosen = np.repeat(chosen, documents["tokens"])
            writer.write(tokens[of_chosen], mask[of_chosen] if len(mask) else None)
            if written := writer.close():
                files.append({"split": split, **written})
        except BaseException:
            writer.abort()
            raise
    return {"documents_sha256": entry.get("documents_sha256"), "counts": counts, "files": files}


def duplicate_lines(chunks, kept, n_sources):
    """Yield dropped.jsonl's records of the copies: each names the document that is kept in its place."""
    digests = chunks.documents["digest"]
    same = (digests == digests[kept]).all(axis=1)
    gone = (kept != np.arange(len(kept))) & (chunks.documents["source"] < n_sources)
    for i in np.flatnonzero(gone):
        mine, other = chunks.meta(int(i)), chunks.meta(int(kept[i]))
        rule = "exact_duplicate" if same[i] else "near_duplicate"
        detail = f"{other['source']}/{other['where']}"
        yield {"id": mine["where"], "source": mine["source"], "rule": rule, "detail": detail}


def keep_drops(out, entries, records):
    """Write dropped.jsonl: the lines of every chunk, then the records of the copies."""
    with open(out / "dropped.jsonl.tmp", "wb") as file:
        for entry in entries:
            with open(out / "chunks" / f"{entry['name']}.dropped", "rb") as part:
                shutil.copyfileobj(part, file)
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
    os.replace(out / "dropped.jsonl.tmp", out / "dropped.jsonl")


# -- what describes them


def finish(run, shards, summary):
    """Tokenizer, report and manifest of a folder whose shards are written; the chunks are deleted."""
    run.tokenizer.save(run.out / "tokenizer.json")
    report.write(run.out, summary)
    write_manifest(run, shards, summary["sources"], summary["steps"][0]["bytes"])
    shutil.rmtree(run.out / "chunks")


def write_manifest(run, shards, dropped, bytes_read=0):
    """Write manifest.json, delete shards that are not in it, print the table.

    shards: write_shard()'s entries; dropped: {source: {rule: documents}}."""
    names = [] if run.settings.adopt else run.settings.sources
    sources, splits, files = {name: no_documents() for name in names}, no_documents(), []
    for shard in shards:
        files += shard["files"]
        for source, counts in shard["counts"].items():
            add(sources.setdefault(source, no_documents()), counts)
            add(splits, counts)
    for source, counts in sources.items():
        counts["dropped"] = dropped.get(source, {})
    manifest = {
        "tokenizer": run.tokenizer.fingerprint,
        "vocab_size": run.tokenizer.vocab_size,
        "seconds": round(time.time() - run.start, 3),
        "bytes_read": bytes_read,
        "sources": sources,
        "splits": splits,
        "files": files,
        "ingredients": run.ingredients,
        "shards": shards,
        "settings": asdict(run.settings),
        "made_by": configurator.made_by(),
    }
    stale = {*run.out.glob("train_*.bin"), *run.out.glob("val_*.bin")}
    for entry in files:
        stale -= {run.out / file["name"] for file in files_of(entry)}
    for path in stale:
        path.unlink()
    configurator.write_json(run.out / "manifest.json", manifest)
    print_table(manifest, run.out)


def no_documents():
    """Counts of both splits, all zero."""
    return {split: dict.fromkeys(COUNTS, 0) for split in ("train", "val")}


def print_table(manifest, out):
    """The manifest's counts for a person, one line per source and split."""
    head = f"{'source':<28}{'split':<7}{'documents':>11}{'bytes':>16}{'tokens':>15}{'counted':>15}{'bytes/token':>13}"
    print(f"\n{head}  dropped")
    any_dropped = False
    for source, counts in manifest["sources"].items():
        any_dropped = any_dropped or bool(counts["dropped"])
        dropped = ", ".join(f"{n:,} {rule}" for rule, n in sorted(counts["dropped"].items())) or "none"
        for split in ("train", "val"):
            n = counts[split]
            line = f"{source[-27:]:<28}{split:<7}{n['documents']:>11,}{n['bytes']:>16,}{n['tokens']:>15,}"
            line += f"{n['counted']:>15,}{n['bytes'] / max(1, n['tokens']):>13.3f}"
            print(f"{line}  {dropped if split == 'train' else ''}")
    if any_dropped:
        print(f"what was dropped and why: {out / 'report.html'}, one line each: {out / 'dropped.jsonl'}")
    written = sum(split["bytes"] for split in manifest["splits"].values())
    megabytes, seconds = (manifest["bytes_read"] or written) / 1e6, manifest["seconds"]
    print(f"{megabytes:,.1f} MB read in {seconds:.1f} s, {megabytes / max(1e-9, seconds):.1f} MB/s -> {out}")
