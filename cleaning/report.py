"""What cleaning did, for a person: report.json, report.md and report.html beside the shards.

A funnel (documents, bytes and tokens after each step), rule by rule, with dropped documents to look at, pairs of near
duplicates side by side, sizes of clusters, and the benchmark problems that the data came close to.
"""

from pathlib import Path

import numpy as np

import configurator
import pages
from cleaning.counts import EXAMPLES, add

SIZES = ("documents", "bytes", "tokens")
STEPS = ("filters", "quality", "decontamination", "exact_dedup", "near_dedup")  # the order in the report
SIMILAR_TEXT = (
    "1 is a copy by ten and more words in a row; the others are similarities of syntax trees. "
    "Score them apart: `eval_humaneval.py --similar=report.json`."
)


def summary(counts, chunks, kept, settings, tokenizer):
    """The contents of report.json. counts: the first pass's Counts; kept[i]: the document that replaces i, or i."""
    gone = np.flatnonzero(kept != np.arange(len(kept)))
    digests = chunks.documents["digest"]
    exact = (digests[gone] == digests[kept[gone]]).all(axis=1)
    drops = {}
    add(drops, counts.drops)
    add_copies(drops, "exact_dedup", "exact_duplicate", chunks.documents[gone[exact]], settings.sources)
    add_copies(drops, "near_dedup", "near_duplicate", chunks.documents[gone[~exact]], settings.sources)
    return {
        "steps": funnel(counts.read, drops),
        "sources": per_source(drops, settings.sources),
        "replaced": counts.replaced,
        "clusters": cluster_sizes(kept),
        "benchmarks": {"similar": most_similar(counts.closest)},
        "examples": {rule: examples(found) for rule, found in sorted(counts.examples.items())},
        "duplicates": [pair(chunks, i, int(kept[i]), tokenizer) for i in sample(gone[~exact])],
        "made_by": configurator.made_by(),
    }


def add_copies(drops, step, rule, copies, sources):
    """Add the documents that were dropped as copies, a DOCUMENT array, to drops."""
    for number, source in enumerate(sources):
        mine = copies[copies["source"] == number]
        if len(mine):
            sizes = {"documents": len(mine), "bytes": int(mine["bytes"].sum()), "tokens": int(mine["tokens"].sum())}
            add(drops, {source: {step: {rule: sizes}}})


def per_source(drops, sources):
    """{source: {rule: documents}}."""
    result = {source: {} for source in sources}
    for source, steps in drops.items():
        for rules in steps.values():
            add(result[source], {rule: sizes["documents"] for rule, sizes in rules.items()})
    return result


def cluster_sizes(kept):
    """{documents in a cluster of copies: number of such clusters}, rising."""
    _, members = np.unique(kept, return_counts=True)
    sizes, numbers = np.unique(members[members > 1], return_counts=True)
    return dict(zip(sizes.tolist(), numbers.tolist()))


def most_similar(closest):
    """{problem: {"similarity", "document"}}, the most similar first, from Counts.closest."""
    falling = sorted(closest.items(), key=lambda item: (-item[1][0], item[0]))
    return {problem: {"similarity": similarity, "document": where} for problem, (similarity, where) in falling}


def examples(found):
    """Counts' examples of one rule as records."""
    return [{"id": where, "detail": detail, "text": text} for _, where, detail, text in found]


def sample(numbers):
    """EXAMPLES of an array's numbers, evenly spread."""
    if not len(numbers):
        return []
    places = np.linspace(0, len(numbers) - 1, EXAMPLES).astype(int)
    return numbers[np.unique(places)].tolist()


def pair(chunks, dropped, kept, tokenizer):
    """A near-duplicate and the document that is kept in its place, with the beginnings of their texts."""
    texts = [tokenizer.decode(chunks.tokens(i)[:400].tolist())[:600] for i in (dropped, kept)]
    return {"dropped": chunks.meta(dropped)["where"], "kept": chunks.meta(kept)["where"], "texts": texts}


def funnel(read, drops):
    """One entry per step: what came in, what each rule dropped, what was kept."""
    left = dict.fromkeys((*SIZES, "raw_bytes"), 0)
    for sizes in read.values():
        add(left, sizes)
    raw = left.pop("raw_bytes")
    unreadable = by_rule(drops, "unreadable")
    n_unreadable = sum(sizes["documents"] for sizes in unreadable.values())
    readable = {"documents": left["documents"], "bytes": raw}
    rules = {rule: {**sizes, "kept": left["documents"]} for rule, sizes in unreadable.items()}
    n_read = left["documents"] + n_unreadable
    steps = [
        {"step": "read", "documents": n_read, "bytes": raw, "rules": rules, "kept": readable},
        {"step": "replace", **readable, "rules": {}, "kept": dict(left)},
    ]
    for step in STEPS:
        entry = {"step": step, **left, "rules": {}}
        for rule, sizes in sorted(by_rule(drops, step).items(), key=lambda item: -item[1]["documents"]):
            left = {name: left[name] - sizes[name] for name in SIZES}
            entry["rules"][rule] = {**sizes, "kept": left["documents"]}
        steps.append({**entry, "kept": left})
    return steps


def by_rule(drops, step):
    """{rule: {"documents", "bytes", "tokens"}} of one step, all sources together."""
    total = {}
    for steps in drops.values():
        for rule, sizes in steps.get(step, {}).items():
            add(total.setdefault(rule, dict.fromkeys(SIZES, 0)), sizes)
    return total


# -- for a person


def write(out, report):
    """Write report.json, report.md and report.html into the folder out."""
    out = Path(out)
    configurator.write_json(out / "report.json", report)
    pages.write(out / "report", contents(report))


def contents(report):
    """Yield the report as blocks of pages.py."""
    yield "title", "What cleaning did"
    yield "text", f"`{report['made_by']['command']}`"
    yield "heading", "The funnel"
    yield "bars", (["after", *SIZES], funnel_rows(report["steps"]))
    if report["replaced"]:
        yield "text", "Replaced: " + ", ".join(f"{n:,} {what}" for what, n in sorted(report["replaced"].items())) + "."
    yield "heading", "Rule by rule"
    yield "table", (["step", "rule", "documents dropped", "bytes", "documents left"], rule_rows(report["steps"]))
    if report["clusters"]:
        rows = [[f"{size}", f"{n:,}"] for size, n in report["clusters"].items()]
        yield "heading", "Clusters of copies"
        yield "table", (["documents in a cluster", "clusters"], rows)
    for found in report["duplicates"]:
        yield "text", f"Dropped: {found['dropped']}. Kept: {found['kept']}."
        yield "texts", found["texts"]
    if similar := report["benchmarks"]["similar"]:
        nearest = list(similar.items())[:50]
        rows = [[name, f"{found['similarity']:.2f}", found["document"]] for name, found in nearest]
        yield "heading", "Benchmark problems that the data came close to"
        yield "text", SIMILAR_TEXT
        yield "table", (["problem", "similarity", "document"], rows)
    if report["examples"]:
        yield "heading", "Dropped, for you to judge"
    for rule, found in report["examples"].items():
        yield "text", f"{rule}: " + "; ".join(f"{example['id']} ({example['detail']})" for example in found)
        yield "texts", [example["text"][:300] for example in found]


def funnel_rows(steps):
    """What is left after each step; the first has no tokens yet."""
    rows = []
    for step in steps:
        kept = step["kept"]
        rows.append([step["step"], *(f"{kept[name]:,}" if name in kept else "" for name in SIZES)])
    return rows


def rule_rows(steps):
    """What each rule dropped, in the order of the steps."""
    rows = []
    for step in steps:
        for rule, n in step["rules"].items():
            rows.append([step["step"], rule, f"{n['documents']:,}", f"{n['bytes']:,}", f"{n['kept']:,}"])
    return rows
