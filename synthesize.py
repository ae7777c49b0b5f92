"""A teacher behind an endpoint -> training data: exercises, textbook pages, labels.

    python -m synthesize --n=1000 --base_url=http://HOST:8000/v1
    python -m synthesize --kind=oss-instruct --sources=my_code/
    python -m synthesize --kind=evol-instruct --sources=chats.jsonl
    python -m synthesize --kind=labels --sources=my_code/

A key, if the endpoint wants one, is read from the environment: OPENAI_API_KEY. Every answer is kept
in replies.jsonl as it comes: the same command goes on where it was stopped, and asks nothing twice.

An exercise is kept if its solution passes its tests in the sandbox, a function that returns None
fails them, and so do at least half of up to eight copies of the solution with one error in them.
What is like an earlier text is dropped, and with --decontaminate=FILE copies of a benchmark's
problems. Mind the terms of the teacher's makers for what it writes.
"""

import needs  # noqa: F401

import ast
import os
import re
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tqdm import tqdm

import configurator
import pages
from cleaning import decontaminate
from cleaning.view import View
from configurator import UserError
from cores import n_cores
from corpus.documents import Document, read
from corpus.parallel import submitted
from corpus.records import json_line, json_lines
from corpus.sources import parsed
from evaluation import sandbox
from evaluation.verdicts import whole_lines, with_digest
from ranges import (
    Count,
    Natural,
    NotNegative,
    Place,
    Positive,
    Range,
    Seed,
    Share,
    ShareAbove0,
    SmallCount,
    Text,
    Workers,
)
from shards import exclusive, naming
from synthesis import diversity
from synthesis.exercise import Unusable, exercise_in, judged
from synthesis.questions import KINDS, questions
from synthesis.teacher import Refused, Teacher, Unreachable

KEY = "OPENAI_API_KEY"
# Similarity of a function's syntax tree to a benchmark's solution from which it counts as a copy: phi-1's threshold.
SIMILAR_TREE = 0.8
# Of "Educational score (0-5): 4", "4.0" or "4.", but not of "a score of 0-5" or "3.5".
SCORE = re.compile(r"score\b(?:\s*\([^)]*\))?\W*([0-5])(?:\.0+)?(?!\d|\.\d|\s*-\s*\d)", re.I)
NUMBERS = re.compile(r"(?<!refused: )(?<!no answer: )\b\d[\d,.]*")  # in an error: without them, equal ones are counted
GIVEN_UP = 10  # as many requests without an answer, one after another, and the endpoint is taken to be gone


@dataclass
class Settings:
    """What is asked, whom, and what is kept."""

    # -- requests
    kind: Literal[KINDS] = "exercises"  # what is made
    n: Count = 100  # requests; each gives at most one text. Of sources, the first n documents are asked about
    sources: list[str] = field(default_factory=list)  # what they are about: code, conversations for evol-instruct
    seed: Seed = 1337  # another one draws other words for each request
    # -- teacher
    base_url: Text = "http://127.0.0.1:8000/v1"  # an OpenAI-compatible endpoint
    model: Text = ""  # the name of the teacher there; empty = the first that the endpoint lists
    temperature: NotNegative = 0.8  # at which the teacher writes
    top_p: ShareAbove0 = 0.95  # the teacher draws from the fewest tokens that hold this share of the probability
    max_tokens: Count = 1500  # length of an answer; one that is cut off is dropped
    clients: SmallCount = 8  # requests under way at a time
    wait: Positive = 120.0  # seconds for one try of a request
    retries: Annotated[int, Range(0, 100)] = 6  # further tries of a request that failed, after longer and longer pauses
    budget: Natural = 0  # tokens of all answers to these requests, after which no more are sent; 0 = any number
    # -- what is kept
    decontaminate: list[str] = field(default_factory=list)  # files of benchmark problems whose copies are dropped
    similar: ShareAbove0 = 0.7  # share of 5-grams in common from which two texts count as one
    min_failing: Share = 0.5  # share of a solution's mutants that the tests must tell apart
    min_score: Annotated[int, Range(0, 5)] = 3  # of labels: from this score on a document's label is 1
    timeout: Positive = 3.0  # CPU seconds per program
    num_workers: Workers = 0  # programs run at a time; 0 = one per core
    unconfined: bool = False  # run programs where the system cannot confine them; they may do whatever you may
    compare_with: str = "stdlib"  # a real corpus, whose diversity the report shows beside that of what is kept
    # -- results
    out_dir: Place | None = None  # replies.jsonl, what was made of them, report.html; auto = data/KIND


def main(settings):
    """Ask, verify, write, report."""
    settings.out_dir = settings.out_dir or f"data/{settings.kind}"
    out, limits = Path(settings.out_dir), sandbox.Limits(settings.timeout, unconfined=settings.unconfined)
    # What cannot work fails before anything is asked and paid for.
    if settings.compare_with:
        parsed(settings.compare_with)
    if settings.kind not in ("labels", "textbook"):
        sandbox.probe(limits)
    benchmarks = decontaminate.load(settings.decontaminate) if settings.decontaminate else None
    if not benchmarks and settings.kind != "labels":
        print("nothing is compared with benchmarks: --decontaminate=FILE,... drops copies of their problems")
    key = os.environ.get(KEY, "")
    teacher = Teacher(settings.base_url, settings.model, key, settings.wait, settings.retries)
    teacher.model = teacher.model or teacher.first_model()
    drawn = {"temperature": settings.temperature, "top_p": settings.top_p, "max_tokens": settings.max_tokens}
    wanted = questions(settings.kind, settings.n, settings.sources, settings.seed, model=teacher.model, **drawn)
    wanted = list({question.key: question for question in wanted}.values())  # equal documents ask the same
    if not wanted:
        raise UserError(f"{', '.join(settings.sources)}: nothing there that kind={settings.kind} could be asked about")
    with exclusive(out):
        replies, dropped = ask_all(settings, teacher, drawn, wanted, out)
        answered = [question for question in wanted if question.key in replies]
        if settings.kind == "labels":
            kept = labels(settings, answered, replies, dropped)
        elif settings.kind == "textbook":
            kept = textbook(settings, answered, replies, dropped, benchmarks)
        else:
            kept = exercises(settings, answered, replies, dropped, benchmarks, limits)
        for name, records in kept.items():
            configurator.write_text(out / f"{name}.jsonl", json_lines(records))
        report(settings, teacher, len(wanted), replies, dropped, kept, out)


# -- asking


def ask_all(settings, teacher, drawn, wanted, out):
    """({key: answer}, {why: how many requests have none}). Answers go to replies.jsonl as they come; what it holds
    is not asked for again. A request that was refused, or had no answer, is asked by the next run."""
    path, lock, keys = out / "replies.jsonl", threading.Lock(), {question.key for question in wanted}
    replies = {record["key"]: record for record in whole_lines(path) if record["key"] in keys}
    spent = sum(record["n_tokens"] for record in replies.values())
    open_ones = [question for question in wanted if question.key not in replies]
    out.mkdir(parents=True, exist_ok=True)
    with naming(path), open(path, "ab"):  # what cannot be written is not asked for
        pass

    def ask(question):
        """Add the answer to a question to the file. Returns why there is none, or ""."""
        nonlocal spent
        if 0 < settings.budget <= spent:
            return "not asked: the budget is spent"
        try:
            reply = teacher.ask(question.messages, **drawn)
        except Refused as error:
            return f"refused: {error}"
        except Unreachable as error:
            return f"no answer: {error}"
        record = {"key": question.key, "model": teacher.model, "about": question.about, **asdict(reply)}
        # Opened for each answer: a pool that Ctrl-C meets while a thread begins does not wait for that one, and a file
        # of all the threads would be closed when its answer comes.
        with lock, naming(path), open(path, "ab") as file:
            spent += reply.n_tokens
            replies[question.key] = with_digest(record)
            file.write(json_line(replies[question.key]))
        return ""

    lost, in_a_row = Counter(), 0
    bar = tqdm(total=len(wanted), initial=len(wanted) - len(open_ones), desc="asking", unit="request")
    with bar, ThreadPoolExecutor(settings.clients) as pool:
        try:
            for _, done in submitted(pool, ask, open_ones):
                why = done.result()
                bar.update()
                # One that has answered may refuse single requests, always the same ones: the next run could not pass.
                is_gone = why.startswith("no answer") or why.startswith("refused") and not replies
                in_a_row = in_a_row + 1 if is_gone else 0
                lost[NUMBERS.sub("N", why)] += bool(why)
                if in_a_row == GIVEN_UP:
                    raise UserError(
                        f"{GIVEN_UP} requests in a row came to this: {why}; the same command goes on from here"
                    )
        except BaseException:  # Ctrl-C, a wrong key: what is under way ends and is kept, nothing new begins
            print("\nwaiting for the answers that are under way", file=sys.stderr)
            teacher.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return replies, +lost


# -- from answers to data


def exercises(settings, answered, replies, dropped, benchmarks, limits):
    """{"chats": records, "problems": records} of the exercises that are kept. dropped: counts the others by reason."""
    found = {}
    for question in answered:
        reply = replies[question.key]
        try:
            if reply["finish_reason"] == "length":
                raise Unusable("cut off")
            found[question.key] = exercise_in(reply["text"])
        except Unusable as error:
            dropped[str(error)] += 1
    verdicts = judged(found, limits, settings.num_workers or n_cores(), settings.min_failing)
    chats, problems, seen = [], [], diversity.Seen(settings.similar)
    for key, exercise in found.items():
        why = verdicts[key] or why_not(exercise.text(), seen, benchmarks)
        if why:
            dropped[why] += 1
        else:
            chats.append({"id": f"synthetic/{key}"} | exercise.chat())
            problems.append(exercise.record(key))
    return {"chats": chats, "problems": problems}


def textbook(settings, answered, replies, dropped, benchmarks):
    """{"documents": records} of the pages that are kept."""
    documents, seen = [], diversity.Seen(settings.similar)
    for question in answered:
        reply = replies[question.key]
        why = "cut off" if reply["finish_reason"] == "length" else why_not(reply["text"], seen, benchmarks)
        if why:
            dropped[why] += 1
        else:
            documents.append({"id": f"synthetic/{question.key}", "text": reply["text"]})
    return {"documents": documents}


def why_not(text, seen, benchmarks):
    """Why a text is dropped, or ""."""
    view = View(text)
    if not text.strip():
        return "empty"
    if benchmarks and (decontaminate.copied(view, benchmarks) or is_similar(view, benchmarks)):
        return "like a problem of a benchmark"
    return "" if seen.add(text) else "like an earlier one"


def is_similar(view, benchmarks):
    """Whether a text has a function whose structure is nearly that of a benchmark's solution."""
    return max(decontaminate.closest(view, benchmarks).values(), default=0) >= SIMILAR_TREE


def labels(settings, answered, replies, dropped):
    """{"labels": records} as cleaning.classifier --labelled reads them."""
    records = []
    for question in answered:
        reply = replies[question.key]
        scores = SCORE.findall(reply["text"])
        if reply["finish_reason"] == "length":
            dropped["cut off"] += 1
        elif scores:
            label = str(int(int(scores[-1]) >= settings.min_score))
            records.append({"text": question.about["document"], "label": label, "score": int(scores[-1])})
        else:
            dropped["no score in the answer"] += 1
    return {"labels": records}


# -- report


def report(settings, teacher, n_wanted, replies, dropped, kept, out):
    """Say what came of the requests, and write report.md, report.html and summary.json."""
    texts = list(map(text_of, kept.get("problems") or next(iter(kept.values()))))
    n_kept = len(texts)
    measured = {"kept": diversity.measures(texts)}
    if settings.compare_with and texts:
        measured[settings.compare_with] = diversity.measures(real_texts(settings.compare_with, texts))
    n_tokens = sum(reply["n_tokens"] for reply in replies.values())
    summary = {"requests": n_wanted, "replies": len(replies), "tokens": n_tokens, "kept": n_kept}
    summary |= {"dropped": dict(dropped.most_common()), "diversity": measured, "model": teacher.model}
    about = {"settings": asdict(settings), "made_by": configurator.made_by()}
    configurator.write_json(out / "summary.json", summary | about)

    print(f"\n{n_wanted:,} requests, {len(replies):,} answers of {n_tokens:,} tokens, {n_kept:,} kept")
    for why, n in dropped.most_common():
        print(f"{n:>8,}  {why[:100]}")
    rows = [["kept", f"{n_kept:,}"]] + [[why, f"{n:,}"] for why, n in dropped.most_common()]
    blocks = [
        ("title", f"{n_kept:,} of {n_wanted:,} requests to {teacher.model}"),
        ("table", (["outcome", "requests"], rows)),
    ]
    blocks += [("heading", "How varied they are"), ("table", table_of(measured))]
    blocks += [("heading", "The first of them"), *(("code", text) for text in texts[:5])]
    pages.write(out / "report", blocks)
    print(f"{', '.join(f'{name}.jsonl' for name in kept)}, report.html -> {out}")


def text_of(record):
    """The text of a record that is kept: of an exercise its whole program."""
    return record["text"] if "text" in record else record["prompt"] + record["canonical_solution"]


def real_texts(source, texts):
    """As many pieces of a source as there are texts, each about as long as they are in the mean: functions, where the
    source has them, else lines that stand one after another."""
    wanted, size = len(texts), sum(map(len, texts)) / len(texts)
    pieces = []
    for item in read(source):
        if isinstance(item, Document):
            functions = decontaminate.functions_of(item.text)
            parts = [ast.get_source_segment(item.text, node) for node in functions] or item.text.split("\n\n")
            pieces += [part for part in parts if 0.5 * size < len(part) < 2 * size]
        if len(pieces) >= wanted:
            break
    return pieces[:wanted]


def table_of(measured):
    """(head, rows) of diversity.measures() of several sets of texts."""
    rows = []
    for name in next(iter(measured.values())):
        rows.append([name] + [shown(values[name]) for values in measured.values()])
    return ["measure", *measured], rows


def shown(value):
    """A number as a report has it."""
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


if __name__ == "__main__":
    configurator.run(main, Settings)
