"""What happens to one document between reading and deduplication: replace, filter, decontaminate, tokenize, sign.

A document passes the steps in this order, and the first that objects drops it with a rule's name and a reason. The
result depends on the document and the settings alone, so any number of processes can share the work.
"""

import functools
import gc
import hashlib
import json
import math
from dataclasses import dataclass

import numpy as np

from cleaning import decontaminate, dedup, gaps, hashing, licences, pii, prose, repositories, rules
from cleaning.chunks import DOCUMENT, STREAMS, Counts, add, split_number
from cleaning.classifier import Classifier, Scores
from cleaning.retrieval import Retriever
from cleaning.view import CHINESE, CODE, PROSE, PYTHON, View, comments_of, kind_of
from corpus import chats, pairs
from corpus.documents import Document, Problem, joined
from corpus.records import json_line
from tokenizer import Tokenizer

RULES = {PYTHON: rules.PYTHON_RULES, CODE: rules.CODE_RULES, PROSE: prose.PROSE_RULES, CHINESE: prose.CHINESE_RULES}


@dataclass
class Cleaned:
    """A document as the shards will hold it, if it is kept."""

    text: str  # with placeholders, without its licence; a conversation's as JSON
    view: View  # what the rules look at
    ids: list
    mask: list | None  # chats: 1 for each token that counts in the loss
    n_bytes: int
    is_gap: bool = False  # whether the ids are a gap to fill, see gaps.py

    def sizes(self):
        """What Counts says of the document. Its tokens include the <|endoftext|> in front."""
        return {"documents": 1, "bytes": self.n_bytes, "tokens": len(self.ids) + 1}


class Surveyed:
    """What the first pass makes of a batch of documents, ready to be appended to a chunk."""

    def __init__(self):
        self.streams = {name: bytearray() for name in STREAMS}  # for the chunk's files, see chunks.py
        self.bands = []  # hashing.band_keys() of each document
        self.counts = Counts()

    def drop(self, source, where, objection, cleaned=None):
        """Note a document that is dropped. objection: (step, rule, detail). cleaned: None if it could not be read."""
        step, rule, detail = objection
        sizes = cleaned.sizes() if cleaned else {"documents": 1, "bytes": 0, "tokens": 0}
        add(self.counts.drops, {source: {step: {rule: sizes}}})
        self.streams["dropped"] += json_line({"id": where, "source": source, "rule": rule, "detail": detail})
        if cleaned and cleaned.view.text:
            text = cleaned.view.text
            key = hashlib.sha256(text.encode()).hexdigest()[:16]
            self.counts.add_examples(rule, [[key, where, detail, text[:600]]])


class Cleaner:
    """The steps, with what they need, loaded once per process. Raises UserError for a damaged or missing file."""

    def __init__(self, settings, tokenizer):
        self.settings, self.tokenizer = settings, tokenizer
        self.sources = [*settings.sources, *settings.against]
        self.prompts = chats.Prompts(settings.prompts)
        self.benchmarks, self.classifier, self.scores, self.retriever = None, None, None, None
        self.bands, self.rows = 0, 1  # of the signatures; no bands where near-duplicates are not sought
        if settings.retrieve_from:
            self.retriever = Retriever(settings, tokenizer)
        if settings.clean and settings.decontaminate:
            self.benchmarks = benchmarks_of(tuple(settings.decontaminate))
        if settings.clean and settings.quality:
            self.classifier = Classifier.load(settings.quality)
        if settings.clean and settings.scores:
            self.scores = Scores(settings.scores, settings.min_score, settings.max_score)
        if settings.clean and settings.near_dedup:
            self.bands, self.rows = dedup.banding(settings.near_threshold)
        if settings.fim_rate:
            tokenizer.render_gap("", "")  # raises UserError where the tokenizer lacks the marks of a gap
        if settings.order.startswith("repository"):
            tokenizer.render_repository("", [("", "")])  # or those of repositories
        gc.freeze()  # what is loaded stays: the garbage collector need not look through it again and again

    def survey(self, batch):
        """The first pass over a batch of (number of the source, Document or Problem): a Surveyed.

        Sources are numbered as in self.sources. Documents of a folder of --against are signed, but never dropped."""
        surveyed = Surveyed()
        for number, item in batch:
            source, is_own = self.sources[number], number < len(self.settings.sources)
            if isinstance(item, Problem):
                surveyed.drop(source, item.where, ("unreadable", item.rule, item.detail))
                continue
            if item.files:
                item = self.without_bad_files(item, source, surveyed)
            cleaned = self.cleaned(item, is_own, surveyed.counts)
            objection = None
            if is_own:
                add(surveyed.counts.read, {source: {"raw_bytes": len(item.text.encode()), **cleaned.sizes()}})
                if self.settings.clean:
                    objection = self.objection(cleaned.view, source, surveyed.counts, bool(item.files))
            if objection:
                surveyed.drop(source, item.where, objection, cleaned)
            else:
                self.keep(number, item, cleaned, surveyed)
        return surveyed

    def without_bad_files(self, document, source, surveyed):
        """A repository's Document with replacements made in each of its files and without those to which a rule
        objects, which are noted as dropped; the others in settings.order, if that is one of files."""
        settings, files = self.settings, []
        for path, text in document.files:
            meta, where = {"path": path}, f"{document.where}:{path}"
            kind = kind_of(text, meta, settings.kind)
            new = self.replaced(text, kind, meta, surveyed.counts) if settings.clean else text
            view = self.view_of(new, where, kind, len(self.tokenizer.encode(new)))
            found = ("empty", "nothing but a licence") if not new.strip() else None
            if settings.clean and settings.filters:
                found = found or rules.verdict(view, RULES[kind], settings.rules)
            if found:
                cleaned = Cleaned(new, view, [], None, len(new.encode()))
                add(surveyed.counts.read, {source: {"raw_bytes": len(text.encode()), **cleaned.sizes()}})
                surveyed.drop(source, where, ("filters", *found), cleaned)
            else:
                files.append((path, new))
        files = repositories.arranged(files, settings.order)
        return Document(joined(files), document.where, document.meta, files)

    def cleaned(self, document, is_own, counts):
        """A Document with its replacements made, tokenized: a Cleaned. What was replaced or retrieved is added
        to counts."""
        settings, text = self.settings, document.text
        kind = "" if settings.chats else kind_of(text, document.meta, settings.kind)
        if settings.chats:
            chat = json.loads(text)
            for message in chat["messages"] if settings.clean else []:
                message["content"] = self.replaced(message["content"], kind, document.meta, counts)
            text = json.dumps(chat, ensure_ascii=False)
            shown = "\n\n".join(message["content"] for message in chat["messages"])
            messages = chats.finished(text, self.prompts, settings.char_noise)
            if self.retriever:
                messages, found = self.retriever.applied(messages, text)
                add(counts.retrieved, found)
            ids, mask = pairs.rendered(messages, self.tokenizer) if settings.pairs else self.tokenizer.render(messages)
            n_bytes = sum(len(message["content"].encode()) for message in messages)
        elif document.files:
            ids, mask = self.tokenizer.render_repository(document.meta["repo"], document.files), None
            n_bytes, shown = len(text.encode()), text
        else:
            if settings.clean and is_own:
                text = self.replaced(text, kind, document.meta, counts)
            ids, mask, n_bytes, shown = self.tokenizer.encode(text), None, len(text.encode()), text
        view = self.view_of(shown, document.where, kind, len(ids))  # the rules judge the text as it was written
        may_be_gap = settings.fim_rate and is_own and not document.files and not settings.is_val(split_number(text))
        gap = gaps.cut(text, settings) if may_be_gap else None
        if gap:
            ids = self.tokenizer.render_filled_gap(*gap)
        return Cleaned(text, view, ids, mask, n_bytes, bool(gap))

    def view_of(self, text, where, kind, n_tokens):
        """The View of a text, with what the rules want to know of its tokens."""
        view = View(text, where, kind)
        view.n_tokens, view.token_bits = n_tokens, math.log2(self.tokenizer.vocab_size)
        return view

    def replaced(self, text, kind, meta, counts):
        """A text with placeholders and without its licence. A program that parses still does."""
        new, found = pii.replaced(text, kind) if self.settings.replace_pii else (text, {})
        add(counts.replaced, found)
        if self.settings.strip_licenses and kind in (PYTHON, CODE):
            new = licences.without_license(new, comments_of(kind, meta))
        if self.settings.simplify and kind == CHINESE:
            new = prose.simplified(new)
        breaks = kind == PYTHON and new != text and rules.syntax_error(new) and not rules.syntax_error(text)
        return text if breaks else new

    def objection(self, view, source, counts, is_sifted=False):
        """(step, rule, detail) of the first step that drops a document, or None. is_sifted: the rules have looked at
        each of its files."""
        settings = self.settings
        if not view.text.strip():
            return "filters", "empty", "nothing but a licence"
        if settings.filters and not settings.chats and not is_sifted:
            if found := rules.verdict(view, RULES[view.kind], settings.rules):
                return "filters", *found
        if self.classifier and (reason := self.classifier.objection(view, settings.min_quality)):
            return "quality", "low_quality", reason
        if self.scores and (reason := self.scores.objection(source, view.where)):
            return "quality", "score", reason
        return self.contamination(view, counts) if self.benchmarks else None

    def contamination(self, view, counts):
        """The objection to a copy of a benchmark problem, or None. Similarities to problems are noted in counts."""
        names = self.benchmarks.names
        if found := decontaminate.copied(view, self.benchmarks):
            number, words = found
            counts.add_closest(names[number], 1.0, view.where)
            return "decontamination", "benchmark_words", f"{names[number]}: {words}"
        similarities = decontaminate.closest(view, self.benchmarks)
        for number, similarity in similarities.items():
            counts.add_closest(names[number], round(similarity, 3), view.where)
        number = max(similarities, key=lambda n: (similarities[n], -n), default=None)
        if number is not None and similarities[number] >= self.settings.min_similarity:
            detail = f"{names[number]}: similarity {similarities[number]:.2f}"
            return "decontamination", "benchmark_structure", detail

    def keep(self, number, item, cleaned, surveyed):
        """Sign a document and add it to a batch's Surveyed."""
        text, ids, mask = cleaned.text, cleaned.ids, cleaned.mask
        shingles = np.zeros(0, np.uint32)
        if self.bands:
            shingles = hashing.shingles(cleaned.view.fivegrams)
            signature = hashing.signature(shingles, self.bands * self.rows)
            surveyed.bands.append(hashing.band_keys(signature, self.bands, self.rows))
        meta = {"source": self.sources[number], "where": item.where}
        for key in ("stars", "date", "path", "repo"):  # for dedup.priority() to choose among copies, and order.py
            if key in item.meta:
                value = item.meta[key]
                meta[key] = value if isinstance(value, (int, float, str)) else str(value)
        meta_line = json_line(meta)

        by_hash = pairs.prompt_of(text) if self.settings.pairs else text
        document = np.zeros((), DOCUMENT)
        document["tokens"] = len(ids) + 1
        document["counted"] = len(ids) + 1 if mask is None else sum(mask)
        document["bytes"] = cleaned.n_bytes
        document["shingles"] = len(shingles)
        document["meta"] = len(meta_line)
        document["source"] = number
        document["gaps"] = cleaned.is_gap
        document["split"] = split_number(by_hash)
        is_chat = self.settings.chats and not self.settings.pairs
        document["digest"] = hashing.exact_digest(chats.said(text) if is_chat else text)

        streams = surveyed.streams
        streams["documents"] += document.tobytes()
        streams["tokens"] += np.array([self.tokenizer.eot, *ids], np.uint16).tobytes()
        streams["mask"] += b"" if mask is None else bytes([0, *mask])
        streams["shingles"] += shingles.tobytes()
        streams["meta"] += meta_line


@functools.cache  # read once: worker processes that are forked find it here
def benchmarks_of(paths):
    """The Benchmarks of some files."""
    return decontaminate.load(paths)


def new_cleaner(settings):
    """A Cleaner for a worker process."""
    return Cleaner(settings, Tokenizer.load(settings.tokenizer))
