"""A learnt score of a document's worth: labelled documents -> a classifier that prepare_data.py drops by.

fastText's model (arXiv:1607.01759) in numpy: the hashed 1- to 3-grams of a text, a weight for each, a logistic of
their normalised sum. With two labels fastText's layer of embeddings times its output layer is one number per n-gram,
and that number is what is learnt here, with Adagrad. What it tells apart is what the labels say: educational value
(phi-1, arXiv:2306.11644, had GPT-4 label 100,000 files), code questions in a general instruction set, ...
"""

import hashlib
import json
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

import configurator
from configurator import UserError
from cleaning import hashing
from corpus import chats
from corpus.documents import Problem, read
from cleaning.view import View

BUCKETS_LOG2 = 20  # a million weights; a text of 1,000 words has some 3,000 n-grams


@dataclass
class Settings:
    labelled: list[str] = field(default_factory=list)  # files of records: a text or a conversation, and its label
    positive: str = "1"  # the label of what is to be kept; every other one is the contrary
    out: str = "data/quality.npz"  # the classifier
    held_out: float = 0.2  # share of the documents, by hash, that the threshold is chosen on
    beta: float = 1.0  # weight of recall against precision where it is chosen: below 1 keeps less, and cleaner
    epochs: int = 5  # passes over the documents
    lr: float = 0.5  # Adagrad's learning rate
    seed: int = 1337  # of the order of documents


def features(view):
    """(buckets, values) of a text's 1- to 3-grams; the values' squares sum to 1."""
    hashes = view.tokens[0]
    found = np.concatenate([hashing.ngrams(hashes, n) for n in (1, 2, 3)]) >> np.uint64(64 - BUCKETS_LOG2)
    buckets, counts = np.unique(found, return_counts=True)
    values = np.sqrt(counts)
    return buckets.astype(np.int64), values / max(1e-9, np.sqrt(np.sum(values**2)))


class Classifier:
    def __init__(self, weights, bias, threshold):
        self.weights, self.bias, self.threshold = weights, bias, threshold

    def score(self, view):
        """The probability, by the classifier, that a text is of the positive kind."""
        return float(self.probability(*features(view)))

    def probability(self, buckets, values):
        return 1 / (1 + np.exp(-(self.bias + self.weights[buckets] @ values)))

    def objection(self, view, threshold=None):
        needed = self.threshold if threshold is None else threshold
        score = self.score(view)
        return f"score {score:.3f} < {needed:.3f}" if score < needed else None

    def save(self, path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        used = np.flatnonzero(self.weights)
        beside = Path(f"{path}.tmp.npz")
        np.savez_compressed(beside, used=used, weights=self.weights[used], bias=self.bias, threshold=self.threshold)
        os.replace(beside, path)

    @classmethod
    def load(cls, path):
        try:
            with np.load(path, allow_pickle=False) as saved:
                weights = np.zeros(1 << BUCKETS_LOG2, np.float32)
                weights[saved["used"]] = saved["weights"]
                return cls(weights, float(saved["bias"]), float(saved["threshold"]))
        except FileNotFoundError:
            raise UserError(f"no classifier {path}: python -m cleaning.classifier makes one") from None
        except (ValueError, KeyError, OSError, EOFError, IndexError) as error:
            raise UserError(f"{path} is no classifier of -m cleaning.classifier: {error}") from None


def train(examples, labels, epochs, lr, seed):
    """Classifier from (buckets, values) and 0 or 1 for each. Both kinds weigh the same, however many there are."""
    classifier = Classifier(np.zeros(1 << BUCKETS_LOG2, np.float32), 0.0, 0.5)
    squares, n_positive = np.full(1 << BUCKETS_LOG2, 1e-6, np.float32), max(1, sum(labels))
    weight_of = {1: len(labels) / (2 * n_positive), 0: len(labels) / (2 * max(1, len(labels) - n_positive))}
    rng = np.random.default_rng(seed)
    for _ in tqdm(range(epochs), desc="training", unit="epoch", leave=False):
        for i in rng.permutation(len(examples)):
            buckets, values = examples[i]
            slope = (classifier.probability(buckets, values) - labels[i]) * weight_of[labels[i]]
            squares[buckets] += (slope * values) ** 2
            classifier.weights[buckets] -= lr * slope * values / np.sqrt(squares[buckets])
            classifier.bias -= 0.01 * lr * slope
    return classifier


def auc(scores, labels):
    """The probability that a positive scores above a negative: from the ranks, ties half (Mann and Whitney)."""
    scores, labels = np.asarray(scores), np.asarray(labels, bool)
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n, m = labels.sum(), (~labels).sum()
    return float((ranks[labels].sum() - n * (n + 1) / 2) / max(1, n * m))


def thresholds(scores, labels, beta):
    """[(threshold, share kept, precision, recall, F-beta)] for each score that occurs, rising."""
    order = np.argsort(scores, kind="stable")
    scores, labels = np.asarray(scores)[order], np.asarray(labels)[order]
    first = np.flatnonzero(np.append(True, scores[1:] > scores[:-1]))
    kept = len(scores) - first
    right = labels.sum() - np.append(0, np.cumsum(labels))[first]
    precision, recall = right / kept, right / max(1, labels.sum())
    f = (1 + beta**2) * precision * recall / np.maximum(1e-9, beta**2 * precision + recall)
    return list(
        zip(scores[first].tolist(), (kept / len(scores)).tolist(), precision.tolist(), recall.tolist(), f.tolist())
    )


def labelled_documents(sources, positive):
    """(text, 0 or 1) of every record."""

    def parse(record, where):
        if not isinstance(record, dict) or "label" not in record:
            return Problem(where, "no_label")
        label = int(str(record["label"]).lower() == positive.lower())
        text = next((record[key] for key in ("text", "content", "code") if isinstance(record.get(key), str)), None)
        if text is None:
            chat = chats.from_record(record, where)
            if isinstance(chat, Problem):
                return chat
            text = "\n\n".join(message["content"] for message in json.loads(chat.text)["messages"])
        return text, label

    skipped = Counter()
    for source in sources:
        for item in read(source, parse):
            if not isinstance(item, Problem):
                yield item
            elif item.rule == "no_label":
                raise UserError(f"{source}/{item.where} has no label; each record needs a text and a label")
            else:
                skipped[item.rule] += 1
    if skipped:
        print("skipped: " + ", ".join(f"{n} {rule}" for rule, n in skipped.most_common()))


def main(s):
    if not s.labelled or not 0 < s.held_out < 1 or s.epochs < 1 or s.beta <= 0:
        raise UserError("needed: --labelled=FILE,..., 0 < held_out < 1, epochs >= 1, beta > 0")
    parts = {"train": ([], []), "held out": ([], [])}
    for text, label in tqdm(labelled_documents(s.labelled, s.positive), desc="reading", unit="document", leave=False):
        held_out = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) < s.held_out * 2**64
        examples, labels = parts["held out" if held_out else "train"]
        examples.append(features(View(text)))
        labels.append(label)
    for name, (_, labels) in parts.items():
        if len(set(labels)) < 2:
            raise UserError(f"the {name} documents have one label only ({len(labels)} of them); is --positive={s.positive} right?")  # fmt: skip
    classifier = train(*parts["train"], s.epochs, s.lr, s.seed)
    examples, labels = parts["held out"]
    scores = [classifier.probability(*example) for example in examples]
    rows = thresholds(scores, labels, s.beta)
    best = max(rows, key=lambda row: row[4])
    classifier.threshold = best[0]
    classifier.save(s.out)
    print(
        f"{len(parts['train'][1]):,} documents for training, {len(labels):,} held out: AUC {auc(scores, labels):.4f}\n"
    )
    print(f"{'threshold':>10}{'kept':>8}{'precision':>11}{'recall':>8}{'F':>8}")
    shown = {min(rows, key=lambda row: abs(row[1] - share)) for share in (0.9, 0.75, 0.5, 0.25, 0.1)} | {best}
    for row in sorted(shown):
        print(
            f"{row[0]:>10.3f}{row[1]:>8.1%}{row[2]:>11.1%}{row[3]:>8.1%}{row[4]:>8.3f}{'  <- chosen' if row == best else ''}"
        )
    print(f"\nclassifier -> {s.out}")


# -- scores that another program worked out


def read_scores(path):
    """{id or (source, id): score} of a file of {"id", "score"} records, perhaps with "source"."""
    scores = {}
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                record = json.loads(line)
                key = (record["source"], record["id"]) if "source" in record else record["id"]
                scores[key] = float(record["score"])
    except FileNotFoundError:
        raise UserError(f"no score file {path}: python score.py makes one") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}, line {number}: not a record of id and score ({error})") from None
    return scores


def score_objection(scores, source, where, s):
    score = scores.get((source, where), scores.get(where))
    if score is None:
        return "no score"
    if s.min_score is not None and score < s.min_score:
        return f"score {score:.3f} < {s.min_score:g}"
    if s.max_score is not None and score > s.max_score:
        return f"score {score:.3f} > {s.max_score:g}"


if __name__ == "__main__":
    configurator.run(main, Settings)
