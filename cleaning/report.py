"""What cleaning did, for a person: report.json, report.md and report.html beside the shards.

A funnel (documents, bytes and tokens after each step), rule by rule, with dropped documents to look at, pairs of near
duplicates side by side, sizes of clusters, and the benchmark problems that the data came close to.
"""

from pathlib import Path

import numpy as np

import configurator
import pages
from cleaning.chunks import EXAMPLES, add

SIZES = ("documents", "bytes", "tokens")
STEPS = ("filters", "quality", "decontamination", "exact_dedup", "near_dedup")  # the order in the report
SIMILAR_TEXT = (
    "1 is a copy by ten and more words in a row; the others are similarities of syntax trees. "
    "Score them apart: `eval_humaneval.py --similar=report.json`."
)


def write(out, chunks, kept, settings, tokenizer):
    """Write report.json, report.md and report.html into the folder out. Returns the contents of report.json.
    kept[i]: the number of the document that replaces document i, or i if it stays."""
    counts, documents = chunks.counts(), chunks.documents
    gone = np.flatnonzero(kept != np.arange(len(kept)))
    is_exact = (documents["digest"][gone] == documents["digest"][kept[gone]]).all(axis=1)
    exact, near = gone[is_exact], gone[~is_exact]
    add(counts.drops, copies_by_source("exact_dedup", "exact_duplicate", documents[exact], settings.sources))
    add(counts.drops, copies_by_source("near_dedup", "near_duplicate", documents[near], settings.sources))
    _, members = np.unique(kept, return_counts=True)
    sizes, numbers = np.unique(members[members > 1], return_counts=True)
    by_similarity = sorted(counts.closest.items(), key=lambda item: (-item[1][0], item[0]))
    similar = {problem: {"similarity": highest, "document": where} for problem, (highest, where) in by_similarity}
    examples = {}
    for rule, found in sorted(counts.examples.items()):
        examples[rule] = [{"id": where, "detail": detail, "text": text} for _, where, detail, text in found]
    evenly = np.unique(np.linspace(0, len(near) - 1, EXAMPLES).astype(int)) if len(near) else []
    report = {
        "steps": funnel(counts.read, counts.drops, steps_that_ran(settings)),
        "sources": per_source(counts.drops, settings.sources),
        "replaced": counts.replaced,
        "retrieved": counts.retrieved,
        "clusters": dict(zip(sizes.tolist(), numbers.tolist())),  # documents in a cluster -> number of such clusters
        "benchmarks": {"similar": similar},
        "examples": examples,
        "duplicates": [pair(chunks, near[k], kept[near[k]], tokenizer) for k in evenly],
        "made_by": configurator.made_by(),
    }
    configurator.write_json(Path(out) / "report.json", report)
    pages.write(Path(out) / "report", contents(report))
    return report


def copies_by_source(step, rule, copies, sources):
    """Documents that were dropped as copies, a DOCUMENT array, counted as in Counts.drops."""
    drops = {}
    for number, source in enumerate(sources):
        mine = copies[copies["source"] == number]
        if len(mine):
            sizes = {"documents": len(mine), "bytes": int(mine["bytes"].sum()), "tokens": int(mine["tokens"].sum())}
            drops[source] = {step: {rule: sizes}}
    return drops


def per_source(drops, sources):
    """{source: {rule: documents}}."""
    result = {source: {} for source in sources}
    for source, steps in drops.items():
        for rules in steps.values():
            add(result[source], {rule: sizes["documents"] for rule, sizes in rules.items()})
    return result


def pair(chunks, dropped, kept, tokenizer):
    """A near-duplicate and the document that is kept in its place, with the beginnings of their texts."""
    texts = [tokenizer.decode(chunks.tokens(i)[:400].tolist())[:600] for i in (dropped, kept)]
    return {"dropped": chunks.meta(dropped)["where"], "kept": chunks.meta(kept)["where"], "texts": texts}


def steps_that_ran(settings):
    """The names of the steps that the settings ask for; the others change and drop nothing."""
    asked = {
        "replace": settings.replace_pii or settings.strip_licenses or settings.simplify,
        "filters": settings.filters and not settings.chats,
        "quality": settings.quality or settings.scores,
        "decontamination": settings.decontaminate,
        "exact_dedup": settings.exact_dedup,
        "near_dedup": settings.near_dedup,
    }
    return ["read", *(step for step, is_asked in asked.items() if settings.clean and is_asked)]


def funnel(read, drops, ran):
    """One entry per step: whether it ran, what came in, what each rule dropped, what was kept."""
    left = dict.fromkeys((*SIZES, "raw_bytes"), 0)
    for sizes in read.values():
        add(left, sizes)
    raw = left.pop("raw_bytes")
    by_step = {}  # {step: {rule: sizes}}, all sources together
    for steps_of_source in drops.values():
        add(by_step, steps_of_source)
    unreadable = by_step.get("unreadable", {})
    n_read = left["documents"] + sum(sizes["documents"] for sizes in unreadable.values())
    rules = {rule: {**sizes, "kept": left["documents"]} for rule, sizes in unreadable.items()}
    readable = {"documents": left["documents"], "bytes": raw}
    steps = [
        {"step": "read", "documents": n_read, "bytes": raw, "rules": rules, "kept": readable},
        {"step": "replace", **readable, "rules": {}, "kept": left},
    ]
    for step in STEPS:
        entry = {"step": step, **left, "rules": {}}
        for rule, sizes in sorted(by_step.get(step, {}).items(), key=lambda item: -item[1]["documents"]):
            left = {name: left[name] - sizes[name] for name in SIZES}
            entry["rules"][rule] = {**sizes, "kept": left["documents"]}
        steps.append({**entry, "kept": left})
    return [{**entry, "ran": entry["step"] in ran} for entry in steps]


# -- for a person


def contents(report):
    """Yield the report as blocks of pages.py."""
    left, rules, off = [], [], []
    for step in report["steps"]:
        if not step["ran"] and not step["rules"]:  # empty documents are dropped by a step that is not asked for, too
            off.append(step["step"])
            continue
        left.append([step["step"], *(f"{step['kept'][name]:,}" if name in step["kept"] else "" for name in SIZES)])
        for rule, n in step["rules"].items():
            rules.append([step["step"], rule, f"{n['documents']:,}", f"{n['bytes']:,}", f"{n['kept']:,}"])
    yield "title", "What cleaning did"
    yield "code", report["made_by"]["command"]
    yield "heading", "The funnel"
    yield "bars", (["after", *SIZES], left)
    if off:
        yield "text", f"Not asked for: {', '.join(off)}."
    for name, done in (("replaced", "Replaced"), ("retrieved", "Put before requests")):
        if counts := report[name]:
            yield "text", f"{done}: " + ", ".join(f"{n:,} {what}" for what, n in sorted(counts.items())) + "."
    yield "heading", "Rule by rule"
    if rules:
        yield "table", (["step", "rule", "documents dropped", "bytes", "documents left"], [*rules, total(report)])
    else:
        yield "text", "No document was dropped."
    if report["clusters"]:
        yield "heading", "Clusters of copies"
        rows = [[f"{size}", f"{n:,}"] for size, n in report["clusters"].items()]
        yield "table", (["documents in a cluster", "clusters"], rows)
    for found in report["duplicates"]:
        captions = f"Dropped: {found['dropped']}", f"Kept: {found['kept']}"
        yield "texts", list(zip(captions, found["texts"]))
    if similar := report["benchmarks"]["similar"]:
        yield "heading", "Benchmark problems that the data came close to"
        yield "text", SIMILAR_TEXT
        nearest = list(similar.items())[:50]
        rows = [[problem, f"{found['similarity']:.2f}", found["document"]] for problem, found in nearest]
        yield "table", (["problem", "similarity", "document"], rows)
    if report["examples"]:
        yield "heading", "Dropped, for you to judge"
    for rule, found in report["examples"].items():
        yield "text", f"{rule}:"
        yield "texts", [(f"{example['id']} ({example['detail']})", example["text"][:300]) for example in found]


def total(report):
    """The last row of the table of rules: all that was dropped, and what is left."""
    dropped = []
    for step in report["steps"]:
        dropped += step["rules"].values()
    documents, size = (sum(sizes[name] for sizes in dropped) for name in ("documents", "bytes"))
    return ["all", "", f"{documents:,}", f"{size:,}", f"{report['steps'][-1]['kept']['documents']:,}"]
