"""Chunks of surveyed documents -> shards: which copies to keep, the tokens of the rest, report, manifest."""

import json
import os
import shutil
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

import configurator
from configurator import UserError
from cleaning import chunks, dedup, report
from corpus.parallel import mapped
from shards import ShardWriter, files_of

COUNTS = ("documents", "bytes", "tokens", "counted")  # counted: the tokens that count in the loss


def duplicates(found, settings):
    """For each document of the chunks the number of the one kept in its place, its own where it is kept. Documents of
    --against win over all others."""
    digests, clusters = found.documents["digest"], dedup.Clusters(len(found))
    if settings.clean and settings.exact_dedup:
        dedup.exact_clusters(digests, clusters)
    if settings.clean and settings.near_dedup:
        sizes, t = found.documents["shingles"], settings.near_threshold
        dedup.near_clusters(found.band, found.n_bands, sizes, digests, partial(similar, found, settings), t, clusters)
    n_sources, sources = len(settings.sources), found.documents["source"]
    return dedup.choose(clusters, lambda i: (sources[i] < n_sources, *dedup.priority(found.meta(i), digests[i])))


def similar(found, settings, pairs):
    """Whether the true similarity of each pair of documents reaches the threshold; in processes where there are many."""
    if len(pairs) < 20_000 or settings.num_workers == 1:
        return jaccards(found, pairs) >= settings.near_threshold
    parts, n = np.array_split(pairs, len(pairs) // 5_000), settings.num_workers or os.cpu_count()
    results = mapped(jaccards, parts, n, chunks.Chunks, found.folder, found.entries)
    return np.concatenate(list(results)) >= settings.near_threshold


def jaccards(found, pairs):
    return np.array([dedup.jaccard(found.shingles(a), found.shingles(b)) for a, b in pairs])


def write_shards(settings, tokenizer, out, entries, counts):
    """(manifest entries of the shards, the report)."""
    found = chunks.Chunks(out / "chunks", entries)
    kept = duplicates(found, settings)
    (out / "manifest.json").unlink(missing_ok=True)  # from here on the folder is not what it says
    numbers = tqdm(range(len(entries)), desc="writing shards", unit="shard", delay=2)
    shards = [write_shard(settings, found, kept, number, out) for number in numbers]
    keep_drops(out, entries, duplicate_lines(found, kept, len(settings.sources)))
    return shards, report.summary(counts, found, kept, settings, tokenizer)


def write_shard(settings, found, kept, number, out):
    """The kept documents of a chunk as train and val file, and the manifest's entry for them."""
    entry, mine = found.entries[number], slice(found.starts[number], found.starts[number + 1])
    documents, numbers = found.documents[mine], np.arange(len(found))[mine]
    wanted = (kept[mine] == numbers) & (documents["source"] < len(settings.sources))
    is_val = documents["split"] < int(settings.val_fraction * 2**64)
    tokens, mask = found.array(entry, "tokens", "<u2"), found.array(entry, "mask", np.uint8)
    files, counts = [], {source: {} for source in settings.sources}
    for split, chosen in (("train", wanted & ~is_val), ("val", wanted & is_val)):
        for source, of_source in zip(settings.sources, counts.values()):
            part = documents[chosen & (documents["source"] == settings.sources.index(source))]
            of_source[split] = [len(part), *(int(part[name].sum()) for name in COUNTS[1:])]
        writer = ShardWriter(Path(out) / f"{split}_{number:06d}.bin", bool(len(mask)))
        try:
            of_chosen = np.repeat(chosen, documents["tokens"])
            writer.write(tokens[of_chosen], mask[of_chosen] if len(mask) else None)
            files += [{"split": split, **written}] if (written := writer.close()) else []
        except BaseException:
            writer.abort()
            raise
    return {"documents_sha256": entry.get("documents_sha256"), "counts": counts, "files": files}


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
            with open(out / "chunks" / f"{entry['name']}.dropped", "rb") as part:
                shutil.copyfileobj(part, file)
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    os.replace(out / "dropped.jsonl.tmp", out / "dropped.jsonl")


def finish(settings, tokenizer, recipe, out, start, shards, summary):
    tokenizer.save(out / "tokenizer.json")
    report.write(out, summary)
    bytes_read = summary["steps"][0]["bytes"]
    write_manifest(settings, tokenizer, recipe, out, start, shards, summary["sources"], bytes_read)
    shutil.rmtree(out / "chunks")


def write_manifest(settings, tokenizer, recipe, out, start, shards, dropped, bytes_read=0):
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
        "bytes_read": bytes_read,
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
        "recipe": recipe,
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
        print(f"what was dropped and why: {out / 'report.html'}, one line each: {out / 'dropped.jsonl'}")
    n_bytes, seconds = (
        manifest["bytes_read"] or sum(split["bytes"] for split in manifest["splits"].values()),
        manifest["seconds"],
    )
    print(f"{n_bytes / 1e6:,.1f} MB read in {seconds:.1f} s, {n_bytes / 1e6 / max(1e-9, seconds):.1f} MB/s -> {out}")
