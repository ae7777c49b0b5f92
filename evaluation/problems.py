"""Benchmark problems, what a model is asked, and the score.

The records of a file have HumanEval's shape (prompt, entry_point, canonical_solution, test) or MBPP's (text or prompt,
code, test_list). Both become Problems, which are asked and judged in the same way.
"""

import gzip
import hashlib
import json
import math
import re
import urllib.request
import zlib
from dataclasses import dataclass

from configurator import UserError
from tokenizer import complete_request

HUMANEVAL = "https://github.com/openai/human-eval/raw/master/data/HumanEval.jsonl.gz"
HUMANEVAL_SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
# Where a base model's completion is cut off: the lists of bigcode-evaluation-harness (its tasks humaneval and mbpp).
HUMANEVAL_STOP = ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```", "<file_sep>")
MBPP_STOP = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```")


@dataclass
class Problem:
    """One task of a benchmark."""

    task_id: str
    prompt: str  # what a base model continues; the program that is run is the prompt and then the completion
    stop: tuple[str, ...]  # a base model's completion ends before the first of these
    request: str  # what a chat model is asked
    test: dict  # for evaluation/sandbox.py
    solution: str  # the benchmark's own, as a completion
    family: str = ""  # the group in which the problem is scored as well, where the file names groups


def downloaded(path):
    """Download HumanEval's file to path, unless it is there; returns path. Raises UserError if it is another file."""
    try:
        data = path.read_bytes() if path.exists() else urllib.request.urlopen(HUMANEVAL, timeout=30).read()
    except OSError as error:
        raise UserError(f"cannot download {HUMANEVAL}: {error}; give --problems=FILE instead") from None
    if hashlib.sha256(data).hexdigest() != HUMANEVAL_SHA256:
        raise UserError(f"{path} is not the published HumanEval: its sha256 differs; delete it to download it again")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return path


def read_lines(path):
    """Yield the records of a file of JSON lines, plain or .gz. Raises UserError naming a line that is not a record."""
    number = 0
    try:
        with gzip.open(path) if str(path).endswith(".gz") else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    record = json.loads(line.decode())
                    if not isinstance(record, dict):
                        raise ValueError
                    yield record
    except (ValueError, EOFError, zlib.error):
        raise UserError(f"{path} is not a file of JSON records, one a line (line {max(1, number)})") from None


def read_problems(path, mbpp_ids):
    """{task_id: Problem} of a file. mbpp_ids: which ids to take from a file of MBPP's shape, "11-510" or "11".
    Raises UserError for other mbpp_ids, for a record without the fields of either shape, and where nothing is left."""
    ids = re.fullmatch(r"(\d+)(?:-(\d+))?", mbpp_ids)
    if not ids:
        raise UserError(f"mbpp_ids must be one id or a range of them, such as 11-510, not {mbpp_ids!r}")
    first, last = int(ids[1]), int(ids[2] or ids[1])
    problems = {}
    for record in read_lines(path):
        try:
            if "test_list" not in record:
                problem = from_humaneval(record)
            elif first <= int(record["task_id"]) <= last:
                problem = from_mbpp(record)
            else:
                continue
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: problem {record.get('task_id')} has no usable fields: {error!r}") from None
        problems[problem.task_id] = problem
    if not problems:
        raise UserError(f"no problems in {path}")
    return problems


def from_humaneval(record):
    """The Problem of a record of HumanEval's shape."""
    prompt, entry_point, solution = record["prompt"], record["entry_point"], record["canonical_solution"]
    # The prompt is on the test's side too: some tests use a helper that is defined in it.
    test = {"helpers": prompt, "code": f"{record['test']}\ncheck({entry_point})", "entry_points": [entry_point]}
    request, family = complete_request(prompt), record.get("family", "")
    return Problem(str(record["task_id"]), prompt, HUMANEVAL_STOP, request, test, solution, family)


def from_mbpp(record):
    """The Problem of a record of MBPP's shape. A base model sees the text and the first test, as in InCoder
    (arXiv:2204.05999) and bigcode-evaluation-harness."""
    text, tests, solution = record.get("text") or record["prompt"], record["test_list"], record["code"]
    prompt = f'"""\n{text}\n{tests[0]}\n"""\n'
    request = f"{text}\nYour code should pass this test:\n{tests[0]}"
    code = "\n".join([*record.get("test_imports", []), record.get("test_setup_code", ""), *tests])
    entry_points = re.findall(r"^(?:def|class)\s+(\w+)", solution, re.M)
    test = {"helpers": "", "code": code, "entry_points": entry_points}
    return Problem(str(record["task_id"]), prompt, MBPP_STOP, request, test, solution)


def code_in(reply):
    """The code in a chat model's reply: its first fenced block, or all of it."""
    block = re.search(r"```[^\n]*\n(.*?)(?:```|\Z)", reply, re.DOTALL)
    return block[1] if block else reply


def pass_at_k(n, c, k):
    """The chance that at least one of k samples passes, estimated without bias from n samples of which c passed:
    1 - C(n - c, k) / C(n, k) (Chen et al., arXiv:2107.03374, section 2.1)."""
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def score(counts):
    """{"pass@1", "stderr" of pass@1, "pass@10", "stderr@10", ...} from (samples, passed ones) of every problem, for
    each k up to the fewest samples of a problem. The standard error is that of a mean over problems drawn at random."""
    scores, fewest = {}, min(n for n, _ in counts)
    for k in (1, 10, 100):
        if k > fewest:
            break
        values = [pass_at_k(n, c, k) for n, c in counts]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
        scores[f"pass@{k}"] = mean
        scores["stderr" if k == 1 else f"stderr@{k}"] = math.sqrt(variance / len(values))
    return scores
