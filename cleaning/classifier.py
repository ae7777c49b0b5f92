"""Labelled documents -> a classifier of their worth, by which prepare_data.py drops others.

    python -m cleaning.classifier --labelled=labels.jsonl --out=data/quality.npz
    python -m cleaning.classifier --labelled='code-alpaca?label=1,dolly?label=0'
    python prepare_data.py --sources=my_code/ --quality=data/quality.npz

fastText's model (arXiv:1607.01759) in numpy: logistic regression on the hashed 1- to 3-grams of a
text, one weight for each. (For two labels, fastText's embedding of an n-gram times its output layer
is also just one number per n-gram.) The labels may stand for anything: educational value (phi-1,
arXiv:2306.11644, had GPT-4 label 100,000 files), code questions in a general instruction set, ...
"""

import needs  # noqa: F401

import hashlib
import json
import math
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from tqdm import tqdm

import configurator
from cleaning import hashing
from cleaning.view import View
from configurator import UserError, not_special
from corpus import chats
from corpus.documents import Document, Problem, checked, from_record, read
from corpus.records import open_regular, records
from corpus.sources import distinct, parsed, place_of, spare
from ranges import Place, Positive, Range, Seed, ShareBetween, Text

BUCKETS_LOG2 = 20  # a million weights; a text of 1,000 words has some 3,000 n-grams
TEXT_FIELDS = ("text", "content", "code")


@dataclass
class Settings:
    """What is learnt from, and how."""

    # -- documents
    # records, a text or a conversation and its label; or, without labels, those of a source of one: SOURCE?label=1
    labelled: list[str] = field(default_factory=list)
    # the same, of other sets: what the classifier keeps of each is told, since a set of its own is easy to know again
    tested_on: list[str] = field(default_factory=list)
    positive: Text = "1"  # the label of what is to be kept; all other labels count as negative
    out: Place = "data/quality.npz"  # the classifier

    # -- threshold
    held_out: ShareBetween = 0.2  # share of the documents, by hash, that the threshold is chosen on
    beta: Positive = 1.0  # the threshold with the best F-beta is chosen: below 1 keeps less, and cleaner

    # -- learning
    epochs: Annotated[int, Range(1, 1000)] = 5  # passes over the documents
    lr: Positive = 0.5  # Adagrad's learning rate
    seed: Seed = 1337  # of the order of documents


def main(settings):
    """Learn from one part of the documents, choose the threshold on the other, save, print a table."""
    if not settings.labelled:
        raise UserError("nothing to learn from: --labelled=FILE,...")
    spare(settings.labelled, settings.out)
    train_part, held_out = [], []  # (features(), label) of each document
    documents = labelled_documents(settings.labelled, settings.positive)
    for text, label in tqdm(documents, desc="reading", unit="document", leave=False):
        place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        part = held_out if place < settings.held_out * 2**64 else train_part
        part.append((features(View(text)), label))
    for name, part in (("train", train_part), ("held out", held_out)):
        if len({label for _, label in part}) < 2:
            found = f"the {name} documents have one label only ({len(part)} of them)"
            much = f"more records, or another share than --held_out={settings.held_out:g}"
            raise UserError(f"{found}: it takes {much}; or is --positive={settings.positive} not right?")

    classifier = train(train_part, settings.epochs, settings.lr, settings.seed)
    scores = [classifier.probability(*example) for example, _ in held_out]
    labels = [label for _, label in held_out]
    cuts = thresholds(scores, labels, settings.beta)
    best = max(cuts, key=lambda cut: cut.f_beta)
    classifier.threshold = best.threshold
    classifier.save(settings.out)
    numbers = f"{len(train_part):,} documents for training, {len(held_out):,} held out"
    print(f"{numbers}: AUC {auc(scores, labels):.4f}\n")
    print_cuts(cuts, best)
    if settings.tested_on:
        print_test(classifier, settings)
    print(f"\nclassifier -> {settings.out}")


def print_cuts(cuts, best):
    """Print what the chosen threshold keeps, and what others would keep, for comparison."""
    shown = {best}
    for share in (0.9, 0.75, 0.5, 0.25, 0.1):
        shown.add(min(cuts, key=lambda cut: abs(cut.share - share)))
    print(f"{'threshold':>10}{'kept':>8}{'precision':>11}{'recall':>8}{'F':>8}")
    for cut in sorted(shown):
        line = f"{cut.threshold:>10.3f}{cut.share:>8.1%}{cut.precision:>11.1%}{cut.recall:>8.1%}{cut.f_beta:>8.3f}"
        print(line + ("  <- chosen" if cut == best else ""))


def print_test(classifier, settings):
    """Print how many documents of each other set the classifier keeps, and its precision and recall on all of them."""
    counts = Counter()  # (kept, label): documents
    print(f"\n{'other sets':<44}{'label':>6}{'documents':>11}{'kept':>8}")
    for source in distinct(settings.tested_on):
        found = Counter()
        for text, label in labelled_documents([source], settings.positive):
            found[classifier.score(View(text)) >= classifier.threshold, label] += 1
        for label in (1, 0):
            number = found[True, label] + found[False, label]
            if number:
                print(f"{source[-44:]:<44}{label:>6}{number:>11,}{found[True, label] / number:>8.1%}")
        counts += found
    kept, wanted = counts[True, 1] + counts[True, 0], counts[True, 1] + counts[False, 1]
    precision, recall = counts[True, 1] / max(1, kept), counts[True, 1] / max(1, wanted)
    print(f"precision {precision:.1%}, recall {recall:.1%}")


# -- documents


def labelled_documents(sources, positive):
    """Yield (text, 0 or 1) of every record; print how many cannot be used. Raises UserError for one without a label."""
    skipped = Counter()
    for source in distinct(sources):
        for item in read(source, partial(labelled, parsed(source).label)):
            if not isinstance(item, Problem):
                yield item.text, int(item.meta["label"].lower() == positive.lower())
            elif item.rule == "no_label":
                how = f"each record needs a text and a label, or the source one: {source}?label=1"
                raise UserError(f"{source}: {item.where} has no label; {how}")
            else:
                skipped[item.rule] += 1
    if skipped:
        print("skipped: " + ", ".join(f"{n} {rule}" for rule, n in skipped.most_common()))


def labelled(of_source, record, where, shape):
    """The Document of a record, whose meta is its label, or the Problem that it has. of_source: the label of all of its
    source's records, or ""."""
    label = of_source or (record.get("label") if isinstance(record, dict) else None)
    if label is None:
        return Problem(where, "no_label")
    is_text = shape and "text" in shape
    found = from_record(record, where, shape) if is_text else chats.from_record(record, where, shape)
    if isinstance(found, Problem) and not is_text:  # no conversation: a text, then
        texts = [record[name] for name in TEXT_FIELDS if isinstance(record.get(name), str)]
        found = checked(texts[0], where, {}) if texts else found
    elif isinstance(found, Document) and not is_text:
        found.text = "\n\n".join(message["content"] for message in json.loads(found.text)["messages"])
    if isinstance(found, Document):
        found.meta = {"label": str(label)}
    return found


def features(view):
    """(buckets, values) of a text: the hash buckets of its 1- to 3-grams, and the square root of how often each occurs,
    scaled so that the squares sum to 1."""
    hashes = view.tokens[0]
    found = np.concatenate([hashing.ngrams(hashes, n) for n in (1, 2, 3)]) >> np.uint64(64 - BUCKETS_LOG2)
    buckets, counts = np.unique(found, return_counts=True)
    values = np.sqrt(counts)
    return buckets.astype(np.int64), values / max(1e-9, np.sqrt(np.sum(values**2)))


# -- the classifier


class Classifier:
    """A logistic regression over hashed n-grams, and the probability below which a document is dropped."""

    def __init__(self, weights, bias, threshold):
        self.weights, self.bias, self.threshold = weights, bias, threshold  # weights: float32 (2^BUCKETS_LOG2,)

    def score(self, view):
        """The probability that a text is of the positive kind."""
        return float(self.probability(*features(view)))

    def probability(self, buckets, values):
        """The probability, 0 to 1, that the text with these features() is of the positive kind."""
        return 1 / (1 + np.exp(-(self.bias + self.weights[buckets] @ values)))

    def objection(self, view, threshold=None):
        """Why a text is dropped, or None to keep it. threshold: None for the one that training chose."""
        needed = self.threshold if threshold is None else threshold
        score = self.score(view)
        return f"score {score:.3f} < {needed:.3f}" if score < needed else None

    def save(self, path):
        """Write the weights that are not zero, bias and threshold as one .npz file."""
        not_special(Path(path)).parent.mkdir(parents=True, exist_ok=True)
        used = np.flatnonzero(self.weights)
        beside = Path(f"{path}.tmp.npz")
        try:
            np.savez_compressed(beside, used=used, weights=self.weights[used], bias=self.bias, threshold=self.threshold)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)  # left where path is a folder, or the disk is full

    @classmethod
    def load(cls, path):
        """The classifier that save() wrote. Raises UserError for any other file."""
        try:
            with open_regular(path) as file, np.load(file, allow_pickle=False) as saved:
                weights = np.zeros(1 << BUCKETS_LOG2, np.float32)
                if (saved["used"] < 0).any():
                    raise ValueError("it holds negative buckets")
                weights[saved["used"]] = saved["weights"].astype(np.float32, casting="same_kind")
                classifier = cls(weights, float(saved["bias"]), float(saved["threshold"]))
            if not np.isfinite([classifier.bias, classifier.threshold, weights.sum()]).all():
                raise ValueError("it holds numbers that are not finite")
            return classifier
        except FileNotFoundError:
            how = f"run `python -m cleaning.classifier --labelled=YOUR_RECORDS --out={path}`"
            raise UserError(f"no classifier {path}: {how}") from None
        except Exception as error:  # zip archives and arrays that are damaged can fail in many ways
            raise UserError(f"{path} is no classifier of python -m cleaning.classifier: {error}") from None


def train(labelled, epochs, lr, seed):
    """A Classifier of labelled documents, (features(), 0 or 1) each, by Adagrad (Duchi et al., 2011). Both labels weigh
    the same in the loss, however many documents each has."""
    classifier = Classifier(np.zeros(1 << BUCKETS_LOG2, np.float32), 0.0, 0.5)
    squares = np.full(1 << BUCKETS_LOG2, 1e-6, np.float32)  # Adagrad: the sum of squared gradients so far
    n_positive = sum(label for _, label in labelled)
    weight_of = {1: len(labelled) / (2 * n_positive), 0: len(labelled) / (2 * (len(labelled) - n_positive))}
    rng = np.random.default_rng(seed)
    for _ in tqdm(range(epochs), desc="training", unit="epoch", leave=False):
        for i in rng.permutation(len(labelled)):
            (buckets, values), label = labelled[i]
            slope = (classifier.probability(buckets, values) - label) * weight_of[label]
            squares[buckets] += (slope * values) ** 2
            classifier.weights[buckets] -= lr * slope * values / np.sqrt(squares[buckets])
            classifier.bias -= 0.01 * lr * slope
    return classifier


class Scores:
    """Scores that another program gave documents, `python -m evaluation.score` for one, and the bounds that they must
    keep to; a bound of None lets every score pass.

    path: a file of JSON lines, {"id": ..., "score": ...}, with "source" where several sources have the same id. Raises
    UserError for a file that is not there, for the first line that is no record of id and score, and for one that gives
    a document another score than a line above."""

    def __init__(self, path, lowest=None, highest=None):
        self.lowest, self.highest = lowest, highest
        self.scores = {}  # by id, or by (place, id) where the record names a source
        self.place_of = cache(place_of)
        if not Path(path).exists():
            raise UserError(f"no score file {path}: run `python -m evaluation.score --sources=YOUR_TEXT --out={path}`")
        for record, place in records(path):
            identity, source = record.get("id"), record.get("source")
            try:
                score = float(record["score"])
            except (ValueError, KeyError, TypeError, OverflowError):
                score = math.nan
            if not (isinstance(identity, str) and isinstance(source, str | None) and math.isfinite(score)):
                raise UserError(f"{path}, {place}: not a record of id and score, a string and a finite number")
            key = identity if source is None else (self.place_of(source), identity)
            if self.scores.setdefault(key, score) != score:
                raise UserError(f"{path}, {place}: another score of {identity!r} than above")
        if not self.scores:
            raise UserError(f"no scores in {path}")

    def objection(self, source, where):
        """Why a document is dropped, or None to keep it. A document without a score is dropped."""
        score = self.scores.get((self.place_of(source), where), self.scores.get(where))
        if score is None:
            return "no score"
        if self.lowest is not None and score < self.lowest:
            return f"score {score:.3f} < {self.lowest:g}"
        if self.highest is not None and score > self.highest:
            return f"score {score:.3f} > {self.highest:g}"


# -- how good it is


def auc(scores, labels):
    """The area under the ROC curve: the probability that a random positive scores above a random negative, where ties
    count half. Computed from the ranks of the scores (Mann and Whitney)."""
    scores, labels = np.asarray(scores), np.asarray(labels, bool)
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n, m = labels.sum(), (~labels).sum()
    return float((ranks[labels].sum() - n * (n + 1) / 2) / max(1, n * m))


class Cut(NamedTuple):
    """What a threshold would do to the held-out documents."""

    threshold: float
    share: float  # of the documents that are kept
    precision: float
    recall: float
    f_beta: float


def thresholds(scores, labels, beta):
    """A Cut for each score that occurs, from the lowest to the highest."""
    order = np.argsort(scores, kind="stable")
    scores, labels = np.asarray(scores)[order], np.asarray(labels)[order]
    first = np.flatnonzero(np.append(True, scores[1:] > scores[:-1]))  # where each score occurs first
    kept = len(scores) - first
    right = labels.sum() - np.append(0, np.cumsum(labels))[first]
    precision, recall = right / kept, right / max(1, labels.sum())
    f_beta = (1 + beta**2) * precision * recall / np.maximum(1e-9, beta**2 * precision + recall)
    rows = np.stack([scores[first], kept / len(scores), precision, recall, f_beta], axis=1)
    return [Cut(*row) for row in rows.tolist()]


if __name__ == "__main__":
    configurator.run(main, Settings, table="classifier")
