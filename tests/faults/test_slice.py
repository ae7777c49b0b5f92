"""A slice of the search for faults, for every change; `make faults` runs the long one."""

import subprocess
import sys

from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from cleaning import pii
from corpus import chats, documents, turns
from corpus.documents import Document

FIELDS = [
    *turns.SAID_BY,
    *turns.WEIGHTS,
    "messages",
    "conversations",
    "history",
    "chat",
    "role",
    "content",
    "text",
    "type",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=8,
)
quickly = settings(max_examples=150, deadline=None, derandomize=True)


def test_a_slice_of_kills_damage_full_disks_and_odd_input(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--minutes=0.3", f"--out={tmp_path}/faults.md"],
        cwd=ROOT, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    shown = done.stdout[max(0, done.stdout.find("LOST")) :]  # what was lost stands before the tables
    assert done.returncode == 0, shown[:6000] + done.stderr[-3000:]


@quickly
@given(VALUES)
def test_any_value_is_a_document_or_a_problem_that_can_be_written(record):
    for parse in (documents.from_record, chats.from_record):
        found = parse(record, "here")
        written = found.text if isinstance(found, Document) else f"{found.rule} {found.detail}"
        assert written.strip() and written.encode()


@quickly
@given(
    st.lists(st.sampled_from("@ . : / # \n a 1 com http key = ' \" password 203 8e0a ghp_ * -".split(" ")), max_size=40)
)
def test_what_was_cleaned_stays_as_it_is(pieces):
    for kind in ("python", "code", "prose"):
        once, _ = pii.replaced("".join(pieces), kind)
        assert pii.replaced(once, kind) == (once, {})
