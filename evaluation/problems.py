"""Benchmark problems, what a model is asked, and the score.

The records of a file have HumanEval's shape (prompt, entry_point, canonical_solution, test) or MBPP's (text or prompt,
code, test_list). Both become Problems, which are asked and judged in the same way.
"""

import hashlib
import math
import re
import urllib.request
from dataclasses import dataclass

from configurator import UserError
from corpus.records import read_lines
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

    def asked(self, chat):
        """What a model is given: the request of a chat, or the beginning of a program. There is no white space around
        it: "\\n    " is one token to the model, which the end of a prompt must not cut."""
        return self.request if chat else self.prompt.strip()


def downloaded(path):
    """Download HumanEval's file to path, unless it is there; returns path. Raises UserError if it is another file."""
    try:
        data = path.read_bytes() if path.exists() else urllib.request.urlopen(HUMANEVAL, timeout=30).read()
    except OSError as error:
        how = f"where there is a network, curl -LO {HUMANEVAL}, then copy it to {path}; or give --problems=FILE"
        raise UserError(f"HumanEval cannot be downloaded ({error}): {how}") from None
    if hashlib.sha256(data).hexdigest() != HUMANEVAL_SHA256:
        raise UserError(f"{path} is not the published HumanEval: its sha256 differs; delete it to download it again")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return path


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
    """The code in a chat model's reply: its first fenced block that is not marked as another language than Python,
    else its first block, else all of it. A fence that was cut off at the end of the reply is not part of it."""
    blocks = fenced_blocks(reply)
    for label, code in blocks:
        if not label or label.lower().lstrip("{. ").startswith(("py", "ipy")):
            return code
    if blocks:
        return blocks[0][1]
    before, _, last_line = reply.rstrip().rpartition("\n")
    return before + "\n" if re.fullmatch(r"\s*`+\w*", last_line) else reply


def fenced_blocks(reply):
    """[(label, code), ...] of the blocks between fences, as in CommonMark 4.5: a fence is a run of three back-ticks or
    tildes, or more; a line of at least as many closes the block, so that shorter and deeper ones are part of the code.
    As models write, back-ticks may also open behind a text and close behind the code of their line. The last block of
    a reply that was cut off goes to its end."""
    blocks, code, fence = [], [], ""
    for line in reply.split("\n"):
        if not fence:
            indent, fence, label = opening_fence(line)
            continue
        before = line.rstrip().rstrip(fence[0])
        is_long = len(line.rstrip()) - len(before) >= len(fence)
        if is_long and (before.strip() or len(before.expandtabs()) <= indent + 3):
            blocks.append((label, unindented([*code, before.rstrip(" ")], indent)))
            code, fence = [], ""
        else:
            code.append(line)
    if any(line.strip() for line in code):
        if code[-1].strip() and not code[-1].strip(fence[0] + " "):
            code[-1] = ""  # the first half of the closing fence
        blocks.append((label, unindented(code, indent)))
    return blocks


def opening_fence(line):
    """(columns in front of it, fence, label) of the fence that a line opens; the fence is "" where there is none."""
    if tildes := re.match(r"( *)(~{3,})(?!~)(.*)", line):
        return len(tildes[1]), tildes[2], tildes[3].strip()
    parts = re.split("(`{3,})", line)
    if len(parts) != 3 or "`" in parts[2]:
        return 0, "", ""  # none, or code within a line
    before, fence, label = parts[0], parts[1], parts[2].strip()
    if re.fullmatch(r" *(?:(?:[-*+]|\d+[.)]) +)?", before):  # the fence may be an item of a list
        return len(before), fence, label
    return (0, fence, label) if re.fullmatch(r"(?:[A-Za-z][\w+#.-]*)?", label) else (0, "", "")


def unindented(lines, indent):
    """Lines without the indentation that all of them have, at most that of their fence, as one text."""
    own = min((len(line) - len(line.lstrip(" ")) for line in lines if line.strip()), default=0)
    return "\n".join(line[min(indent, own) :] for line in lines)


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
