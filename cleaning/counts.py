"""What the first pass counts: one Counts per batch of documents, added up to one per chunk and one per run.

All of it is plain dicts, lists and numbers: asdict(counts) is JSON, and Counts(**loaded) is the way back.
"""

from dataclasses import dataclass, field

EXAMPLES = 3  # dropped documents that the report shows per rule


def add(total, more):
    """Add the numbers of one nested dict to another's, in place: {"a": {"x": 1}} and {"a": {"x": 2, "y": 1}} make
    {"a": {"x": 3, "y": 1}}."""
    for key, value in more.items():
        if isinstance(value, dict):
            add(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value


@dataclass
class Counts:
    """What was read, dropped and replaced. The order in which counts are added changes nothing in them."""

    read: dict = field(default_factory=dict)  # {source: {"documents", "raw_bytes", "bytes", "tokens"}}
    drops: dict = field(default_factory=dict)  # {source: {step: {rule: {"documents", "bytes", "tokens"}}}}
    replaced: dict = field(default_factory=dict)  # {"email": 3, "ip": 1, "key": 0}
    # {rule: up to EXAMPLES of [sha256 of the text, id, detail, beginning of the text]}, those of the lowest sha256:
    # a sample that depends on the texts alone
    examples: dict = field(default_factory=dict)
    closest: dict = field(default_factory=dict)  # {problem: [highest similarity, id of the document]}

    def add(self, other):
        """Add another's counts to these."""
        for mine, more in ((self.read, other.read), (self.drops, other.drops), (self.replaced, other.replaced)):
            add(mine, more)
        for rule, examples in other.examples.items():
            for example in examples:
                self.add_example(rule, example)
        for problem, (similarity, where) in other.closest.items():
            self.add_closest(problem, similarity, where)

    @classmethod
    def total(cls, entries):
        """The counts of chunks together, from their entries."""
        total = cls()
        for entry in entries:
            total.add(cls(**entry["counts"]))
        return total

    def add_example(self, rule, example):
        """Keep a dropped document, [sha256, id, detail, text], if it is among the EXAMPLES that are shown."""
        self.examples[rule] = sorted([*self.examples.get(rule, []), example])[:EXAMPLES]

    def add_closest(self, problem, similarity, where):
        """Note a document that comes closer to a benchmark problem than those before."""
        self.closest[problem] = max(self.closest.get(problem, [0.0, ""]), [similarity, where])
