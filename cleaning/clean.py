"""What happens to one document between reading and deduplication: replace, filter, decontaminate, tokenize, sign.

A document passes the steps in this order, and the first that objects drops it with a rule's name and a reason. The
result depends on the document and the settings alone, so any number of processes can share the work.
"""

import gc
import hashlib
import json
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

from configurator import UserError
from cleaning import classifier, decontaminate, dedup, pii, prose, rules
from corpus import chats
from cleaning.chunks import DOCUMENT
from corpus.documents import Problem
from cleaning.view import CHINESE, CODE, PROSE, PYTHON, View, kind_of
from tokenizer import Tokenizer

RULES = {
    PYTHON: rules.PYTHON_RULES,
    CODE: rules.CODE_RULES,
    PROSE: prose.PROSE_RULES,
    CHINESE: prose.CHINESE_RULES,
}
STEPS = ("filters", "quality", "decontamination", "exact_dedup", "near_dedup")  # the order in the report
BATCH_BYTES = 1_000_000  # text handed to a worker at a time
EXAMPLES = 3  # dropped documents that the report shows per rule


@dataclass
class CleanSettings:
    """A part of prepare_data.Settings, whose sources, chats, prompts and char_noise it relies on."""

    clean: bool = True  # all of the cleaning below; false drops nothing but what cannot be read
    replace_pii: bool | None = None  # e-mail and IP addresses, keys and tokens become placeholders; auto = not in chats
    strip_licenses: bool = True  # code: the comment with copyright and licence at the top is taken off
    filters: bool = True  # drop documents that fall to a rule; the thresholds are below
    kind: str = ""  # records without path and language are: python, code, prose, chinese; empty = told by their look
    simplify: bool = False  # Chinese: traditional characters become simplified ones (needs opencc)
    quality: str = ""  # drop what this classifier scores low (python -m cleaning.classifier makes one)
    min_quality: float | None = None  # its threshold; auto = the one that was chosen when it was trained
    scores: str = ""  # drop by the scores in this file, {"id", "score"} a line (python score.py makes one)
    min_score: float | None = None  # keep from this score on; auto = from any
    max_score: float | None = None  # keep up to this score; auto = up to any
    decontaminate: list[str] = field(default_factory=list)  # files of benchmark problems whose copies are dropped
    min_similarity: float = 0.9  # of a function's syntax tree to a benchmark solution's, from which it is a copy
    exact_dedup: bool = True  # of documents with the same text, trailing white space apart, keep one
    near_dedup: bool | None = None  # of documents with nearly the same 5-grams of words, keep one; auto = not of chats
    near_threshold: float = 0.7  # Jaccard similarity of their 5-grams from which two documents are the same (BigCode)

    def check(self):
        self.resolve()
        if not 0 < self.near_threshold <= 1 or not 0 < self.min_similarity <= 1:
            raise UserError("near_threshold and min_similarity must lie in (0, 1]")
        if self.kind not in ("", *RULES):
            raise UserError(f"kind must be one of {', '.join(RULES)}, or empty, not {self.kind!r}")

    def resolve(self):
        """Fill in what auto stands for. In instruction data made-up addresses are part of the task, and requests that
        differ in a number are different ones."""
        self.replace_pii = not self.chats if self.replace_pii is None else self.replace_pii
        self.near_dedup = not self.chats if self.near_dedup is None else self.near_dedup

    def banding(self):
        """(bands, rows) of the signatures; none where they are not needed."""
        return dedup.banding(self.near_threshold) if self.clean and self.near_dedup else (0, 1)


class Cleaner:
    """The steps, with what they need loaded once per process."""

    def __init__(self, settings, tokenizer):
        self.s, self.tokenizer = settings, tokenizer
        self.prompts = chats.Prompts(settings.prompts)
        on = settings.clean
        self.benchmarks = decontaminate.load(settings.decontaminate) if on and settings.decontaminate else None
        self.classifier = classifier.Classifier.load(settings.quality) if on and settings.quality else None
        self.scores = classifier.read_scores(settings.scores) if on and settings.scores else None
        self.bands, self.rows = settings.banding()
        gc.freeze()  # what is loaded for good, the garbage collector need not look through again and again

    def replaced(self, text, kind, counts):
        """A document's text, a conversation's as JSON, with placeholders and without its licence."""
        if self.s.chats:
            chat = json.loads(text)
            for message in chat["messages"]:
                message["content"] = self.replaced_text(message["content"], kind, counts)
            return json.dumps(chat, ensure_ascii=False)
        cleaned = self.replaced_text(text, kind, counts)
        if cleaned != text and kind == PYTHON and rules.syntax_error(cleaned) and not rules.syntax_error(text):
            return text  # a replacement must not break a program
        return cleaned

    def replaced_text(self, text, kind, counts):
        if self.s.replace_pii:
            text, found = pii.replaced(text)
            counts.update(found)
        if self.s.strip_licenses and kind in (PYTHON, CODE):
            text = pii.without_license(text)
        return prose.simplified(text) if self.s.simplify and kind == CHINESE else text

    def encode(self, text):
        """(ids, mask, bytes) of a document or a conversation; the mask of a document is all 1."""
        if not self.s.chats:
            return self.tokenizer.encode(text), None, len(text.encode())
        messages = chats.finished(text, self.prompts, self.s.char_noise)
        return *self.tokenizer.render(messages), sum(len(message["content"].encode()) for message in messages)

    def objection(self, view, where, source, closest):
        """(step, rule, reason) of what drops a document, or None."""
        s = self.s
        if not view.text.strip():
            return "filters", "empty", "nothing but a licence"
        if s.filters and not s.chats and (found := rules.verdict(view, RULES[view.kind], s)):
            return "filters", *found
        if self.classifier and (reason := self.classifier.objection(view, s.min_quality)):
            return "quality", "low_quality", reason
        if self.scores is not None and (reason := classifier.score_objection(self.scores, source, where, s)):
            return "quality", "score", reason
        if self.benchmarks:
            return self.contamination(view, where, closest)

    def contamination(self, view, where, closest):
        names = self.benchmarks.names
        if found := decontaminate.copied(view, self.benchmarks):
            number, words = found
            nearer(closest, names[number], 1.0, where)
            return "decontamination", "benchmark_words", f"{names[number]}: {words}"
        best = decontaminate.closest(view, self.benchmarks)
        for number, similarity in best.items():
            nearer(closest, names[number], round(similarity, 3), where)
        number = max(best, key=lambda n: (best[n], -n), default=None)
        if number is not None and best[number] >= self.s.min_similarity:
            return "decontamination", "benchmark_structure", f"{names[number]}: similarity {best[number]:.2f}"


def nearer(closest, problem, similarity, where):
    """Note where a document comes closer to a problem than those before; the same whatever their order."""
    closest[problem] = max(tuple(closest.get(problem, (0.0, ""))), (similarity, where))


def new_cleaner(settings, tokenizer):
    return Cleaner(settings, Tokenizer.load(tokenizer))


def survey(cleaner, batch, sources):
    """What a chunk holds of a batch, a list of (source number, Document or Problem), as bytes and arrays, and counts of
    what was done: drops by (source, step, rule), replacements, and the closest that any document comes to a problem.
    sources: their names; documents of numbers behind the settings' own are those of --against: only signed."""
    s, found = cleaner.s, Survey(cleaner.bands)
    for number, item in batch:
        source, own = sources[number], number < len(s.sources)
        if isinstance(item, Problem):
            found.drop(source, item.where, "unreadable", item.rule, item.detail)
            continue
        kind = "" if s.chats else kind_of(item.text, item.meta, s.kind)
        text = cleaner.replaced(item.text, kind, found.replaced) if s.clean and own else item.text
        ids, mask, n_bytes = cleaner.encode(text)
        view = View(plain_text(text) if s.chats else text, item.where, kind)
        view.n_tokens, view.token_bits = len(ids), math.log2(cleaner.tokenizer.vocab_size)
        if own:
            sizes = {"bytes": n_bytes, "tokens": len(ids) + 1}
            found.read[source].update(documents=1, raw_bytes=len(item.text.encode()), **sizes)
            if s.clean and (objection := cleaner.objection(view, item.where, source, found.closest)):
                found.drop(source, item.where, *objection, sizes, view.text)
                continue
        found.keep(cleaner, number, source, item, text, view, ids, mask, n_bytes)
    return found.finished()


def plain_text(chat):
    """What a conversation's turns say."""
    return "\n\n".join(message["content"] for message in json.loads(chat)["messages"])


class Survey:
    """The parts of what survey() returns, growing document by document."""

    def __init__(self, n_bands):
        self.tokens, self.masks, self.shingles, self.bands = [], [], [], [np.zeros((0, n_bands), np.uint64)]
        self.documents, self.meta, self.meta_size, self.dropped = [], [], 0, []
        self.read, self.drops = defaultdict(Counter), defaultdict(Counter)
        self.examples, self.replaced, self.closest = {}, Counter(), {}

    def drop(self, source, where, step, rule, detail, sized=None, text=""):
        self.drops[f"{source}\t{step}\t{rule}"].update(documents=1, **(sized or {}))
        line = {"id": where, "source": source, "rule": rule, "detail": detail}
        self.dropped.append(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        if text:
            key = hashlib.sha256(text.encode()).hexdigest()[:16]  # a sample that depends on the texts alone
            shown = self.examples.setdefault(rule, [])
            shown.append([key, where, detail, text[:600]])
            self.examples[rule] = sorted(shown)[:EXAMPLES]

    def keep(self, cleaner, number, source, item, text, view, ids, mask, n_bytes):
        self.tokens.append(np.array([cleaner.tokenizer.eot, *ids], np.uint16))
        if mask is not None:
            self.masks.append(np.array([0, *mask], np.uint8))
        shingles = np.zeros(0, np.uint32)
        if cleaner.bands:
            shingles = dedup.shingles(view.fivegrams)
            signature = dedup.signature(shingles, cleaner.bands * cleaner.rows)
            self.bands.append(dedup.band_keys(signature, cleaner.bands, cleaner.rows)[None])
        self.shingles.append(shingles)
        digest = dedup.exact_digest(text)
        split = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        counted = len(ids) + 1 if mask is None else sum(mask)
        self.documents.append((len(ids) + 1, counted, n_bytes, len(shingles), number, split, self.meta_size, digest))
        meta = {"source": source, "where": item.where} | {key: plain(item.meta[key]) for key in ("stars", "date", "path") if key in item.meta}  # fmt: skip
        self.meta.append(json.dumps(meta, ensure_ascii=False).encode() + b"\n")
        self.meta_size += len(self.meta[-1])

    def finished(self):
        return {
            "tokens": b"".join(part.tobytes() for part in self.tokens),
            "mask": b"".join(part.tobytes() for part in self.masks),
            "shingles": b"".join(part.tobytes() for part in self.shingles),
            "bands": np.concatenate(self.bands),
            "documents": np.array(self.documents, DOCUMENT),
            "meta": b"".join(self.meta),
            "dropped": b"".join(self.dropped),
            "counts": {
                "read": dict(self.read),
                "drops": dict(self.drops),
                "examples": self.examples,
                "replaced": dict(self.replaced),
                "closest": self.closest,
            },
        }


def plain(value):
    """A record's stars or date as JSON can hold it."""
    return value if isinstance(value, (int, float, str)) else str(value)


def merged(total, counts):
    """Add a batch's counts to a total, both as in survey()."""
    for name in ("read", "drops"):
        for key, counter in counts[name].items():
            mine = total[name].setdefault(key, {})
            for what, n in counter.items():
                mine[what] = mine.get(what, 0) + n
    for rule, examples in counts["examples"].items():
        total["examples"][rule] = sorted(total["examples"].get(rule, []) + [list(e) for e in examples])[:EXAMPLES]
    for what, n in counts["replaced"].items():
        total["replaced"][what] = total["replaced"].get(what, 0) + n
    for problem, (similarity, where) in counts["closest"].items():
        nearer(total["closest"], problem, similarity, where)
    return total


def no_counts():
    return {"read": {}, "drops": {}, "examples": {}, "replaced": {}, "closest": {}}
