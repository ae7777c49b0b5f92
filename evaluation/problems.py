"""Benchmark problems, what a model is asked, and the score.

A file of problems has HumanEval's shape (prompt, entry_point, canonical_solution, test) or MBPP's (text or prompt, code,
test_list); every record becomes a Problem, and nothing after that knows which it was.
"""

import gzip
import json
import math
import re
from dataclasses import dataclass

from configurator import UserError
from tokenizer import complete_request

# How base models are cut off after the function: the lists of bigcode-evaluation-harness (its tasks humaneval and mbpp).
HUMANEVAL_STOP = ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```", "<file_sep>")
MBPP_STOP = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```")


@dataclass
class Problem:
    task_id: str
    prompt: str  # what a base model continues; a completion is judged behind it
    stop: tuple[str, ...]
    request: str  # what a chat model is asked
    test: dict  # for evaluation/sandbox.py
    solution: str  # the canonical one, as a completion
    family: str = ""  # for a table by kind, where the file names kinds

    def program(self, completion):
        return self.prompt + completion


def read_lines(path):
    """The records of a file of JSON lines, plain or .gz. Raises UserError naming the line that is none."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8") if str(path).endswith(".gz") else open(path, encoding="utf-8") as f
        ):
            for number, line in enumerate(f, 1):
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise ValueError
                    yield record
    except (ValueError, EOFError):
        raise UserError(f"{path} is not a file of JSON records, one a line (line {number})") from None


def read_problems(path, mbpp_ids):
    """{task_id: Problem}. mbpp_ids, "11-510", are the ids to take from a file of MBPP's shape."""
    first, last = (int(n) for n in mbpp_ids.split("-"))
    problems = {}
    for record in read_lines(path):
        if "test_list" in record and not first <= int(record["task_id"]) <= last:
            continue
        try:
            problem = from_mbpp(record) if "test_list" in record else from_humaneval(record)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: problem {record.get('task_id')} has no usable {error}") from None
        problems[problem.task_id] = problem
    if not problems:
        raise UserError(f"no problems in {path}")
    return problems


def from_humaneval(record):
    return Problem(
        task_id=record["task_id"],
        prompt=record["prompt"],
        stop=HUMANEVAL_STOP,
        request=complete_request(record["prompt"]),
        # the prompt on the test's side too: some tests use a helper that is defined in it
        test={
            "helpers": record["prompt"],
            "code": f"{record['test']}\ncheck({record['entry_point']})",
            "entry_points": [record["entry_point"]],
        },
        solution=record["canonical_solution"],
        family=record.get("family", ""),
    )


def from_mbpp(record):
    text, tests = record.get("text") or record["prompt"], record["test_list"]
    setup = [*record.get("test_imports", []), record.get("test_setup_code", "")]
    return Problem(
        task_id=str(record["task_id"]),
        prompt=f'"""\n{text}\n{tests[0]}\n"""\n',
        stop=MBPP_STOP,
        request=f"{text}\nYour code should pass this test:\n{tests[0]}",
        test={
            "helpers": "",
            "code": "\n".join([*setup, *tests]),
            "entry_points": re.findall(r"^(?:def|class)\s+(\w+)", record["code"], re.M),
        },
        solution=record["code"],
    )


def code_in(reply):
    """The code in a chat model's reply: its first fenced block, or all of it."""
    block = re.search(r"```[^\n]*\n(.*?)(?:```|\Z)", reply, re.DOTALL)
    return block[1] if block else reply


def pass_at_k(n, c, k):
    """The chance that at least one of k samples passes, estimated without bias from c of n that did:
    1 - C(n - c, k) / C(n, k) (Chen et al., arXiv:2107.03374, section 2.1)."""
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def stderr_key(k):
    """Where score keeps the standard error of pass@k."""
    return "stderr" if k == 1 else f"stderr@{k}"


def score(counts, ks=(1, 10, 100)):
    """counts: (n, c) per problem. {"pass@k", "stderr" of pass@1, "stderr@k" of the others} for every k with k samples
    of every problem. The standard error is that of a mean over problems drawn at random."""
    scores = {}
    for k in (k for k in ks if all(n >= k for n, _ in counts)):
        values = [pass_at_k(n, c, k) for n, c in counts]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
        scores[f"pass@{k}"] = mean
        scores[stderr_key(k)] = math.sqrt(variance / len(values))
    return scores
