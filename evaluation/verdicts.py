"""Verdicts on programs: kept in results.jsonl as they come, and how each problem is judged.

A problem is judged "sealed", its test in one process and the program in another, if its own solution passes so. A test
that needs both in one process is judged "open", as other harnesses judge all of them: there a program could find the
answers in memory, or write the verdict itself, if it set out to. Problems without a solution, and those whose own one
fails, are open too; one whose solution only takes too long stays sealed, or the machine's load would decide. The
program has no say in it. A "script" reads and prints: it is run once per input, and what it prints is compared.
"""

import hashlib
import json
import os
from dataclasses import asdict

from tqdm import tqdm

import configurator
from corpus.records import json_line, json_lines
from evaluation import sandbox
from shards import naming

VERDICT = ("key", "mode", "passed", "result", "seconds")  # what is kept of one


def modes(problems, limits, num_workers, quiet=False):
    """({task_id: "sealed", "open" or "script"}, the task_ids whose own solution fails or takes too long). Problems
    without a solution are judged open, if they are no scripts. quiet: without progress bars."""
    found = {task_id: possible_modes(problem)[-1] for task_id, problem in problems.items()}
    left = [task_id for task_id, problem in problems.items() if problem.solution]
    too_slow = set()
    for mode in ("script", "sealed", "open"):
        jobs = []
        for task_id in left:
            problem = problems[task_id]
            if mode in possible_modes(problem):
                jobs.append((task_id, problem.program(problem.solution), problem.test, mode))
        ended = sandbox.run_all(jobs, num_workers, limits)
        bar = tqdm(ended, total=len(jobs), desc=f"own solutions, {mode}", unit="program", disable=quiet or not jobs)
        verdicts = dict(bar)
        too_slow |= {task_id for task_id, verdict in verdicts.items() if verdict.result in sandbox.TIMED_OUT}
        # A time-out does not show that the test needs another mode.
        decided = too_slow | {task_id for task_id, verdict in verdicts.items() if verdict.passed}
        found |= dict.fromkeys(decided & verdicts.keys(), mode)
        left = [task_id for task_id in left if task_id not in decided]
    return found, [task_id for task_id in problems if task_id in {*left, *too_slow}]


def possible_modes(problem):
    """The modes in which a problem can be judged, the strictest first."""
    return ("script",) if "inputs" in problem.test else ("sealed", "open")


def run_samples(problems, mode_of, samples, out, limits, num_workers):
    """The samples, each with its VERDICT, whose key is a hash of program, test, mode and limits. results.jsonl in the
    folder out grows as programs end; a program whose verdict it holds is not run again."""
    path = out / "results.jsonl"
    verdicts = {}
    for record in whole_lines(path):
        verdicts[record["key"]] = {name: record[name] for name in VERDICT}
    keys, jobs = [], {}
    for sample in samples:
        task_id = sample["task_id"]
        job = problems[task_id].program(sample["completion"]), problems[task_id].test, mode_of[task_id]
        key = hashlib.sha256(json.dumps([*job, asdict(limits)]).encode()).hexdigest()[:16]
        keys.append(key)
        if key not in verdicts:
            jobs[key] = key, *job
    out.mkdir(parents=True, exist_ok=True)
    with naming(path), open(path, "ab") as file:
        ended = sandbox.run_all(jobs.values(), num_workers, limits)
        for key, verdict in tqdm(ended, total=len(jobs), desc="running", unit="program"):
            verdicts[key] = with_digest({"key": key, "mode": jobs[key][-1], **asdict(verdict)})
            file.write(json_line(verdicts[key]))
            file.flush()
    results = [with_digest({**sample, **verdicts[key]}) for sample, key in zip(samples, keys)]
    configurator.write_text(path, json_lines(results))
    return results


def whole_lines(path):
    """The records of a file that this script wrote, if it exists. A last line that was cut off is removed from it, and
    so are lines that are not as they were written, which a message counts."""
    if not path.exists():
        return []
    os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    lines = path.read_bytes().split(b"\n")[:-1]
    whole = [record for record in map(record_in, lines) if record]
    if len(whole) < len(lines):
        print(f"warning: {len(lines) - len(whole)} lines of {path} are damaged or another program's: made anew")
        configurator.write_text(path, json_lines(whole))
    return whole


def record_in(line):
    """The record in a line, bytes, if it is as it was written; else None."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and with_digest(record) == record else None


def with_digest(record):
    """The record with a digest of its content, but for the seconds, which no other run repeats."""
    content = {name: value for name, value in record.items() if name not in ("seconds", "sha256")}
    return {**record, "sha256": hashlib.sha256(json_line(content)).hexdigest()[:16]}
