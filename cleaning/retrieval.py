"""Texts in front of a question: what a search finds for it, as in retrieval-augmented generation.

A model that is tuned on such chats learns to use the texts that help, and to pass over those that do not. The recipe is
RAFT's (arXiv:2403.10131), and so is the form that the first request of a chat gets:

    <DOCUMENT>A triangle has three sides. Its area is ...</DOCUMENT>
    <DOCUMENT>A circle is round. Its area is ...</DOCUMENT>
    How large is a circle of radius 2?

The texts come from finished shard folders (--retrieve_from): they are the training documents there or, where a folder
holds chats, the answers in these. So they have been cleaned, none is one of validation, and where the chats are
decontaminated, so must be the texts. Long ones are cut into passages. Of these a chat gets, in a random order,

    a golden one   which holds the answer; for a share of the chats (golden_share), in place of a neighbour
    neighbours     those that BM25 scores highest for the request
    distractors    some drawn at random

Neighbours and distractors never hold an answer of the chat, nor nearly the same text: from that a model would learn to
copy, and nothing else. So a chat whose own answer is among the texts does not find it. Golden ones teach a model to
look for the answer, and chats without them, as RAFT has some, to know it. What holds an answer is told by the words: an
answer in words of its own is not recognised in the text that it was made from.
"""

import functools
import hashlib
import itertools
import random
import re
from collections import Counter

import numpy as np

from cleaning import hashing
from cleaning.view import View
from configurator import UserError
from corpus.records import optional
from shards import Shards, load_tokenizer

SEARCHED = 100  # passages that are looked at in a search: more than are wanted, as some hold the answer
# A word, by which passages are found: letters and digits, so that get_value has two; or one Chinese character.
WORD = re.compile(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+")


def with_documents(messages, texts):
    """The messages of a chat with texts in front of its first request, in RAFT's form. Whoever asks a model that was
    tuned on this should ask in the same way."""
    place = [message["role"] for message in messages].index("user")
    documents = "".join(f"<DOCUMENT>{text}</DOCUMENT>\n" for text in texts)
    request = {**messages[place], "content": documents + messages[place]["content"]}
    return [*messages[:place], request, *messages[place + 1 :]]


class Retriever:
    """Finds passages for chats. settings: those of stage 2. tokenizer: the one that the chats are rendered with."""

    def __init__(self, settings, tokenizer):
        self.settings, self.tokenizer = settings, tokenizer
        n_parts = settings.retrieve + settings.distractors + 1  # as much room for a passage as for the chat itself
        self.passages, self.bm25 = index_of(tuple(settings.retrieve_from), settings.context_tokens // n_parts)

    def applied(self, messages, text):
        """(the messages with passages in front of the first request, Counter of the passages by kind). A passage with
        which the chat would be longer than context_tokens is left out. text: the chat as it was read; what is drawn
        depends on that alone."""
        seed = hashlib.sha256(text.encode()).digest()[8:16]  # chats.finished() draws by the first eight bytes
        rng = random.Random(int.from_bytes(seed))
        texts, counts = [], Counter()
        for kind, i in self.chosen(messages, rng):
            longer = with_documents(messages, [*texts, self.passages[i]])
            n_tokens = 1 + len(self.tokenizer.render(longer)[0])  # <|endoftext|> opens the chat
            if n_tokens <= self.settings.context_tokens:
                texts.append(self.passages[i])
                counts[kind] += 1
            else:
                counts["left out as too long"] += 1
        rng.shuffle(texts)  # else the model would learn at which place the best one stands
        return with_documents(messages, texts), counts

    def chosen(self, messages, rng):
        """[(kind, number of a passage)] for a chat, the most important first."""
        settings = self.settings
        request = next(message["content"] for message in messages if message["role"] == "user")
        answers = [message["content"] for message in messages if message["role"] == "assistant"]
        golden = []
        if rng.random() < settings.golden_share:
            nearest = self.found(f"{request} {answers[0]}")[:10]
            nearest.sort(key=lambda i: overlap(self.passages[i], answers[0]), reverse=True)
            golden = [i for i in nearest[:1] if self.holds(i, answers[:1])]
        neighbours = self.first(settings.retrieve - len(golden), self.found(request), answers)
        drawn = rng.sample(range(len(self.passages)), min(SEARCHED, len(self.passages)))
        distractors = self.first(settings.distractors, (i for i in drawn if i not in neighbours), answers)
        kinds = ["golden"] * len(golden) + ["neighbours"] * len(neighbours) + ["distractors"] * len(distractors)
        return list(zip(kinds, [*golden, *neighbours, *distractors]))

    def found(self, query):
        """The numbers of the SEARCHED passages that BM25 scores highest, the best first. One that has no word of the
        query is not among them."""
        words = words_of(query)
        if not words:
            return []
        scores = self.bm25.get_scores(words)
        best = np.argsort(-scores, kind="stable")[:SEARCHED]  # stable: of equal scores the first passage
        return best[scores[best] > 0].tolist()

    def first(self, count, numbers, answers):
        """The first of the numbers, up to a count, whose passages hold none of the answers."""
        without = (i for i in numbers if not self.holds(i, answers))
        return list(itertools.islice(without, count))

    def holds(self, i, answers):
        """Whether passage i holds one of the answers, is a part of one, or nearly the same (near_threshold)."""
        return any(overlap(self.passages[i], answer) >= self.settings.near_threshold for answer in answers)


def overlap(a, b):
    """What share of the n-grams of the text with fewer of them is in the other text too. n is 5, as where documents are
    compared, or the number of words of a shorter text.

    A Jaccard similarity is at most as high, so that this finds all near-duplicates; and it is 1 for a part of a text,
    as a passage may be one of a long answer, and a short answer one of a passage."""
    words = [View(text).words[0] for text in (a, b)]
    n = min(5, *map(len, words))
    if n == 0:
        return 0.0
    smaller, larger = sorted((np.unique(hashing.ngrams(hashes, n)) for hashes in words), key=len)
    return np.isin(smaller, larger).mean()


# -- the passages


@functools.cache  # made once: worker processes that are forked find it here
def index_of(folders, max_tokens):
    """(passages of at most max_tokens tokens, a bm25s.BM25 of them) from all texts of shard folders. Raises UserError
    where there are none."""
    texts = itertools.chain.from_iterable(passages_of(folder, max(1, max_tokens)) for folder in folders)
    passages = [text for text in dict.fromkeys(texts) if words_of(text)]
    if not passages:
        raise UserError(f"there are no texts for training in {', '.join(folders)}")
    # Lucene's formula; arXiv:2407.03618 has it, and why the sums over words are fast when they are prepared.
    bm25 = optional("bm25s", "retrieved texts").BM25(method="lucene", k1=1.5, b=0.75)
    bm25.index([words_of(passage) for passage in passages], show_progress=False)
    return passages, bm25


def words_of(text):
    """The words by which a text is found."""
    return WORD.findall(text.lower())


def passages_of(folder, max_tokens):
    """Yield the passages of a shard folder's training documents or, where these are chats, of the answers that count in
    the loss. A special token ends a text, as between the files of a repository."""
    shards, tokenizer = Shards(folder, "train"), load_tokenizer([folder])
    special = list(tokenizer.special.values())
    begins_line = np.array([b"\n" in token for token in tokenizer.token_bytes])
    for start, length in zip(*shards.documents(tokenizer.eot)):
        tokens, counts = shards.tokens(start, length), shards.mask(start, length)
        is_text = (counts == 1) & ~np.isin(tokens, special)
        # 0 0 1 1 1 0 1 1: the flag changes in front of the places 2, 5, 6 and 8, so there are texts at 2:5 and 6:8.
        edges = np.flatnonzero(np.diff(is_text, prepend=False, append=False))
        for first, end in edges.reshape(-1, 2):
            for piece in pieces(tokens[first:end], max_tokens, begins_line):
                yield tokenizer.decode(piece).strip("\n\ufffd")  # U+FFFD: half a character where a long line was cut


def pieces(tokens, max_tokens, begins_line):
    """Yield pieces of at most max_tokens tokens, int64 arrays. A piece ends where a line does, unless that is longer.
    begins_line: for each token of the vocabulary whether it holds a line end, and with it the next line's indent."""
    while len(tokens) > max_tokens:
        ends = np.flatnonzero(begins_line[tokens[: max_tokens + 1]])
        end = max(ends, default=0) or max_tokens
        yield tokens[:end]
        tokens = tokens[end:]
    yield tokens
