"""What a teacher is asked: questions, each made of a prompt of prompts.toml, words drawn for it, and a piece of a
source. A question depends on its kind, number, seed and source alone, so that a run goes on where it stopped."""

import hashlib
import itertools
import json
import random
import tomllib
from dataclasses import dataclass
from pathlib import Path

from configurator import UserError
from corpus import chats
from corpus.documents import Document, read

PROMPTS = tomllib.loads(Path(__file__).with_name("prompts.toml").read_text(encoding="utf-8"))
KINDS = ("exercises", "oss-instruct", "evol-instruct", "textbook", "labels")
NEED_SOURCE = ("oss-instruct", "evol-instruct", "labels")
MOST_LINES = 15  # of a snippet, as in Magicoder
MOST_CHARACTERS = {"snippet": 2000, "extract": 1000, "instruction": 2000, "document": 3000}


@dataclass
class Question:
    """One of them."""

    key: str  # a hash of everything that decides the answer
    messages: list
    about: dict  # what was drawn, for the record: {"document": its text} of labels, {"concept": "loops"}, ...


def questions(kind, n, sources, seed, **parameters):
    """Yield n Questions of a kind, fewer where the sources have no more pieces. parameters: what else decides the
    answer, such as the model. Raises UserError for a kind that needs a source and has none."""
    if kind in NEED_SOURCE and not sources:
        raise UserError(f"kind={kind} needs --sources: what the teacher is to be asked about")
    found = pieces(kind, sources) if sources else itertools.repeat({})
    for number, piece in enumerate(itertools.islice(found, n)):
        about = words(kind, random.Random(f"{kind} {number} {seed}")) | piece
        prompt = PROMPTS[kind]["prompt"] + (PROMPTS[kind].get("with_source", "") if piece else "")
        prompt = filled(prompt, about | {"form": PROMPTS["form"]})
        messages = [{"role": "user", "content": prompt}]
        # Without a source two questions may draw the same words, and each is meant to have an answer of its own.
        content = json.dumps([messages, 0 if piece else number, seed, parameters], sort_keys=True)
        yield Question(hashlib.sha256(content.encode()).hexdigest()[:24], messages, about)


def words(kind, draw):
    """{name: word} of the lists that a prompt names, each drawn by a random.Random; two concepts differ."""
    drawn = {}
    for name, choices in PROMPTS["lists"].items():
        if "{" + name + "}" in PROMPTS[kind]["prompt"]:
            choices = PROMPTS["lists"][choices] if isinstance(choices, str) else choices
            drawn[name] = draw.choice([word for word in choices if word not in drawn.values()])
    return drawn


def filled(prompt, values):
    """A prompt with its {names} replaced; those without a value go. Values may hold braces of their own."""
    parts = prompt.strip().split("{")
    text = parts[0]
    for part in parts[1:]:
        name, closed, rest = part.partition("}")
        text += values.get(name, "").strip() + rest if closed else "{" + part
    return text.strip()


def pieces(kind, sources):
    """Yield {"snippet": ...} and the like, one of each document or conversation of the sources."""
    for source in sources:
        for item in read(source, chats.from_record if kind == "evol-instruct" else None):
            if isinstance(item, Document) and (text := item.text.strip()):
                name, piece = piece_of(kind, text)
                yield {name: piece[: MOST_CHARACTERS[name]]}


def piece_of(kind, text):
    """(name, what the teacher is shown of a document). Lines are drawn by the text alone."""
    if kind == "evol-instruct":
        messages = json.loads(text)["messages"]
        return "instruction", next(turn["content"] for turn in messages if turn["role"] == "user")
    if kind == "labels":
        return "document", text
    if kind == "textbook":
        return "extract", text
    lines, draw = [line for line in text.splitlines() if line.strip()], random.Random(text)
    first, n_lines = draw.randrange(len(lines)), draw.randint(1, MOST_LINES)
    return "snippet", "\n".join(lines[first : first + n_lines])
