"""How much the code rules drop of well-kept code: the standard library and larger installed packages.

python -m experiments.code_rules            a table per project and per rule; 2 minutes
python -m experiments.code_rules --max_data_lines=0.5
"""

import needs  # noqa: F401

import collections
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

import configurator
from cleaning.rules import PYTHON_RULES, Thresholds, verdict
from cleaning.view import View
from corpus.documents import Document, read
from experiments.common import print_table
from ranges import Natural


@dataclass
class Settings(Thresholds):
    """The rules' thresholds, and what they are tried on."""

    # -- projects
    min_files: Natural = 50  # a project with fewer Python files is passed over


def main(settings):
    """Apply the rules to every project and print both tables."""
    packages = sorted(Path(sysconfig.get_paths()["purelib"]).iterdir())
    rules, examples, rows, n_files = collections.Counter(), {}, [], 0
    for source in tqdm(["stdlib", *map(str, packages)], desc="projects", unit="project"):
        documents = [item for item in read(source) if isinstance(item, Document) and item.where.endswith(".py")]
        if len(documents) < settings.min_files:
            continue
        name, dropped = Path(source).name, collections.Counter()
        for document in documents:
            if drop := verdict(View(document.text, document.where), PYTHON_RULES, settings):
                rule, reason = drop
                dropped[rule] += 1
                examples[rule] = f"{name}/{document.where}: {reason}"
        n_files += len(documents)
        rules += dropped
        most = ", ".join(f"{n} {rule}" for rule, n in dropped.most_common(3))
        rows.append((name, len(documents), dropped.total(), most))
    rows.append(("all", n_files, rules.total(), ""))
    projects = [[name, f"{n:,}", f"{dropped:,}", f"{dropped / n:.1%}", most] for name, n, dropped, most in rows]
    print_table(["project", "files", "dropped", "share", "mostly by"], projects, "<>>><")
    print()
    by_rule = [[rule, f"{n:,}", examples[rule]] for rule, n in rules.most_common()]
    print_table(["rule", "files", "for example"], by_rule, "<><")


if __name__ == "__main__":
    configurator.run(main, Settings)
