"""What happens to one document between reading and deduplication: replace, filter, decontaminate, tokenize, sign.

A document passes the steps in this order, and the first that objects drops it with a rule's name and a reason. The
result depends on the document and the settings alone, so any number of processes can share the work.
"""

import gc
import hashlib
import json
import math
from dataclasses import dataclass, field

import numpy as np

from cleaning import decontaminate, dedup, pii, prose, rules
from cleaning.chunks import DOCUMENT
from cleaning.classifier import Classifier
from cleaning.counts import Counts, add
from cleaning.scores import Scores
from cleaning.view import CHINESE, CODE, PROSE, PYTHON, View, kind_of
from corpus import chats
from corpus.documents import Problem
from tokenizer import Tokenizer

RULES = {
    PYTHON: rules.PYTHON_RULES,
    CODE: rules.CODE_RULES,
    PROSE: prose.PROSE_RULES,
    CHINESE: prose.CHINESE_RULES,
}
BATCH_BYTES = 1_000_000  # text handed to a worker at a time


@dataclass
class Objection:
    """Why a document is dropped."""

    step: str  # unreadable, filters, quality, decontamination
    rule: str
    detail: str


@dataclass
class Cleaned:
    """A document as the shards will hold it, if it is kept."""

    text: str  # with placeholders, without its licence; a conversation's as JSON
    view: View  # what the rules look at
    ids: list
    mask: list | None  # chats: 1 for each token that counts in the loss
    n_bytes: int

    def sizes(self):
        """Its bytes and tokens; <|endoftext|> is one of them."""
        return {"bytes": self.n_bytes, "tokens": len(self.ids) + 1}


@dataclass
class Surveyed:
    """What the first pass makes of a batch of documents: parts of a chunk's files (see chunks.py), and counts."""

    tokens: bytearray = field(default_factory=bytearray)
    mask: bytearray = field(default_factory=bytearray)
    shingles: bytearray = field(default_factory=bytearray)
    documents: bytearray = field(default_factory=bytearray)
    meta: bytearray = field(default_factory=bytearray)
    dropped: bytearray = field(default_factory=bytearray)
    bands: list = field(default_factory=list)  # uint64 (bands,) per document
    counts: Counts = field(default_factory=Counts)

    def drop(self, source, where, objection, cleaned=None):
        """Note a document that is dropped; cleaned is None for what could not be read."""
        sizes = cleaned.sizes() if cleaned else {}
        add(self.counts.drops, {source: {objection.step: {objection.rule: {"documents": 1, **sizes}}}})
        self.dropped += json_line({"id": where, "source": source, "rule": objection.rule, "detail": objection.detail})
        if cleaned and cleaned.view.text:
            shown = cleaned.view.text
            key = hashlib.sha256(shown.encode()).hexdigest()[:16]
            self.counts.add_example(objection.rule, [key, where, objection.detail, shown[:600]])


class Cleaner:
    """The steps, with what they need loaded once per process. Raises UserError for a file that is no good."""

    def __init__(self, settings, tokenizer):
        self.settings, self.tokenizer = settings, tokenizer
        self.sources = [*settings.sources, *settings.against]
        self.prompts = chats.Prompts(settings.prompts)
        self.benchmarks, self.classifier, self.scores = None, None, None
        self.bands, self.rows = 0, 1  # of the signatures; none where near-duplicates are not sought
        if settings.clean and settings.decontaminate:
            self.benchmarks = decontaminate.load(settings.decontaminate)
        if settings.clean and settings.quality:
            self.classifier = Classifier.load(settings.quality)
        if settings.clean and settings.scores:
            self.scores = Scores(settings.scores, settings.min_score, settings.max_score)
        if settings.clean and settings.near_dedup:
            self.bands, self.rows = dedup.banding(settings.near_threshold)
        gc.freeze()  # what is loaded for good, the garbage collector need not look through again and again

    def survey(self, batch):
        """The first pass over a batch of (number of the source, Document or Problem): a Surveyed.

        Numbers behind those of the settings' own sources are folders of --against: their documents are only signed."""
        surveyed = Surveyed()
        for number, item in batch:
            source, own = self.sources[number], number < len(self.settings.sources)
            if isinstance(item, Problem):
                surveyed.drop(source, item.where, Objection("unreadable", item.rule, item.detail))
                continue
            cleaned = self.cleaned(item, own, surveyed.counts)
            objection = None
            if own:
                raw_bytes = len(item.text.encode())
                sizes = {"documents": 1, "raw_bytes": raw_bytes, **cleaned.sizes()}
                add(surveyed.counts.read, {source: sizes})
                if self.settings.clean:
                    objection = self.objection(cleaned.view, source, surveyed.counts)
            if objection:
                surveyed.drop(source, item.where, objection, cleaned)
            else:
                self.keep(number, item, cleaned, surveyed)
        return surveyed

    def cleaned(self, document, own, counts):
        """A Document with its replacements made, and tokenized. What was replaced is added to counts."""
        settings, text = self.settings, document.text
        kind = "" if settings.chats else kind_of(text, document.meta, settings.kind)
        if settings.clean and own:
            text = self.replaced(text, kind, counts)
        ids, mask, n_bytes = self.encode(text)
        view = View(chat_text(text) if settings.chats else text, document.where, kind)
        view.n_tokens, view.token_bits = len(ids), math.log2(self.tokenizer.vocab_size)
        return Cleaned(text, view, ids, mask, n_bytes)

    def replaced(self, text, kind, counts):
        """A document's text, a conversation's as JSON, with placeholders and without its licence."""
        if self.settings.chats:
            chat = json.loads(text)
            for message in chat["messages"]:
                message["content"] = self.replaced_text(message["content"], kind, counts)
            return json.dumps(chat, ensure_ascii=False)
        cleaned = self.replaced_text(text, kind, counts)
        if cleaned != text and kind == PYTHON and rules.syntax_error(cleaned) and not rules.syntax_error(text):
            return text  # a replacement must not break a program
        return cleaned

    def replaced_text(self, text, kind, counts):
        """The same for a text, or for one message of a conversation."""
        if self.settings.replace_pii:
            text, found = pii.replaced(text)
            add(counts.replaced, found)
        if self.settings.strip_licenses and kind in (PYTHON, CODE):
            text = pii.without_license(text)
        if self.settings.simplify and kind == CHINESE:
            text = prose.simplified(text)
        return text

    def encode(self, text):
        """(ids, mask, bytes) of a document or a conversation; the mask of a document is None, for all of it counts."""
        if not self.settings.chats:
            return self.tokenizer.encode(text), None, len(text.encode())
        messages = chats.finished(text, self.prompts, self.settings.char_noise)
        ids, mask = self.tokenizer.render(messages)
        return ids, mask, sum(len(message["content"].encode()) for message in messages)

    def objection(self, view, source, counts):
        """The Objection of the first step that drops a document, or None."""
        settings = self.settings
        if not view.text.strip():
            return Objection("filters", "empty", "nothing but a licence")
        if settings.filters and not settings.chats:
            if found := rules.verdict(view, RULES[view.kind], settings.rules):
                return Objection("filters", *found)
        if self.classifier and (reason := self.classifier.objection(view, settings.min_quality)):
            return Objection("quality", "low_quality", reason)
        if self.scores and (reason := self.scores.objection(source, view.where)):
            return Objection("quality", "score", reason)
        return self.contamination(view, counts) if self.benchmarks else None

    def contamination(self, view, counts):
        """The Objection to a copy of a benchmark problem, or None; how close it comes to each is noted in counts."""
        names = self.benchmarks.names
        if found := decontaminate.copied(view, self.benchmarks):
            number, words = found
            counts.add_closest(names[number], 1.0, view.where)
            return Objection("decontamination", "benchmark_words", f"{names[number]}: {words}")
        similarities = decontaminate.closest(view, self.benchmarks)
        for number, similarity in similarities.items():
            counts.add_closest(names[number], round(similarity, 3), view.where)
        number = max(similarities, key=lambda n: (similarities[n], -n), default=None)
        if number is None or similarities[number] < self.settings.min_similarity:
            return None
        detail = f"{names[number]}: similarity {similarities[number]:.2f}"
        return Objection("decontamination", "benchmark_structure", detail)

    def keep(self, number, item, cleaned, surveyed):
        """Sign a document and add it to a batch's Surveyed."""
        text, ids, mask = cleaned.text, cleaned.ids, cleaned.mask
        shingles = np.zeros(0, np.uint32)
        if self.bands:
            shingles = dedup.shingles(cleaned.view.fivegrams)
            signature = dedup.signature(shingles, self.bands * self.rows)
            surveyed.bands.append(dedup.band_keys(signature, self.bands, self.rows))
        meta = {"source": self.sources[number], "where": item.where}
        for key in ("stars", "date", "path"):  # by which dedup.priority() chooses among copies
            if key in item.meta:
                value = item.meta[key]
                meta[key] = value if isinstance(value, (int, float, str)) else str(value)
        meta_line = json_line(meta)

        document = np.zeros((), DOCUMENT)
        document["tokens"] = len(ids) + 1
        document["counted"] = len(ids) + 1 if mask is None else sum(mask)
        document["bytes"] = cleaned.n_bytes
        document["shingles"] = len(shingles)
        document["meta"] = len(meta_line)
        document["source"] = number
        document["split"] = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        document["digest"] = dedup.exact_digest(text)

        surveyed.documents += document.tobytes()
        surveyed.tokens += np.array([self.tokenizer.eot, *ids], np.uint16).tobytes()
        surveyed.mask += b"" if mask is None else bytes([0, *mask])
        surveyed.shingles += shingles.tobytes()
        surveyed.meta += meta_line


def batches(items):
    """Yield lists of (number of the source, Document or Problem), about BATCH_BYTES of text each."""
    batch, size = [], 0
    for number, item in items:
        batch.append((number, item))
        size += 0 if isinstance(item, Problem) else len(item.text)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def new_cleaner(settings, tokenizer):
    """A Cleaner for a worker process; tokenizer is the path of one."""
    return Cleaner(settings, Tokenizer.load(tokenizer))


def chat_text(chat):
    """What the turns of a conversation say, from its JSON."""
    return "\n\n".join(message["content"] for message in json.loads(chat)["messages"])


def json_line(record):
    """A record as a line of JSON, bytes."""
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"
