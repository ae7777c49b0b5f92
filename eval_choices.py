"""A checkpoint answers multiple-choice questions: MMLU, C-Eval, and any file of their shape.

    python eval_choices.py --questions=mmlu/test/ --examples=mmlu/dev/
    python eval_choices.py --questions=ceval_val.jsonl --shots=0

The answer is the choice that the model finds likeliest; nothing is generated. By letter, the choices
are listed and " A", " B", ... are compared, as MMLU's authors do it; models below a billion
parameters seldom know what to do with letters. By text, the choices themselves are compared, per
byte, without being listed: there a small model shows what it knows.
"""

import needs  # noqa: F401

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from tqdm import tqdm

import configurator
from configurator import UserError
from evaluation.choices import by_letter, by_text, form_of, read_questions
from evaluation.likelihood import nats
from ranges import Device, Natural, Place, Precision, SmallCount
from shards import exclusive
from training import checkpoint
from training import machine as machines

WAYS = {"by_letter": by_letter, "by_text": by_text}


@dataclass
class Settings:
    """What to ask, and how."""

    # -- what to ask
    checkpoint: str = "out/sft"  # a checkpoint or a folder of them, of which the newest is taken
    questions: list[str] = field(default_factory=list)  # files, or folders of them: csv, json, jsonl
    examples: list[str] = field(default_factory=list)  # the same, with the questions that are shown with their answers
    shots: Natural = 5  # examples of the question's subject in front of it, as many of them as fit the context
    # the words around a question; empty = C-Eval's for Chinese ones, else MMLU's
    form: Literal["", "mmlu", "ceval"] = ""
    groups: str = ""  # a JSON file, subject: group, or C-Eval's subject_mapping.json
    # -- results
    out_dir: Place = "out/eval-choices"  # summary.json, results.jsonl
    # -- machine
    batch_size: SmallCount = 32  # questions at a time
    device: Device | None = None  # what to compute on; auto = the first of these that is there
    dtype: Precision | None = None  # format of matrix products; auto = bf16 where the device has units for it


def main(settings):
    """Ask all questions in both ways, and write and print the scores."""
    if not settings.questions:
        raise UserError("no questions to ask: --questions=FILE,...")
    questions = [question for question in read_questions(settings.questions) if question.answer is not None]
    if not questions:
        raise UserError("no question has an answer to compare with: these are those of a test that others score")
    examples = examples_by_subject(read_questions(settings.examples) if settings.examples else [])
    if examples and not any(question.subject in examples for question in questions):
        raise UserError(f"no example has the subject of a question: they have {', '.join(sorted(examples))[:200]}")
    group_of = read_groups(settings.groups)
    machine = machines.start(settings.device, settings.dtype)
    model, tokenizer, meta = checkpoint.load_model(settings.checkpoint, machine)
    out = Path(settings.out_dir)
    with exclusive(out):
        results = ask_all(model, tokenizer, questions, examples, settings)
        lines = [json.dumps(row) + "\n" for row in results]
        configurator.write_text(out / "results.jsonl", "".join(lines))
        summary = summarize(questions, results, group_of)
        about = {"checkpoint": {key: meta.get(key) for key in ("step", "sha256")}, "settings": asdict(settings)}
        configurator.write_json(out / "summary.json", {**summary, **about, "made_by": configurator.made_by()})
    print_summary(summary, out)


def examples_by_subject(questions):
    """{subject: its Questions that have an answer}, in the files' order."""
    found = {}
    for question in questions:
        if question.answer is not None:
            found.setdefault(question.subject, []).append(question)
    return found


def read_groups(path):
    """{subject: group} of a JSON file; none without one."""
    if not path:
        return {}
    try:
        groups = json.loads(Path(path).read_text(encoding="utf-8"))
        found = {subject: group if isinstance(group, str) else group[-1] for subject, group in groups.items()}
        if other := [subject for subject, group in found.items() if not isinstance(group, str)]:
            raise ValueError(f"the group of {other[0]} is no text")
        return found
    except (OSError, ValueError, AttributeError, LookupError, TypeError) as error:
        raise UserError(f"{path} is no JSON file of subject: group ({error})") from None


# -- what the model finds likely


def ask_all(model, tokenizer, questions, examples, settings):
    """The lines of results.jsonl: of each question its subject, the right choice, and what answers() says of it."""
    results = []
    for start in tqdm(range(0, len(questions), settings.batch_size), desc="asking", unit="batch"):
        part = questions[start : start + settings.batch_size]
        rows = [{"subject": question.subject, "answer": question.answer} for question in part]
        for way, write in WAYS.items():
            for row, found in zip(rows, answers(model, tokenizer, part, examples, write, settings)):
                row[way], row[f"shots_{way}"], row[f"cut_{way}"] = found
        results += rows
    return results


def answers(model, tokenizer, questions, examples, write, settings):
    """Yield for each question (the number of the likeliest choice, how many examples it was shown with, whether its
    beginning was left out). The likeliest: by the sum of its log-probability, and, where the choices are texts, by that
    sum per byte. write: by_letter or by_text."""
    rows, places, shown = [], [], []
    for number, question in enumerate(questions):
        choices, *how = encoded(question, examples, write, settings, tokenizer, model.config.block_size)
        rows += choices
        places += [number] * len(choices)
        shown.append(how)
    scores = [-value for value in nats(model, tokenizer.eot, rows, settings.batch_size)]
    found = [[] for _ in questions]
    for number, score in zip(places, scores):
        found[number].append(score)
    for question, own, how in zip(questions, found, shown):
        if write is by_text:
            own = [score / max(1, len(choice.encode())) for score, choice in zip(own, question.choices)]
        yield max(range(len(own)), key=own.__getitem__), *how


def encoded(question, examples, write, settings, tokenizer, block_size):
    """([(ids, how many of them are the prompt)] of a question's choices, how many examples are in front of it, whether
    its beginning is left out): as many examples as fit, and if the question alone does not, only its end. A token in
    which the prompt ends and a choice begins counts as the choice's, and then for all of them."""
    shots = examples.get(question.subject, [])[: settings.shots]
    while True:
        prompt, choices = write(question, shots, settings.form or form_of(question))
        whole = [[tokenizer.eot, *tokenizer.encode(prompt + choice)] for choice in choices]
        if not shots or max(map(len, whole)) <= block_size + 1:
            break
        shots = shots[:-1]
    alone = [tokenizer.eot, *tokenizer.encode(prompt)]
    n_prompt = min(len(os.path.commonprefix([alone, ids])) for ids in whole)
    cuts = [max(0, len(ids) - block_size - 1) for ids in whole]
    rows = [(ids[cut:], max(1, n_prompt - cut)) for ids, cut in zip(whole, cuts)]
    return rows, len(shots), any(cuts)


# -- scores


def summarize(questions, results, group_of):
    """accuracy, stderr, chance and n of all questions, by letter, and the same by text, per subject and per group; and
    what of the prompts did not fit into the context: shots_mean, shots_least and n_cut, by letter and by text."""
    by_subject, by_group = {}, {}
    for number, question in enumerate(questions):
        by_subject.setdefault(question.subject, []).append(number)
        if question.subject in group_of:
            by_group.setdefault(group_of[question.subject], []).append(number)

    def score(numbers):
        """Of some of the questions."""
        chance = sum(1 / len(questions[i].choices) for i in numbers) / len(numbers)
        found = {}
        for way in WAYS:
            share = sum(results[i][way] == results[i]["answer"] for i in numbers) / len(numbers)
            found[way] = {"accuracy": share, "stderr": math.sqrt(share * (1 - share) / len(numbers))}
        return {**found["by_letter"], "by_text": found["by_text"], "chance": chance, "n": len(numbers)}

    subjects = {subject: score(numbers) for subject, numbers in by_subject.items()}
    mean = sum(found["accuracy"] for found in subjects.values()) / len(subjects)
    groups = {group: score(numbers) for group, numbers in by_group.items()}
    every = {**score(range(len(questions))), "mean_of_subjects": mean, "subjects": subjects, "groups": groups}
    fitted = {}
    for way in WAYS:
        shots = [row[f"shots_{way}"] for row in results]
        fitted[way] = {"shots_mean": sum(shots) / len(shots), "shots_least": min(shots)}
        fitted[way]["n_cut"] = sum(row[f"cut_{way}"] for row in results)
    return {**every, "prompts": fitted}


def print_summary(summary, out):
    """The same as a table."""
    print(f"\n{'':<36}{'questions':>10}{'chance':>8}{'by letter':>18}{'by text':>18}")
    for name, row in {**summary["subjects"], **summary["groups"], "all": summary}.items():
        cells = [f"{found['accuracy']:.1%} +- {found['stderr']:.1%}" for found in (row, row["by_text"])]
        print(f"{name[:35]:<36}{row['n']:>10,}{row['chance']:>8.1%}{cells[0]:>18}{cells[1]:>18}")
    print(f"mean of the subjects, by letter: {summary['mean_of_subjects']:.1%}")
    for way, found in summary["prompts"].items():
        shots = f"{found['shots_mean']:.1f} examples in the mean, {found['shots_least']} at least"
        print(f"{way.replace('_', ' ')}: {shots}; {found['n_cut']:,} questions cut to fit the context")
    print(f"results -> {out}")


if __name__ == "__main__":
    configurator.run(main, Settings)
