"""The settings of stage 2, which prepare_data.py and `python -m cleaning.cluster` share."""

import importlib.metadata
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from cleaning.languages import KINDS
from cleaning.rules import Thresholds
from configurator import UserError
from corpus import chats, documents, pairs
from corpus.benchmarks import file_of
from corpus.records import optional
from corpus.sources import distinct, others, parsed, place_of, root_of
from ranges import Context, Count, Natural, Place, Range, Seed, Share, ShareAbove0, ShareBelow1, Workers
from shards import read_manifest, sha256_file

# What a run replaces in out_dir, and what of it could be taken for a source.
OWN_FILES = "chunks manifest.json dropped.jsonl report.json report.md report.html tokenizer.json".split()
# Settings that do nothing unless another one is given.
NEEDS = {
    "prompts": "chats",
    "char_noise": "chats",
    "min_quality": "quality",
    "min_score": "scores",
    "max_score": "scores",
    "retrieve_from": "chats",
    "retrieve": "retrieve_from",
    "distractors": "retrieve_from",
    "golden_share": "retrieve_from",
    "context_tokens": "retrieve_from",
    "fim_spm_rate": "fim_rate",
    "fim_line_rate": "fim_rate",
    "fim_seed": "fim_rate",
    "decontaminate": "clean",
    "min_similarity": "decontaminate",
    "quality": "clean",
    "scores": "clean",
    "simplify": "clean",
    "against": "clean",
}


@dataclass
class Settings:
    """What is read, what is done to it, and where the shards go."""

    # -- reading and writing
    sources: list[str] = field(default_factory=lambda: ["stdlib"])  # see corpus/sources.py
    out_dir: Place = "data/stdlib"  # the shard folder
    tokenizer: str = "data/tokenizer.json"  # a tokenizer.json, a SentencePiece .model, or a name such as gpt2
    # share of the documents for validation, by hash; .001 is enough for billions of tokens
    val_fraction: ShareBelow1 = 0.05
    # text per shard: an interrupted run goes on after the last whole one
    shard_bytes: Annotated[int, Range(1, 10**9)] = 256_000_000
    num_workers: Workers = 0  # processes; 0 = one per core
    show: Natural = 0  # print this many records of each source as they are understood, and stop
    adopt: bool = False  # out_dir already holds shards of llm.c or modded-nanogpt: only describe them

    # -- order of the documents
    # what stands side by side in the shards: documents as they are read, random ones, similar ones, or all files of a
    # repository, each after those that it imports or in random order
    order: Literal["as_read", "random", "alike", "repository", "repository_random"] = "as_read"
    path_tokens: Count = 512  # alike: a row of similar documents ends after so many, about two contexts of a model

    # -- chats
    chats: bool = False  # the records are conversations: render them by the chat template, with a loss mask
    # the records are prompts with a chosen and a rejected answer: two conversations each, for dpo.py and reward.py
    pairs: bool = False
    prompts: str = ""  # a folder of <type>.pre.prompt and <type>.post.prompt, for requests of records with a type
    char_noise: ShareBelow1 = 0.0  # share of the characters of requests that are deleted or repeated

    # -- retrieval, see cleaning/retrieval.py
    # shard folders: texts of theirs are put before the first request of each chat (pip install bm25s)
    retrieve_from: list[str] = field(default_factory=list)
    retrieve: Annotated[int, Range(1, 100)] = 3  # so many that BM25 finds for the request
    distractors: Annotated[int, Range(0, 100)] = 0  # and so many at random
    # share of the chats that get a text which holds the answer (RAFT); the others never do
    golden_share: Share = 0.0
    context_tokens: Context = 1024  # a text is left out if it would make the chat longer than this

    # -- gaps to fill
    # share of the training documents that become gaps: their middle goes to the end; chats and repositories stay whole
    fim_rate: Share = 0.0
    fim_spm_rate: Share = 0.5  # share of the gaps that begin with the suffix (SPM), not with the prefix (PSM)
    fim_line_rate: Share = 0.0  # share of the gaps that are whole lines; the others begin and end at any character
    fim_seed: Seed = 0  # another seed, other documents and other places

    # -- cleaning
    clean: bool = True  # all steps below; false = only documents that cannot be read are dropped
    replace_pii: bool | None = None  # e-mail and IP addresses, keys and tokens become placeholders; auto = not in chats
    strip_licenses: bool = True  # code: the comment with copyright and licence at the top is taken off
    simplify: bool = False  # Chinese: traditional characters become simplified ones (pip install opencc)
    filters: bool = True  # drop documents by the rules, whose thresholds are below; chats are not filtered
    kind: Literal[("", *KINDS)] = ""  # of records without path and language; empty = by their look

    # -- quality
    quality: str = ""  # drop what this classifier scores low (python -m cleaning.classifier makes one)
    min_quality: Share | None = None  # the classifier's threshold; auto = the one that its training chose
    # drop by the scores in this file, {"id", "score"} a line (evaluation.score makes one, of chats evaluation.rewards)
    scores: str = ""
    min_score: float | None = None  # keep from this score on; auto = from any
    max_score: float | None = None  # keep up to this score; auto = up to any

    # -- decontamination
    # benchmarks whose copies are dropped: files, or humaneval and mbpp, which are downloaded
    decontaminate: list[str] = field(default_factory=list)
    # a function is a copy if its syntax tree is this similar to a benchmark solution's
    min_similarity: ShareAbove0 = 0.9

    # -- duplicates
    exact_dedup: bool = True  # keep one of the documents with the same text (trailing white space does not count)
    near_dedup: bool | None = None  # keep one of the documents with nearly the same 5-grams; auto = not in chats
    # Jaccard similarity of the 5-grams from which documents are near-duplicates (BigCode)
    near_threshold: Annotated[float, Range(0.1, 1)] = 0.7
    against: list[str] = field(default_factory=list)  # shard folders: near copies of their val documents are dropped

    rules: Thresholds = field(default_factory=Thresholds)  # thresholds of the rules

    def check(self):
        """Fill in what auto stands for, and the files of benchmarks that are named, which may be downloaded. Raises
        UserError for values that make no sense, before any source is read."""
        self.chats = self.chats or self.pairs
        # In conversations made-up addresses are part of the task, and requests that differ in one number are different.
        if self.replace_pii is None:
            self.replace_pii = not self.chats
        if self.near_dedup is None:
            self.near_dedup = not self.chats
        for name, other in NEEDS.items():
            if self.is_set(name) and not getattr(self, other):
                raise UserError(f"--{name} does nothing without --{other}")
        self.decontaminate = [str(file_of(name)) for name in self.decontaminate]
        if self.is_set("path_tokens") and self.order != "alike":
            raise UserError("--path_tokens does nothing without --order=alike")
        if self.is_set("near_threshold") and not (self.clean and self.near_dedup) and not self.retrieve_from:
            raise UserError("--near_threshold does nothing without --clean and --near_dedup, or --retrieve_from")
        for name in ("against", "kind", "simplify", "fim_rate"):
            if self.chats and getattr(self, name):
                chats_or_pairs = "pairs" if self.pairs else "chats"
                raise UserError(f"--{name} is for documents: it cannot be used with --{chats_or_pairs}")
        if self.chats and self.order != "as_read":
            raise UserError("--order is for documents: chats are packed one by one in training")
        if self.fim_rate and self.order.startswith("repository"):
            raise UserError(f"--fim_rate is for files one by one: it cannot be used with --order={self.order}")
        if self.simplify:
            optional("opencc", "simplified characters (--simplify)")
        for folder in self.against:
            if read_manifest(folder).get("settings", {}).get("order", "").startswith("repository"):
                raise UserError(f"{folder} holds whole repositories, and --against compares files: use another order's")
        if self.retrieve_from:
            self.check_retrieval()
        self.sources = [] if self.adopt else distinct(self.sources)
        if not self.sources and not self.adopt:
            raise UserError("nothing to read: --sources=FILE,FOLDER,...")
        out = Path(os.path.realpath(self.out_dir))
        own = {out / name for name in OWN_FILES}
        for source in self.sources:
            place = Path(os.path.realpath(root_of(source) or place_of(source)))
            if place == out or not own.isdisjoint((place, *place.parents)):
                raise UserError(
                    f"--out_dir={self.out_dir} is a source itself, or would overwrite {source}: "
                    "its shards go into a folder of their own"
                )

    def is_set(self, name):
        """Whether a setting has another value than by default, which for lists is an empty one."""
        (default,) = (setting.default for setting in fields(self) if setting.name == name)
        return getattr(self, name) not in (default, [])

    def check_retrieval(self):
        """Raises UserError where texts cannot be retrieved, or would show an answer that is kept for validation, or a
        problem of a benchmark."""
        optional("bm25s", "retrieved texts (--retrieve_from)")
        if self.pairs:
            raise UserError("--retrieve_from is for --chats: of a pair, the rejected answer would be read as well")
        benchmarks = {sha256_file(path): path for path in self.decontaminate if Path(path).is_file()}
        for folder in self.retrieve_from:
            manifest = read_manifest(folder)
            made_with, files_read = manifest.get("settings", {}), manifest.get("ingredients", {}).get("files", {})
            if missing := [path for key, path in benchmarks.items() if key not in files_read.values()]:
                raise UserError(
                    f"{folder} may hold problems of {missing[0]}: make it again with --decontaminate={missing[0]}"
                )
            if made_with.get("pairs"):
                raise UserError(f"{folder} holds pairs, and so rejected answers: retrieve from documents or chats")
            if os.path.realpath(folder) == os.path.realpath(self.out_dir):
                raise UserError(f"--out_dir={folder} is in --retrieve_from too: new shards need a folder of their own")
            # The same chat has the same hash there and here, by which it goes to train or val.
            if made_with.get("chats") and made_with["val_fraction"] < self.val_fraction:
                raise UserError(
                    f"{folder} was made with --val_fraction={made_with['val_fraction']:g}, and this run with "
                    f"{self.val_fraction:g}: some of its texts are answers that would now be kept for validation"
                )

    def is_val(self, split):
        """Whether documents go to validation. split: their chunks.DOCUMENT["split"], a number or an array of them."""
        return split < int(self.val_fraction * 2**64)

    def read(self, source, share=(0, 1), tokenizer=None):
        """Yield the Documents and Problems of a source, as documents.read() does, without this run's own output and
        without other sources that lie below it. tokenizer: counts the tokens of a source that has a budget of them."""
        parse = pairs.from_record if self.pairs else chats.from_record if self.chats else None
        count_tokens = tokenizer and (lambda text: len(tokenizer.encode(text)))
        return documents.read(source, parse, share, others(source, self.sources, self.out_dir), count_tokens)

    def files(self):
        """Yield the files of all sources that are read, as Paths."""
        for source in self.sources:
            found = documents.files(parsed(source), others(source, self.sources, self.out_dir))
            yield from (item for item in found if isinstance(item, Path))

    def ingredients(self, fingerprint):
        """What the shards depend on apart from the documents, as JSON can hold it: the settings that matter, the
        tokenizer's fingerprint, the content of every file that is read beside the sources, and the versions of jieba,
        which counts Chinese words where it is installed, and opencc. A folder is up to date if its manifest names the
        same ingredients and documents."""
        values = asdict(self)
        unimportant = ("out_dir", "num_workers", "adopt", "show")
        named = {setting.name: values[setting.name] for setting in fields(Settings) if setting.name not in unimportant}
        paths = [*self.decontaminate, self.quality, self.scores]
        paths += [Path(folder) / "manifest.json" for folder in [*self.against, *self.retrieve_from]]
        paths += sorted(Path(self.prompts).glob("*.prompt")) if self.prompts else []
        digests = {str(path): sha256_file(path) for path in paths if path}
        versions = {package: installed_version(package) for package in ("jieba", "opencc")}
        return {**named, "tokenizer": fingerprint, "files": digests, **versions}


def installed_version(package):
    """The version of a package, or None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
