"""Multiple-choice questions: files as MMLU and C-Eval publish them, and the prompts that their authors use.

A question is a record {"question", "A", "B", "C", "D", "answer": "B"} or {"question", "choices": [...], "answer": 1},
or a line of a CSV file with these columns, or without a header: question, choices, answer. The subject is a field, or
the file's name: accountant_dev.csv.
"""

import csv
import io
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from configurator import UserError
from corpus.records import DAMAGE, opened_text, records, without_compression

LETTERS = "ABCDEFGHIJ"
# The words around questions, as in hendrycks/test and in hkust-nlp/ceval.
FORMS = {
    "mmlu": ("The following are multiple choice questions (with answers) about {subject}.\n\n", "Answer:", " "),
    "ceval": ("以下是中国关于{subject}考试的单项选择题，请选出其中的正确答案。\n\n", "答案：", ""),
}


@dataclass
class Question:
    """A question with its choices."""

    subject: str
    text: str
    choices: list[str]
    answer: int | None  # the number of the right choice; None where the file does not tell


def read_questions(paths):
    """The Questions of files, and of the files in folders. Raises UserError naming what is no question."""
    found = []
    for path in map(Path, paths):
        files = sorted(child for child in path.rglob("*") if child.is_file()) if path.is_dir() else [path]
        for file in files:
            kind = Path(without_compression(file.name)).suffix.lower()
            if kind == ".csv":
                found += from_csv(file)
            elif kind in (".json", ".jsonl") or not path.is_dir():
                found += [from_record(record, file, place) for record, place in records(file)]
    if not found:
        raise UserError(f"no questions in {', '.join(map(str, paths))}")
    return found


def from_csv(path):
    """The Questions of a CSV file."""
    try:
        with opened_text(path) as file:
            rows = list(csv.reader(io.StringIO(file.read(), newline="")))
    except (*DAMAGE, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    names = [name.strip().lower() for name in rows[0]] if rows else []
    has_header, found = "question" in names, []
    for number, row in enumerate(rows[has_header:], 1 + has_header):
        if has_header:
            named = dict(zip(names, row))
            record = {letter: named[letter.lower()] for letter in LETTERS if letter.lower() in named} | named
        else:
            record = {"question": row[0], "choices": row[1:-1], "answer": row[-1]} if len(row) > 3 else {}
        if row:
            found.append(from_record(record, path, f"row {number}"))
    return found


def from_record(record, path, place):
    """The Question of a record. Raises UserError where it is none."""
    choices, labels = record.get("choices"), list(LETTERS)
    if isinstance(choices, dict):  # ARC's: {"text": [...], "label": [...]}
        labels = choices["label"] if isinstance(choices.get("label"), list) else labels
        choices, labels = choices.get("text"), [str(label) for label in labels]
    elif choices is None:
        choices = list(itertools.takewhile(lambda choice: choice not in (None, ""), map(record.get, LETTERS)))
    text, answer = record.get("question"), record.get("answer", record.get("answerKey"))
    is_whole = isinstance(text, str) and isinstance(choices, list) and 1 < len(choices) <= len(LETTERS)
    is_whole = is_whole and all(isinstance(choice, str | int | float) for choice in choices)
    if isinstance(answer, str):
        answer = answer.strip().upper() or None
        if answer in labels:
            answer = labels.index(answer)
        elif answer and re.fullmatch("[0-9]{1,4}", answer):
            answer = int(answer)
    is_known = answer is None or type(answer) is int and is_whole and 0 <= answer < len(choices)
    if not is_whole or not is_known:
        what = "a question, choices A, B, ... and the answer's letter or number"
        raise UserError(f"{path}, {place}, is no multiple-choice question: it takes {what}")
    return Question(subject_of(record, path), text, [str(choice) for choice in choices], answer)


def subject_of(record, path):
    """A question's subject: its own, or by the name of its file."""
    if isinstance(record.get("subject"), str) and record["subject"]:
        return record["subject"]
    name = Path(without_compression(path.name)).stem.rpartition("__")[2]
    return re.sub(r"(^|_)(dev|val|validation|test|train)$", "", name)  # "" for test.jsonl, as for dev.jsonl


def form_of(question):
    """The form that fits a question: C-Eval's if it is Chinese."""
    return "ceval" if re.search("[\u4e00-\u9fff]", question.text) else "mmlu"


def by_letter(question, shots, form):
    """(prompt, [how each choice is answered]): the choices are listed, and the answer is a letter."""
    opening, asked, blank = FORMS[form]
    answers = [blank + letter for letter in LETTERS[: len(question.choices)]]

    def block(each):
        """A question with its choices."""
        lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, each.choices)]
        return "\n".join([each.text, *lines, asked])

    examples = [f"{block(shot)}{blank}{LETTERS[shot.answer]}\n\n" for shot in shots]
    return opening.format(subject=question.subject.replace("_", " ")) + "".join(examples) + block(question), answers


def by_text(question, shots, form):
    """(prompt, [how each choice is answered]): no choice is listed, and the answer is a choice's own text."""
    _, asked, blank = FORMS[form]
    examples = [f"{shot.text}\n{asked}{blank}{shot.choices[shot.answer]}\n\n" for shot in shots]
    return "".join(examples) + f"{question.text}\n{asked}", [blank + choice for choice in question.choices]
