"""A model's attempts at problems with tests, and what each has earned: what reinforcement learning learns from."""

import ast
import os
from dataclasses import dataclass

from evaluation import sandbox
from evaluation.formats import parsed
from evaluation.generate import Sampling, generate
from evaluation.replies import code_in
from evaluation.steps import NOT_ASSERTIONS


@dataclass
class Attempt:
    """What a model has written for one problem."""

    problem: int  # its number in the list of problems
    prompt: list[int]  # the ids that the model was given
    ids: list[int]  # the ids that it has drawn, with the stop token at their end, if one ended it
    logprobs: list[float]  # of the same
    text: str
    cut_off: bool  # at the largest number of tokens
    reward: float = 0.0


def attempt(model, tokenizer, asked, max_new_tokens, batch_size):
    """An Attempt for each (number of the problem, prompt's ids, stop strings, seed), drawn from the model's own
    distribution: at temperature 1 and of all tokens, or what is learnt would be of another distribution."""
    numbers, prompts, stops, seeds = zip(*asked)
    how = {"seeds": seeds, "stops": stops, "batch_size": batch_size, "keep_logprobs": True}
    written = generate(model, tokenizer, list(prompts), max_new_tokens, Sampling(temperature=1.0), **how)
    found = []
    for number, prompt, completion in zip(numbers, prompts, written):
        ids = completion.ids + ([] if completion.end is None else [completion.end])
        cut_off = completion.reason == "length"
        found.append(Attempt(number, prompt, ids, completion.logprobs, completion.text, cut_off))
    return found


def judge(problems, attempts, mode_of, chat, by_share=False):
    """Give every attempt its reward: 1 where the program passes its problem's test, else 0, or, by_share, the share of
    the test's assertions that it passes. A program that was written several times is run once."""
    programs = {}  # id of an attempt: (number of its problem, its program)
    for tried in attempts:
        problem = problems[tried.problem]
        programs[id(tried)] = tried.problem, problem.program(code_in(tried.text) if chat else tried.text)
    jobs = []
    for number, program in dict.fromkeys(programs.values()):
        problem = problems[number]
        jobs.append(((number, program, None), program, problem.test, mode_of[problem.task_id]))
    shares = {key[:2]: float(passed) for key, passed in passes(jobs).items()}
    if by_share:
        shares |= shares_of_failed([key for key in shares if not shares[key]], problems, mode_of)
    for tried in attempts:
        tried.reward = shares[programs[id(tried)]]


def passes(jobs):
    """{key: whether the program passed} of jobs for the sandbox."""
    return {key: verdict.passed for key, verdict in sandbox.run_all(jobs, os.cpu_count())}


def shares_of_failed(failed, problems, mode_of):
    """{(number of a problem, program): the share of its assertions that it passes} of programs that failed as a whole.
    What does not even compile is not run again."""
    jobs = []
    for number, program in failed:
        problem = problems[number]
        for n, test in enumerate(single_tests(problem.test) if parsed(program) else []):
            jobs.append(((number, program, n), program, test, mode_of[problem.task_id]))
    held = {key: [] for key in failed}
    for job, passed in passes(jobs).items():
        held[job[:2]].append(passed)
    return {key: sum(own) / max(1, len(own)) for key, own in held.items()}


def single_tests(test):
    """The test once for each of its assertions, without the others; none where it has no assert statements."""
    code = test.get("code", "")
    if NOT_ASSERTIONS.search(code):
        return []
    n_assertions = sum(isinstance(node, ast.Assert) for node in ast.walk(parsed(code) or ast.Module([], [])))
    return [{**test, "code": ast.unparse(KeepOne(n).visit(ast.parse(code)))} for n in range(n_assertions)]


class KeepOne(ast.NodeTransformer):
    """Leaves the n-th assertion of a test alone, and puts `pass` in the place of the others."""

    def __init__(self, n):
        self.n, self.seen = n, -1

    def visit_Assert(self, node):
        """The statement that stands for an assertion."""
        self.seen += 1
        return node if self.seen == self.n else ast.Pass()
