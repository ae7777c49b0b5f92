"""What cleaning did, for a person: report.json, report.md and report.html beside the shards.

A funnel (documents, bytes and tokens after each step), rule by rule, with dropped documents to look at, pairs of near
duplicates side by side, sizes of clusters, and the benchmark problems that the data came close to.
"""

from pathlib import Path

import numpy as np

import configurator
import pages
from cleaning.clean import EXAMPLES, STEPS

SIZES = ("documents", "bytes", "tokens")


def summary(counts, chunks, kept, settings, tokenizer):
    """report.json's contents. counts: as clean.survey() gives them; kept: for each document of the chunks the one that
    is kept in its place."""
    documents = chunks.documents
    gone = np.flatnonzero(kept != np.arange(len(kept)))
    exact = (documents["digest"][gone] == documents["digest"][kept[gone]]).all(axis=1)
    drops = dict(counts["drops"])
    for step, rule, which in (("exact_dedup", "exact_duplicate", gone[exact]), ("near_dedup", "near_duplicate", gone[~exact])):  # fmt: skip
        for number, source in enumerate(settings.sources):
            mine = which[documents["source"][which] == number]
            if len(mine):
                sizes = {"documents": len(mine)} | {name: int(documents[name][mine].sum()) for name in SIZES[1:]}
                drops[f"{source}\t{step}\t{rule}"] = sizes
    sizes, n_clusters = np.unique(np.unique(kept, return_counts=True)[1], return_counts=True) if len(kept) else ([], [])
    similar = sorted(counts["closest"].items(), key=lambda item: (-item[1][0], item[0]))
    return {
        "steps": funnel(counts["read"], drops),
        "sources": per_source(drops, settings.sources),
        "replaced": counts["replaced"],
        "clusters": {int(size): int(n) for size, n in zip(sizes, n_clusters) if size > 1},
        "benchmarks": {"similar": {name: {"similarity": s, "document": where} for name, (s, where) in similar}},
        "examples": {
            rule: [dict(zip(("id", "detail", "text"), e[1:])) for e in found]
            for rule, found in sorted(counts["examples"].items())
        },  # fmt: skip
        "duplicates": [pair(chunks, i, int(kept[i]), tokenizer) for i in sample(gone[~exact])],
        "made_by": configurator.made_by(),
    }


def per_source(drops, sources):
    """{source: {rule: documents}}."""
    result = {source: {} for source in sources}
    for name, sizes in drops.items():
        source, _, rule = name.split("\t")
        result[source][rule] = sizes["documents"]
    return result


def sample(numbers):
    """EXAMPLES of them, evenly spread."""
    return [int(numbers[i]) for i in np.unique(np.linspace(0, len(numbers) - 1, EXAMPLES).astype(int))] if len(numbers) else []  # fmt: skip


def pair(chunks, dropped, kept, tokenizer):
    texts = [tokenizer.decode(chunks.tokens(i)[:400].tolist())[:600] for i in (dropped, kept)]
    return {"dropped": chunks.meta(dropped)["where"], "kept": chunks.meta(kept)["where"], "texts": texts}


def funnel(read, drops):
    """One entry per step: what came in, what each rule dropped, what was kept."""
    left = {name: sum(source[name] for source in read.values()) for name in SIZES}
    unreadable, raw = by_rule(drops, "unreadable"), sum(source["raw_bytes"] for source in read.values())
    n_read = left["documents"] + sum(n["documents"] for n in unreadable.values())
    rules = {rule: {**n, "kept": left["documents"]} for rule, n in unreadable.items()}
    kept = {"documents": left["documents"], "bytes": raw}
    steps = [
        {"step": "read", "documents": n_read, "bytes": raw, "rules": rules, "kept": kept},
        {"step": "replace", "documents": left["documents"], "bytes": raw, "rules": {}, "kept": dict(left)},
    ]
    for step in STEPS:
        entry = {"step": step, **left, "rules": {}}
        for rule, n in sorted(by_rule(drops, step).items(), key=lambda item: -item[1]["documents"]):
            left = {name: left[name] - n.get(name, 0) for name in SIZES}
            entry["rules"][rule] = {**n, "kept": left["documents"]}
        steps.append({**entry, "kept": dict(left)})
    return steps


def by_rule(drops, wanted):
    total = {}
    for name, sizes in drops.items():
        _, step, rule = name.split("\t")
        if step == wanted:
            mine = total.setdefault(rule, dict.fromkeys(SIZES, 0))
            for key, n in sizes.items():
                mine[key] += n
    return total


# -- for a person


def write(out, report):
    """report.json, report.md, report.html in the folder out."""
    out = Path(out)
    configurator.write_json(out / "report.json", report)
    pages.write(out / "report", contents(report))


def contents(report):
    """The report as blocks of pages.py."""
    yield "title", "What cleaning did"
    yield "text", f"`{report['made_by']['command']}`"
    yield "heading", "The funnel"
    rows = [
        [s["step"], *(f"{s['kept'][name]:,}" if name in s["kept"] else "" for name in SIZES)] for s in report["steps"]
    ]
    yield "bars", (["after", *SIZES], rows)
    if report["replaced"]:
        yield "text", "Replaced: " + ", ".join(f"{n:,} {what}" for what, n in sorted(report["replaced"].items())) + "."
    yield "heading", "Rule by rule"
    rows = [[s["step"], rule, f"{n['documents']:,}", f"{n.get('bytes', 0):,}", f"{n['kept']:,}"] for s in report["steps"] for rule, n in s["rules"].items()]  # fmt: skip
    yield "table", (["step", "rule", "documents dropped", "bytes", "documents left"], rows)
    if report["clusters"]:
        yield "heading", "Clusters of copies"
        yield "table", (["documents in a cluster", "clusters"], [[f"{size}", f"{n:,}"] for size, n in report["clusters"].items()])  # fmt: skip
    for found in report["duplicates"]:
        yield "text", f"Dropped: {found['dropped']}. Kept: {found['kept']}."
        yield "texts", found["texts"]
    if similar := report["benchmarks"]["similar"]:
        yield "heading", "Benchmark problems that the data came close to"
        yield "text", "1 is a copy by ten and more words in a row; the others are similarities of syntax trees. Score them apart: `eval_humaneval.py --similar=report.json`."  # fmt: skip
        yield "table", (["problem", "similarity", "document"], [[name, f"{v['similarity']:.2f}", v["document"]] for name, v in list(similar.items())[:50]])  # fmt: skip
    if report["examples"]:
        yield "heading", "Dropped, for you to judge"
    for rule, found in report["examples"].items():
        yield "text", f"{rule}: " + "; ".join(f"{example['id']} ({example['detail']})" for example in found)
        yield "texts", [example["text"][:300] for example in found]
