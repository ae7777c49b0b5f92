"""How likely a model finds texts: documents and choices, and the own solutions of benchmarks, which tell small models
apart while their pass@1 is still near 0."""

import ast
import itertools
import math
import random
import textwrap

import torch
from tqdm import tqdm

from configurator import UserError
from evaluation.generate import prompt_ids
from evaluation.mutants import is_docstring, mutants
from evaluation.problems import mean_and_error
from evaluation.replies import behind_def, with_def
from loss import IGNORE
from tokenizer import fenced

MUTANTS = 1  # per solution: with a thousand problems, more of them say little more


@torch.no_grad()
def nats(model, filler, rows, batch_size, what=""):
    """-log P of what stands behind the prompt, for each of some (ids, how many of them are the prompt).
    filler: the id that fills up short rows, which no score depends on. what: the words on a progress bar, or none.
    Raises UserError where one is not finite: NaN is neither more nor less than another, and would count as some answer.
    """
    device, found = model.embed_tokens.weight.device, [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))  # similar lengths in a batch: little padding
    for start in tqdm(range(0, len(order), batch_size), desc=what, unit="batch", disable=not what):
        part = order[start : start + batch_size]
        shape = len(part), len(rows[part[-1]][0]) - 1
        inputs, targets = torch.full(shape, filler, device=device), torch.full(shape, IGNORE, device=device)
        for place, i in enumerate(part):
            ids, n_prompt = rows[i]
            inputs[place, : len(ids) - 1] = torch.tensor(ids[:-1])
            targets[place, n_prompt - 1 : len(ids) - 1] = torch.tensor(ids[n_prompt:])
        losses = model(inputs, targets, reduction="none").cpu().double()  # one per token; mps has no float64
        for i, loss in zip(part, losses.view(shape).sum(1).tolist()):
            if not math.isfinite(loss):
                raise UserError(f"the model finds a text {loss} likely: are its weights damaged?")
            found[i] = loss
    return found


# -- solutions of benchmarks


def likelihoods(model, tokenizer, problems, chat, batch_size):
    """How likely the own solutions of problems are, as answers to what the model is asked: {} where there are none, or

        bpb            bits per byte, a mean over problems; bpb_micro: of all bytes together; n: problems (OLMo,
                       arXiv:2412.00656: a loss on right answers ranks small models as their later scores do)
        above_mutants  how often a solution takes fewer bits per byte than the same with one error in it, a mean over
                       problems with its standard error; about .5 for an untrained model; n_mutants: comparisons

    Problems without a solution, with a gap, or too long for the model are left out.
    """
    texts = {}  # (task_id, 0: as published, 1: written anew, from 2 on: mutants of that) -> a continuation
    for task_id, problem in problems.items():
        if problem.solution.strip() and not problem.suffix:
            for number, text in enumerate(continuations(problem, chat)):
                texts[task_id, number] = text
    rows = {}
    for (task_id, number), text in texts.items():
        prompt = prompt_ids(tokenizer, problems[task_id].asked(chat), chat)
        ids = [*prompt, *tokenizer.encode(text)]
        if len(ids) <= model.config.block_size + 1:
            rows[task_id, number] = ids, len(prompt)
    found = nats(model, tokenizer.eot, list(rows.values()), batch_size, "likelihood of own solutions")
    bits = {key: value / math.log(2) for key, value in zip(rows, found)}
    sizes = {key: len(texts[key].encode()) for key in bits}
    own = [key for key in bits if key[1] == 0]
    if not own:
        return {}
    found = {"bpb": sum(bits[key] / sizes[key] for key in own) / len(own), "n": len(own)}
    found["bpb_micro"] = sum(bits[key] for key in own) / sum(sizes[key] for key in own)
    bpb = {key: bits[key] / sizes[key] for key in bits}
    return found | above_mutants(bpb)


def above_mutants(bpb):
    """The share of mutants that take more bits per byte than their original, a mean over problems with its error.
    bpb: {(task_id, number)}, 1 = the original, from 2 on its mutants."""
    shares, n_mutants = [], 0
    for task_id in dict.fromkeys(task_id for task_id, _ in bpb):
        original = bpb.get((task_id, 1))
        others = [bpb[key] for key in bpb if key[0] == task_id and key[1] > 1]
        if original is not None and others:
            shares.append(sum(original < other for other in others) / len(others))
            n_mutants += len(others)
    if not shares:
        return {}
    mean, error = mean_and_error(shares)
    return {"above_mutants": mean, "stderr": error, "n_mutants": n_mutants}


def continuations(problem, chat):
    """What the model is to write: the own solution as published, the same as Python writes it, and mutants of that.
    An empty list where the prompt ends in a def that the solution does not begin with."""
    whole = (problem.prompt + problem.solution).strip()
    program = written(problem)
    if problem.is_request and not chat and program == problem.solution:
        return []
    published = fenced(program, "python") if chat else whole.removeprefix(problem.asked(False))
    try:
        original = answer(problem, ast.unparse(ast.parse(program)), chat)
        others = (answer(problem, mutant, chat) for mutant in mutants(program, random.Random(problem.task_id)))
        # A mutant of what belongs to the prompt has the same continuation.
        return [published, original, *itertools.islice((text for text in others if text != original), MUTANTS)]
    except (SyntaxError, RecursionError):
        return [published]


def written(problem):
    """The own solution as a model would write it, without what harnesses add: imports and helpers in front of it, and
    a name for the test."""
    if problem.is_request:
        return with_def(problem.solution)
    return problem.solution if problem.start else problem.program(problem.solution)


def answer(problem, program, chat):
    """A whole program as the model would write it: in a chat all of it, else what stands behind the prompt."""
    if chat:
        return fenced(program, "python")
    if problem.is_request:
        return behind_def(program)
    if problem.start is not None:  # the prompt is no part of the program
        return "\n" + program
    names = problem.test["entry_points"]
    functions = [node for node in ast.parse(program).body if isinstance(node, ast.FunctionDef) and node.name in names]
    body = functions[-1].body if functions else ast.parse(program).body
    if len(body) > 1 and is_docstring(body[0]):
        body = body[1:]  # it is in the prompt
    return "\n" + textwrap.indent("\n".join(map(ast.unparse, body)), "    ")
