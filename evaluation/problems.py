"""Files of benchmark problems, and the score; evaluation/formats.py knows the benchmarks."""

import collections
import math
import re
from dataclasses import replace
from pathlib import Path

from configurator import UserError
from corpus.benchmarks import file_of
from corpus.records import read_lines
from evaluation.formats import Untested, mbpp_number, problem_of
from hints import how_to_make

# The ids of MBPP's splits: what a model is scored by, what it is watched by in training, and what it may learn from.
MBPP_TEST, MBPP_VALIDATION, MBPP_TRAIN = "11-510", "511-600", "601-974"


def read_sets(names, mbpp_ids):
    """({task_id: Problem}, {task_id: path}) of benchmarks and files separated by commas. Of several sets, those that
    cannot be downloaded are left out, and a problem whose file names no families has that of its set, "humaneval"."""
    problems, path_of, sets = {}, {}, [name.strip() for name in names.split(",")]
    for name in sets:
        try:
            path = file_of(name)
        except UserError as error:
            if len(sets) == 1:
                raise
            print(f"left out: {error}")
            continue
        found = read_problems(path, mbpp_ids)
        if both := problems.keys() & found.keys():
            raise UserError(f"{path} and another file have problems of the same name: {sorted(both)[0]}")
        if len(sets) > 1:
            found = {task_id: replace(p, family=p.family or set_name(path)) for task_id, p in found.items()}
        problems |= found
        path_of |= dict.fromkeys(found, path)
    if not problems:
        raise UserError("none of the sets of problems could be had")
    return problems, path_of


def set_name(path):
    """What a file of problems is called in tables: humaneval for HumanEval.jsonl.gz, mbpp for sanitized-mbpp.json."""
    return path.name.split(".")[0].lower().removeprefix("sanitized-")


def read_problems(path, mbpp_ids, say=print):
    """{task_id: Problem} of a file, whose records may be of several benchmarks. mbpp_ids: which ids to take of MBPP and
    MBPP+, "11-510" or "11". say: called with a line for each reason why problems are left out. Raises UserError for
    other mbpp_ids, for a record that no benchmark has, and where nothing is left."""
    if not Path(path).is_file():
        raise UserError(f"no file of problems {path}{how_to_make(path)}")
    ids = re.fullmatch(r"(\d+)(?:-(\d+))?", mbpp_ids)
    if not ids:
        raise UserError(f"mbpp_ids must be one id or a range of them, such as 11-510, not {mbpp_ids!r}")
    first, last = int(ids[1]), int(ids[2] or ids[1])
    problems, n_records, left_out = {}, 0, collections.Counter()
    for n_records, record in enumerate(read_lines(path), 1):
        try:
            number = mbpp_number(record)
            if number is not None and not first <= number <= last:
                left_out[f"their ids are not in mbpp_ids={mbpp_ids}"] += 1
                continue
            problem = problem_of(record)
        except Untested:
            left_out["they have no tests"] += 1
            continue
        except (LookupError, TypeError, ValueError, AttributeError, SyntaxError, RecursionError) as error:
            raise UserError(
                f"{path}: problem {record.get('task_id')!r:.80} has no usable fields: {error!r:.250}"
            ) from None
        left_out["a later one has the same id"] += problem.task_id in problems
        problems[problem.task_id] = problem
    for reason, n in (+left_out).items():
        say(f"{n} of {n_records} problems of {path} are left out: {reason}")
    if not problems:
        raise UserError(f"no problems in {path}" + "".join(f" ({reason})" for reason in +left_out))
    return problems


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
        mean, error = mean_and_error([pass_at_k(n, c, k) for n, c in counts])
        scores[f"pass@{k}"] = mean
        scores["stderr" if k == 1 else f"stderr@{k}"] = error
    return scores


def mean_and_error(values):
    """(mean, its standard error) of values of problems that are drawn at random."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return mean, math.sqrt(variance / len(values))
