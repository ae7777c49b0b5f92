"""How many problems ask for a single operation that training holds? What a model could learn from the tables at most.

    python -m experiments.coverage
    python -m experiments.coverage --problems=my_problems.jsonl

Every operation of exercises/operations is tried as the answer to every problem: called as the problem wants it, and judged
by the problem's tests in the sandbox. A problem belongs to the first of the folders first, next, common and rare that holds
one which passes. Those of "none" need several operations put together, or something that no table has. Short tests let some
operations pass that are not what was asked for: MBPP's have three examples.
"""

import needs  # noqa: F401

import ast
from collections import Counter
from dataclasses import asdict, dataclass

from tqdm import tqdm

import configurator
from cores import n_cores
from evaluation import sandbox
from evaluation.problems import MBPP_TEST, read_sets
from evaluation.verdicts import modes
from exercises import tables
from exercises.code import indented, renamed
from exercises.compose import is_higher
from ranges import Place, Workers

TIMEOUT = 0.5  # CPU seconds: what is asked for takes milliseconds


@dataclass
class Settings:
    """Which problems."""

    problems: str = "exercises/by_hand.jsonl,humaneval,mbpp"  # as for eval_humaneval.py
    num_workers: Workers = 0  # programs run at a time; 0 = one per core
    out: Place = "out/coverage.json"  # the table as JSON


def main(settings):
    """Print how many problems of each set an operation of each folder solves, and write the same as JSON."""
    problems, _ = read_sets(settings.problems, MBPP_TEST)
    num_workers, limits = settings.num_workers or n_cores(), sandbox.Limits(TIMEOUT)
    mode_of, _ = modes(problems, limits, num_workers)
    left, found = dict(problems), {}
    for folder in tables.WEIGHTS:
        operations = [operation for path in tables.FOLDER.glob(f"{folder}/*.txt") for operation in tables.read_table(path)]
        operations = [operation for operation in operations if not is_higher(operation)]
        jobs = []
        for task_id, problem in left.items():
            name, n_parameters = called(problem)
            fit = [operation for operation in operations if len(operation.parameters) == n_parameters]
            jobs += [(task_id, written(operation, name), problem.test, mode_of[task_id]) for operation in fit]
        ended = sandbox.run_all(jobs, num_workers, limits)
        for task_id, verdict in tqdm(ended, total=len(jobs), desc=folder, unit="program"):
            if verdict.passed:
                found[task_id] = folder
        left = {task_id: problem for task_id, problem in left.items() if task_id not in found}
    table = count(problems, found)
    for name, row in table.items():
        print(f"{name:<16}" + "".join(f"{cell:>10}" for cell in row.values()))
    about = {"settings": asdict(settings), "made_by": configurator.made_by()}
    configurator.write_json(settings.out, {"covered": table, **about})


def called(problem):
    """(name, number of parameters) of the function that a problem asks for, by its own solution; ("", 0) without one."""
    functions = [node for node in ast.parse(problem.program(problem.solution)).body if isinstance(node, ast.FunctionDef)]
    names = problem.test["entry_points"]
    wanted = [function for function in functions if function.name in names] or functions
    return (wanted[-1].name, len(wanted[-1].args.args)) if wanted else ("", 0)
