"""Chunks of cleaned documents -> shards: which copies to keep, the tokens of the rest, report, manifest."""

import collections
import hashlib
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
from cleaning import dedup, order, report
from cleaning.chunks import Chunks, add
from cleaning.settings import Settings
from configurator import UserError
from cores import n_cores
from corpus.parallel import mapped
from corpus.records import json_line
from shards import ShardWriter, WholeFile, files_of, naming, read_manifest
from tokenizer import Tokenizer

# counted: the tokens that count in the loss; gaps: the documents that became gaps to fill
COUNTS = ("documents", "bytes", "tokens", "counted", "gaps")
NEW = "chunks/shards"  # where new shards lie until all of them are whole, below the folder that they are for
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


def write_shards(run, entries):
    """The second pass: from the entries of finished chunks to a shard folder with its report and manifest."""
    chunks = Chunks(run.out / "chunks", entries)
    kept = choose_kept(chunks, run.settings)
    shutil.rmtree(run.out / NEW, ignore_errors=True)
    ordered, stay = (chunks, kept) if run.settings.order == "as_read" else in_order(run, chunks, kept)
    numbers = tqdm(range(len(entries)), desc="writing shards", unit="shard", delay=2)
    finish(run, chunks, kept, [write_shard(run.settings, ordered, stay, number) for number in numbers])


def in_order(run, chunks, kept):
    """(the kept documents in settings.order, as Chunks; kept of these, where all of them stay). Raises UserError where
    the names of all repositories send them to validation."""
    stays, is_val = split_of(run.settings, chunks, kept, slice(None))
    ordered = order.in_order(chunks, stays, is_val, run.settings, run.tokenizer)
    stay = np.arange(len(ordered))
    if split_of(run.settings, ordered, stay, slice(None))[1].all():
        raise UserError(
            f"by the hash of its name every repository goes to validation, {len(ordered):,} in all: "
            f"use more of them or another share than --val_fraction={run.settings.val_fraction:g}"
        )
    return ordered, stay


# -- which copies to keep


def choose_kept(chunks, settings):
    """Find the duplicates. Returns kept, int64 (documents,): kept[i] is the index of the document that replaces i, or i
    itself if it stays. Raises UserError where no document would be left for training."""
    digests, clusters = chunks.documents["digest"], dedup.Clusters(len(chunks))
    if settings.clean and settings.exact_dedup:
        dedup.exact_clusters(digests, clusters)
    if settings.clean and settings.near_dedup:
        sizes, threshold = chunks.documents["shingles"], settings.near_threshold
        verify = partial(similar, chunks, settings)
        dedup.near_clusters(chunks.band, chunks.n_bands, sizes, digests, verify, threshold, clusters)

    def priority(i):
        """The sort key by which a copy is kept: the lowest of a cluster stays."""
        is_own = chunks.documents["source"][i] < len(settings.sources)  # documents of --against are kept first
        content = (*digests[i], chunks.documents["split"][i])  # the digest is blind to trailing white space
        return is_own, *dedup.priority(chunks.meta(i), content)

    kept = dedup.choose(clusters, priority)
    stays, is_val = split_of(settings, chunks, kept, slice(None))
    if not (stays & ~is_val).any():
        raise UserError(nothing_left(settings, chunks, kept, int(stays.sum())))
    return kept


def nothing_left(settings, chunks, kept, n_val):
    """Why no document is left for training, in one line. n_val: documents that are left for validation. What was
    dropped stands beside the chunks: the folder's own dropped.jsonl belongs to the shards that may lie there."""
    drops = keep_drops(settings, chunks, kept, chunks.folder)
    rules, unread = collections.Counter(), ""
    with open(drops, encoding="utf-8") as lines:
        for dropped in map(json.loads, lines):
            rules[dropped["rule"]] += 1
            if not unread and dropped["rule"] in ("no_text", "no_chat", "no_pair"):  # a shape that nobody knows
                how = "; say which of them is the text: 'FILE?text={body}'" if dropped["rule"] == "no_text" else ""
                unread = f" ({dropped['id']}: {dropped['detail']}{how})"
    why = f"no documents for training in {', '.join(settings.sources)}"
    if rules:
        why += f": {in_words(rules)} dropped, see {drops}{unread}"
    if n_val:
        why += f"; by the hash of its text every document that is left, {n_val:,} in all, goes to validation: "
        why += f"use more documents or another share than --val_fraction={settings.val_fraction:g}"
    return why


def in_words(rules):
    """{rule: documents} as a sentence has it."""
    return ", ".join(f"{n:,} {rule}" for rule, n in sorted(rules.items()))


def similar(chunks, settings, pairs):
    """Whether the Jaccard similarity of each pair of documents reaches near_threshold: bool (pairs,)."""
    if len(pairs) < MANY_PAIRS or settings.num_workers == 1:
        return jaccards(chunks, pairs) >= settings.near_threshold
    parts = np.array_split(pairs, len(pairs) // PAIRS_PER_TASK)
    num_workers = settings.num_workers or n_cores()
    results = mapped(jaccards, parts, num_workers, Chunks, chunks.folder, chunks.entries)
    return np.concatenate(list(results)) >= settings.near_threshold


def jaccards(chunks, pairs):
    """The Jaccard similarity of each pair of documents, float (pairs,)."""
    return np.array([dedup.jaccard(chunks.shingles(a), chunks.shingles(b)) for a, b in pairs])


# -- shards


def split_of(settings, chunks, kept, part):
    """(whether each document goes into the shards, whether it is one of validation): bool arrays for a slice."""
    documents, numbers = chunks.documents[part], np.arange(len(chunks))[part]
    stays = (kept[part] == numbers) & (documents["source"] < len(settings.sources))
    return stays, settings.is_val(documents["split"])


def write_shard(settings, chunks, kept, number):
    """Write the kept documents of a chunk as train and val file into NEW. Returns the manifest's entry for them."""
    new = Path(settings.out_dir, NEW)
    new.mkdir(parents=True, exist_ok=True)
    entry, part = chunks.entries[number], chunks.slice_of(number)
    documents, (stays, is_val) = chunks.documents[part], split_of(settings, chunks, kept, part)
    tokens, mask = chunks.array(entry, "tokens", "<u2"), chunks.array(entry, "mask", np.uint8)
    files, counts = [], {source: {} for source in settings.sources}
    for split, chosen in (("train", stays & ~is_val), ("val", stays & is_val)):
        for i, source in enumerate(settings.sources):
            mine = documents[chosen & (documents["source"] == i)]
            sums = {name: int(mine[name].sum()) for name in COUNTS[1:]}
            counts[source][split] = {"documents": len(mine), **sums}
        writer = ShardWriter(new / f"{split}_{number:06d}.bin", bool(len(mask)))
        try:
            of_chosen = np.repeat(chosen, documents["tokens"])
            writer.write(tokens[of_chosen], mask[of_chosen] if len(mask) else None)
            if written := writer.close():
                files.append({"split": split, **written})
        except BaseException:
            writer.abort()
            raise
    return {"documents_sha256": entry.get("documents_sha256"), "counts": counts, "files": files}


# -- what describes them


def finish(run, chunks, kept, shards):
    """Write what describes finished shards, put it with them into its place, and delete the chunks. shards: the entries
    that write_shard() returned."""
    new = run.out / NEW
    keep_drops(run.settings, chunks, kept, new)
    run.tokenizer.save(new / "tokenizer.json")
    summary = report.write(new, chunks, kept, run.settings, run.tokenizer)
    manifest = describe(run, shards, summary["sources"], summary["steps"][0]["bytes"])
    # From here on the folder holds the new shards, and until here the old ones.
    configurator.write_json(run.out / "manifest.json", with_names(manifest, lambda name: f"{NEW}/{name}"))
    settle(run.out)
    print_table(manifest, run.out)


def settle(out):
    """Move new shards from NEW to their place in the folder out, and what describes them. Nothing is done if the
    manifest does not name them there; where a move was interrupted, it goes on. At each moment every file that
    manifest.json names is whole."""
    if not (out / NEW).exists():
        return
    try:
        manifest = read_manifest(out)
        settled = with_names(manifest, lambda name: name.removeprefix(f"{NEW}/"))
    except (UserError, KeyError, TypeError, AttributeError):
        return  # none, or a damaged one
    if settled == manifest:
        return
    stale = {*out.glob("train_*.bin"), *out.glob("val_*.bin")}
    for path in sorted((out / NEW).iterdir()):
        put(path, out / path.name)
        stale.discard(out / path.name)
    for path in stale:
        path.unlink()
    (out / "chunks/progress.json").unlink(missing_ok=True)  # without it what is left of the chunks means nothing
    configurator.write_json(out / "manifest.json", settled)
    shutil.rmtree(out / "chunks")


def put(path, place):
    """Give a file a second name, in place of the file that has had it; its content is copied where there are no links
    between names."""
    beside = Path(f"{place}.tmp")
    beside.unlink(missing_ok=True)
    if not place.exists() or not place.samefile(path):
        try:
            os.link(path, beside)
        except OSError:
            with naming(place):
                shutil.copyfile(path, beside)
        os.replace(beside, place)


def with_names(manifest, change):
    """A copy of a manifest in which each file has the name change(name)."""
    manifest = json.loads(json.dumps(manifest))
    entries = list(manifest["files"])
    for shard in manifest.get("shards", []):
        entries += shard["files"]
    for entry in entries:
        for file in files_of(entry):
            file["name"] = change(file["name"])
    return manifest


def keep_drops(settings, chunks, kept, folder):
    """Write dropped.jsonl into a folder: what the first pass dropped, then the copies, each with the document that
    replaces it. Returns its path."""
    file = WholeFile(folder / "dropped.jsonl")
    try:
        for entry in chunks.entries:
            with open(chunks.folder / f"{entry['name']}.dropped", "rb") as part:
                shutil.copyfileobj(part, file)
        is_own = chunks.documents["source"] < len(settings.sources)
        for i in np.flatnonzero(is_own & (kept != np.arange(len(kept)))):
            mine, other = chunks.meta(i), chunks.meta(kept[i])
            is_exact = (chunks.documents["digest"][i] == chunks.documents["digest"][kept[i]]).all()
            rule, detail = "exact_duplicate" if is_exact else "near_duplicate", f"{other['source']}/{other['where']}"
            record = {"id": mine["where"], "source": mine["source"], "rule": rule, "detail": detail}
            file.write(json_line(record))
        file.close()
    except BaseException:
        file.abort()
        raise
    return file.path


def describe(run, shards, dropped, bytes_read=0):
    """The manifest. shards: write_shard()'s entries; dropped: {source: {rule: documents}}."""
    sources, splits, files = {}, no_documents(), []
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
        "pairs": run.settings.pairs,
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
    return {**manifest, "digest": digest_of(manifest)}


def digest_of(content):
    """The sha256 of the content of a manifest or of progress.json: what it does not fit, no run has written."""
    return hashlib.sha256(json.dumps(content).encode("utf-8", "surrogateescape")).hexdigest()


def no_documents():
    """Counts of both splits, all zero."""
    return {split: dict.fromkeys(COUNTS, 0) for split in ("train", "val")}


def print_table(manifest, out):
    """Print the manifest's counts, one line per source and split."""
    head = f"{'source':<28}{'split':<7}{'documents':>11}{'bytes':>16}{'tokens':>15}{'counted':>15}{'bytes/token':>13}"
    print(f"\n{head}  dropped")
    for source, counts in manifest["sources"].items():
        dropped = in_words(counts["dropped"]) or "none"
        for split in ("train", "val"):
            n = counts[split]
            line = f"{source[-27:]:<28}{split:<7}{n['documents']:>11,}{n['bytes']:>16,}{n['tokens']:>15,}"
            line += f"{n['counted']:>15,}{n['bytes'] / max(1, n['tokens']):>13.3f}"
            print(f"{line}  {dropped if split == 'train' else ''}")
    for source, counts in manifest["sources"].items():
        if not counts["train"]["documents"] + counts["val"]["documents"]:
            print(f"nothing is left of {source}: {in_words(counts['dropped']) or 'nothing was there'}")
    share = manifest["settings"]["val_fraction"]
    if share and not manifest["splits"]["val"]["documents"] and not manifest["settings"]["adopt"]:
        print(f"no document went to validation: use more documents or another share than --val_fraction={share:g}")
    if manifest["settings"]["fim_rate"]:
        train = manifest["splits"]["train"]
        print(f"{train['gaps']:,} of {train['documents']:,} training documents became gaps to fill")
    if any(counts["dropped"] for counts in manifest["sources"].values()):
        print(f"what was dropped and why: {out / 'report.html'}, one line each: {out / 'dropped.jsonl'}")
    written = sum(split["bytes"] for split in manifest["splits"].values())
    megabytes, seconds = (manifest["bytes_read"] or written) / 1e6, manifest["seconds"]
    print(f"{megabytes:,.1f} MB read in {seconds:.1f} s, {megabytes / max(1e-9, seconds):.1f} MB/s -> {out}")
