"""Named sets: a record of each in its published shape becomes the conversation or the document that it is, word for word.

published.jsonl holds {"set", "record", "chat": [[role, content], ...] or "text"}. `PYTHONPATH=. python tests/test_named_sets.py`
writes the table of docs/sets.md.
"""

import json
from pathlib import Path

import pytest
from conftest import ROOT

from corpus import chats, documents
from corpus.documents import Document
from corpus.sources import SETS, parsed

LINES = Path(__file__).with_name("published.jsonl").read_text(encoding="utf-8").splitlines()
PUBLISHED = [json.loads(line) for line in LINES]
OF_BLOBS = [name for name, about in SETS.items() if "contents" in about]  # test_blobs.py has their texts
PAGE = ROOT / "docs/sets.md"


def source_of(name):
    """The Source of a set, or of a copy of it where it has no home on the hub."""
    return parsed(name if SETS[name].get("hub") else f"{name}@{ROOT}")


def as_chat(name, record):
    """[[role, content], ...] of a record of a named set."""
    found = chats.from_record(record, "f:1", source_of(name).shape or None)
    assert isinstance(found, Document), found
    return [[message["role"], message["content"]] for message in json.loads(found.text)["messages"]]


def as_text(name, record):
    """The text of a record of a named set."""
    (found,) = documents.documents_of(iter([(record, "f:1")]), source_of(name))
    assert isinstance(found, Document), found
    return found.text


@pytest.mark.parametrize("line", PUBLISHED, ids=lambda line: line["set"])
def test_a_published_record_is_read_word_for_word(line):
    name, record = line["set"], line["record"]
    assert "chat" in line or "text" in line
    if "chat" in line:
        assert as_chat(name, record) == line["chat"]
    if "text" in line:
        assert as_text(name, record) == line["text"]


@pytest.mark.parametrize("line", [line for line in PUBLISHED if "chat" in line], ids=lambda line: line["set"])
def test_the_fields_alone_say_how_most_sets_are_read(line):
    """The same file under no name: {"instruction", "output"} is what it is, whoever published it."""
    found = chats.from_record(line["record"], "f:1")
    if "user" in SETS[line["set"]]:
        return  # its entry in sets.toml says it
    assert [[m["role"], m["content"]] for m in json.loads(found.text)["messages"]] == line["chat"]


def test_every_named_set_has_a_record_here():
    assert {line["set"] for line in PUBLISHED} | set(OF_BLOBS) == set(SETS) and len(SETS) >= 45


def test_every_entry_says_what_a_person_must_know():
    for name, about in SETS.items():
        assert about["about"].endswith(".") and about["license"], name
        assert parsed(f"{name}@{ROOT}").name == f"{name}@{ROOT}", "and all of its keys are options"


def table():
    """The page docs/sets.md."""
    lines = [
        "# Data sets by name",
        "",
        "`--sources=dolly` reads a set from the Hugging Face hub, `--sources=dolly@FOLDER` a copy of it; those without a",
        "link have no home there that `datasets` can read. `--show=3` prints the first records as they are understood.",
        "Licences are those that the cards state: read a card before you publish a model. This table is made by",
        "`PYTHONPATH=. python tests/test_named_sets.py` from [sets.toml](../corpus/sets.toml) and a record of each set.",
        "",
        "A set is an entry of that file, whose keys are the options of a source. Where its fields say how it is read, as",
        "[shapes.toml](../corpus/shapes.toml) knows them, it needs no templates:",
        "",
        "```toml",
        "[my-set]",
        'about = "Questions of a help desk."',
        'license = "mit"',
        'hub = "owner/name"',
        'user = "{title}\\n\\n{body}"',
        'assistant = "{replies.first.text}"',
        "```",
        "",
        "| set | what it is | licence | rows | a record is read as |",
        "|---|---|---|---|---|",
    ]
    for name, about in SETS.items():
        hub, line = about.get("hub"), next((line for line in PUBLISHED if line["set"] == name), {})
        shown = f"[{name}](https://huggingface.co/datasets/{hub})" if hub else name
        gated = f" Gated: {about['gated']}." if "gated" in about else ""
        rows = f"{about['rows']:,}" if "rows" in about else ""
        turns = [f"**{role}** {short(content)}" for role, content in line.get("chat", [])]
        read = " ".join(turns) or short(line.get("text", "the text of each blob_id"))
        lines.append(f"| {shown} | {about['about']}{gated} | {about['license']} | {rows} | {read} |")
    return "\n".join(lines) + "\n"


def short(text):
    """The beginning of a text, for a cell."""
    words = " ".join(text.replace("|", "/").replace("<", "&lt;").replace("`", "").split())
    return words if len(words) <= 50 else words[:49] + "…"


def test_the_page_shows_all_of_them():
    assert PAGE.read_text(encoding="utf-8") == table()


if __name__ == "__main__":
    PAGE.write_text(table(), encoding="utf-8")
