"""What the code rules drop of code that is well kept: the standard library and every installed package of some size.

python experiments/code_rules.py            a table per project and per rule; a minute
"""

import collections
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

import configurator
from corpus.documents import Document, read
from cleaning.rules import PYTHON_RULES, Thresholds, verdict
from cleaning.view import View


@dataclass
class Settings(Thresholds):
    min_files: int = 50  # a project with fewer is passed over


def main(s):
    packages = Path(sysconfig.get_paths()["purelib"])
    projects = {"stdlib": "stdlib"} | {p.name: str(p) for p in sorted(packages.iterdir()) if p.is_dir()}
    rules, rows, why = collections.Counter(), [], {}
    for name, source in tqdm(projects.items(), desc="projects", unit="project"):
        views = [View(d.text, d.where) for d in read(source) if isinstance(d, Document) and d.where.endswith(".py")]
        if len(views) < s.min_files:
            continue
        found = [(view.where, verdict(view, PYTHON_RULES, s)) for view in views]
        mine = collections.Counter(drop[0] for _, drop in found if drop)
        why.update({drop[0]: f"{name}/{where}: {drop[1]}" for where, drop in found if drop})
        rules += mine
        rows.append((name, len(views), sum(mine.values()), ", ".join(f"{n} {rule}" for rule, n in mine.most_common(3))))
    print(f"{'project':<16}{'files':>7}{'dropped':>9}{'share':>8}   most by")
    for name, n, dropped, most in [*rows, ("all", sum(r[1] for r in rows), sum(r[2] for r in rows), "")]:
        print(f"{name:<16}{n:>7,}{dropped:>9,}{dropped / n:>8.1%}   {most}")
    print(f"\n{'rule':<18}{'files':>6}   for example")
    for rule, n in rules.most_common():
        print(f"{rule:<18}{n:>6,}   {why[rule]}")


if __name__ == "__main__":
    configurator.run(main, Settings)
