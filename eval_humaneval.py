"""Stage 6: checkpoint -> pass@k on HumanEval, MBPP or another benchmark of evaluation/formats.py.

    python eval_humaneval.py --checkpoint=out/sft    greedy, one sample
    python eval_humaneval.py --checkpoint=out/sft --n_samples=9 --temperature=.2
    python eval_humaneval.py --samples=samples.jsonl    another program's work

Leaves samples.jsonl and results.jsonl (the formats of OpenAI's human-eval) and summary.json.
An interrupted run goes on where it was.
"""

import needs  # noqa: F401

import collections
import itertools
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from tqdm import tqdm

import configurator
from configurator import UserError
from cores import n_cores
from corpus.records import json_line
from evaluation import sandbox
from evaluation.problems import MBPP_TEST, read_lines, read_sets, score
from evaluation.replies import code_in
from evaluation.steps import how_far
from evaluation.verdicts import modes, run_samples, whole_lines, with_digest
from ranges import (
    Context,
    Device,
    Ids,
    Natural,
    NotNegative,
    Place,
    Precision,
    Range,
    Seed,
    ShareAbove0,
    SmallCount,
    Workers,
)
from shards import exclusive, naming, sha256_file

TOO_LONG = "prompt too long"  # for the model's context: nothing is written then
REASONS = dict.fromkeys(("SyntaxError", "IndentationError", "TabError"), "does not compile")
REASONS |= {"AssertionError": "wrong answer"}  # of exceptions; any other one stands for itself


@dataclass
class Settings:
    """The settings of this stage."""

    # -- what to test
    checkpoint: str = ""  # the model to test: a checkpoint or a folder of them
    samples: str = ""  # or: a file of {"task_id", "completion"} to score
    # -- problems
    problems: str = "humaneval"  # files of problems, separated by commas; humaneval and mbpp are downloaded into data/
    mbpp_ids: Ids = MBPP_TEST  # which problems to take from a file of MBPP's shape: 11-510 = its test split; 11 = one
    limit: Natural = 0  # only the first so many problems; 0 = all
    # -- writing
    chat: bool | None = None  # ask as in a chat and take the code from the reply; auto = as the checkpoint was trained
    n_samples: Annotated[int, Range(1, 10_000)] = 1  # completions per problem; pass@k needs at least k
    temperature: NotNegative = 0.0  # 0 = greedy; 0.2 is usual for pass@1, 0.8 for pass@10 and pass@100
    top_p: ShareAbove0 = 0.95  # draw from the fewest tokens that hold this share of the probability
    max_new_tokens: Context = 512  # length of a completion
    batch_size: SmallCount = 64  # completions under way at a time
    seed: Seed = 1337  # of the draws
    device: Device | None = None  # what to compute on; auto = the first of these that is there
    dtype: Precision | None = None  # format of matrix products; auto = bf16 where the device has units for it
    # -- running
    timeout: Annotated[float, Range(0, 86_400, without_low=True)] = 3.0  # CPU seconds per program
    memory_mb: Annotated[int, Range(1, 10**6)] = 1024  # memory per program
    num_workers: Workers = 0  # programs run at a time; 0 = one per core
    packages: list[str] = field(default_factory=list)  # installed packages that programs and tests may import: numpy
    unconfined: bool = False  # run programs where the system cannot confine them; they may do whatever you may
    # -- results
    out_dir: Place = "out/eval"  # samples.jsonl, results.jsonl, summary.json
    smooth: bool = True  # say also how far failing programs get, and how likely own solutions are
    similar: str = ""  # prepare_data.py's report.json: score problems like a training document apart
    min_similarity: ShareAbove0 = 0.8  # to a training document, from which a problem counts as similar; 0.8 as in phi-1


def main(settings):
    """Problems, a model's completions of them, a verdict on each, and what share is right."""
    check(settings)
    problems, path_of = read_sets(settings.problems, settings.mbpp_ids)
    problems = dict(itertools.islice(problems.items(), settings.limit or None))
    similarity = similarity_groups(settings, path_of, problems) if settings.similar else None
    limits = sandbox.Limits(settings.timeout, settings.memory_mb, tuple(settings.packages), settings.unconfined)
    confined = sandbox.probe(limits)
    print("programs are confined by " + ", ".join(f"{name} {version}".strip() for name, version in confined.items()))
    num_workers = settings.num_workers or n_cores()
    problems = with_packages(problems, settings.packages)
    mode_of, broken = modes(problems, limits, num_workers)
    tell_modes(mode_of, broken)
    out = Path(settings.out_dir)
    samples, likelihood = (read_samples(settings.samples, problems) if settings.samples else None), {}
    with exclusive(out):
        if not samples:
            samples, likelihood = write_samples(settings, problems, path_of, out)
        results = run_samples(problems, mode_of, samples, out, limits, num_workers)
        steps = how_far(problems, mode_of, results, out / "steps", limits, num_workers) if settings.smooth else {}

    judged = {"sandbox": confined, "open": list(mode_of.values()).count("open"), "own_solution_fails": broken}
    summary = summarize(problems, results) | judged | {"likelihood": likelihood, "how_far": steps}
    if similarity:
        summary["by_similarity"] = pass_rates(results, similarity)
    about = {"settings": asdict(settings), "made_by": configurator.made_by()}
    configurator.write_json(out / "summary.json", {**summary, **about})
    print_table(summary, out)


def check(settings):
    """Raises UserError for settings that contradict each other, and on a system that has no sandbox."""
    if sys.platform != "linux":  # else every program would fail in silence
        raise UserError("programs are confined by means that only Linux has (and WSL): run the evaluation there")
    if bool(settings.checkpoint) == bool(settings.samples):
        raise UserError("give either --checkpoint=DIR, a model to test, or --samples=FILE, completions to score")
    if settings.checkpoint and settings.n_samples > 1 and settings.temperature == 0:
        raise UserError("n_samples > 1 needs a temperature: at 0 all samples are the same")


def with_packages(problems, packages):
    """The problems whose tests and solutions need no other packages than these. What is left out is told. Raises
    UserError if nothing is left."""
    lacking = {task_id: set(problem.packages).difference(packages) for task_id, problem in problems.items()}
    missing = sorted(set().union(*lacking.values()))
    kept = {task_id: problem for task_id, problem in problems.items() if not lacking[task_id]}
    if missing:
        left_out = f"{len(problems) - len(kept)} of {len(problems)} problems need other packages"
        print(f"{left_out} and are left out; to score them: --packages={','.join(missing)}")
    if not kept:
        raise UserError(f"all problems need packages: --packages={','.join(missing)}")
    return kept


def tell_modes(mode_of, broken):
    """Say how many problems are judged open, and which are at fault themselves."""
    if n_open := list(mode_of.values()).count("open"):
        print(f"{n_open} of {len(mode_of)} problems are judged open: test and program in one process")
    if broken:
        names = ", ".join(broken[:10]) + (", ..." if broken[10:] else "")
        print(f"{len(broken)} problems' own solutions fail or take too long: {names}")


def read_samples(path, problems):
    """Samples from a file of another program: a list of {"task_id", "completion_id", "completion"}. The completion_id
    counts the samples of a problem from 0; the file need not have it."""
    records, samples, counts = list(read_lines(path)), [], collections.Counter()
    for record in records:
        task_id, completion = str(record.get("task_id")), record.get("completion")
        if not isinstance(completion, str):
            raise UserError(f"{path}: a sample of {task_id} has no completion")
        completion = completion.encode("utf-8", "replace").decode()  # JSON can hold halves of characters, "\ud800"
        if task_id in problems:
            samples.append({"task_id": task_id, "completion_id": counts[task_id], "completion": completion})
            counts[task_id] += 1
    if len(samples) < len(records):
        print(f"{len(records) - len(samples)} samples are of none of the problems and are passed over")
    if not samples:
        raise UserError(f"{path} holds no samples of these problems")
    return samples


def write_samples(settings, problems, path_of, out):
    """(samples from a checkpoint, in the same form and the problems' order, how likely it finds their own solutions).
    Samples are appended to samples.jsonl in parts; those that an interrupted run has left there are kept."""
    from evaluation.generate import Sampling, generate, prompt_ids  # these import torch, which takes seconds
    from evaluation.likelihood import likelihoods
    from training import checkpoint
    from training import machine as machines

    machine = machines.start(settings.device, settings.dtype)
    model, tokenizer, meta = checkpoint.load_model(settings.checkpoint, machine)
    # The values that auto stands for here are saved with the results.
    settings.device, settings.dtype = str(machine.device), "bf16" if machine.dtype.itemsize == 2 else "fp32"
    if settings.chat is None:
        settings.chat = meta.get("chat", False)
    hashes = [sha256_file(path) for path in dict.fromkeys(path_of.values())]
    done = samples_so_far(settings, out, {"problems": hashes, "model": meta["sha256"]})

    prompts = {}
    for task_id, problem in problems.items():
        prompts[task_id] = prompt_ids(tokenizer, problem.asked(settings.chat), settings.chat, problem.suffix)
    context = model.config.block_size
    too_long = sum(len(ids) >= context for ids in prompts.values())
    if too_long:
        print(
            f"{too_long} of {len(prompts)} prompts do not fit into the model's {context} tokens: they count as failed"
        )
    # Every sample is drawn with a seed of its own, so that it depends on no other (but for the rounding of a batch). A
    # pair, since with seed + number two runs with neighbouring seeds would share nearly all their samples.
    keys = itertools.product(problems, range(settings.n_samples))  # (task_id, completion_id) of all samples
    seeds = {key: (settings.seed, number) for number, key in enumerate(keys)}
    wanted = sorted(seeds, key=lambda key: len(prompts[key[0]]))  # similar lengths in a batch: little padding
    sampling = Sampling(settings.temperature, top_p=settings.top_p)
    # So many are written before they are saved: where one of a batch has ended, another begins in its place.
    at_once = 8 * settings.batch_size
    bar = tqdm(total=len(wanted), initial=len(done), desc="writing", unit="sample")
    with bar, naming(out / "samples.jsonl"), open(out / "samples.jsonl", "ab") as file:
        for start in range(0, len(wanted), at_once):
            batch = [key for key in wanted[start : start + at_once] if key not in done]
            fitting = [key for key in batch if len(prompts[key[0]]) < context]
            ids, row_seeds = [prompts[task_id] for task_id, _ in fitting], [seeds[key] for key in fitting]
            stops = [() if settings.chat else problems[task_id].stop for task_id, _ in fitting]
            bar.update(len(batch) - len(fitting))
            how = {"seeds": row_seeds, "stops": stops, "on_end": bar.update, "batch_size": settings.batch_size}
            completions = generate(model, tokenizer, ids, settings.max_new_tokens, sampling, **how)
            written = dict.fromkeys(batch, ("", TOO_LONG))  # (text, why it ended)
            for key, completion in zip(fitting, completions):
                text = code_in(completion.text) if settings.chat else completion.text
                written[key] = text, completion.reason
            for (task_id, number), (text, ended) in written.items():
                record = {"task_id": task_id, "completion_id": number, "completion": text, "ended": ended}
                done[task_id, number] = with_digest(record)
                file.write(json_line(done[task_id, number]))
            file.flush()
    likelihood = {}
    if settings.smooth:
        likelihood = likelihoods(model, tokenizer, problems, settings.chat, settings.batch_size)
    return [done[key] for key in seeds], likelihood


def samples_so_far(settings, out, hashes):
    """{(task_id, completion_id): sample} of an interrupted run with the same settings, problems and model. The samples
    of another run are deleted."""
    names = "n_samples temperature top_p max_new_tokens batch_size seed limit mbpp_ids packages chat device dtype"
    this_run = {name: getattr(settings, name) for name in names.split()} | hashes
    path, note = out / "samples.jsonl", out / "samples.settings.json"
    try:
        is_same = json.loads(note.read_bytes()) == this_run
    except (OSError, ValueError, RecursionError):
        is_same = False
    if not is_same:
        path.unlink(missing_ok=True)
        configurator.write_json(note, this_run)  # makes the folder too
    return {(record["task_id"], record["completion_id"]): record for record in whole_lines(path)}


def pass_rates(results, group_of):
    """{group: {"pass@1", "stderr", ..., "n_problems"}} of what run_samples returned. group_of: {task_id: its group}."""
    counts = collections.defaultdict(dict)  # group -> task_id -> [samples, passed ones]
    for record in results:
        task_id = record["task_id"]
        count = counts[group_of[task_id]].setdefault(task_id, [0, 0])
        count[0] += 1
        count[1] += record["passed"]
    groups = [group for group in dict.fromkeys(group_of.values()) if group in counts]  # in the order of the problems
    return {g: {**score(list(counts[g].values())), "n_problems": len(counts[g])} for g in groups}


def summarize(problems, results):
    """What summary.json says: the score, also by the problems' families, why programs failed, how many completions were
    cut off."""
    rates = pass_rates(results, dict.fromkeys(problems, "all"))["all"]
    if rates["n_problems"] < len(problems):
        print(f"{len(problems) - rates['n_problems']} of {len(problems)} problems have no samples and are left out")
    reasons, cut_off = collections.Counter(), collections.Counter()
    for record in results:
        reason = reason_of(record)
        reasons[reason] += 1
        cut_off[reason] += record.get("ended") == "length"  # what another program wrote does not say how it ended
    n_passed = reasons.pop("passed", 0)
    families = pass_rates(results, {task_id: problem.family for task_id, problem in problems.items()})
    families.pop("", None)  # problems whose file names no families
    about = {"n_samples": len(results), "n_passed": n_passed, "failures": dict(reasons.most_common())}
    about |= {"cut_off": {reason: n for reason, n in cut_off.items() if n}, "families": families}
    return {**rates, **about}


def reason_of(record):
    """What came of a program of results.jsonl, in a few words: "passed", or why it failed."""
    kind = record["result"].removeprefix("failed: ").split(":")[0]  # NameError of "failed: NameError: name 'x' is ..."
    if record["passed"]:
        return "passed"
    if record.get("ended") == TOO_LONG:
        return TOO_LONG
    if not record["completion"].strip():
        return "nothing written"
    # An exception may have any name, that of a verdict too.
    return REASONS.get(kind, kind if kind != "passed" and kind.isprintable() else "another exception")


def similarity_groups(settings, path_of, problems):
    """{task_id: "similar", "other" or "too small"}: whether a report of prepare_data.py names a training document that
    is close to the problem (phi-1, section 5, scores the two groups apart), and if none, whether it could tell. Small
    functions are alike everywhere: they are compared with those of the same name alone, or not at all."""
    try:
        found = json.loads(Path(settings.similar).read_text(encoding="utf-8"))["benchmarks"]["similar"]
        similar = {name for name, entry in found.items() if entry["similarity"] >= settings.min_similarity}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{settings.similar} is no report.json of prepare_data.py --decontaminate") from None
    groups = {}
    for task_id, problem in problems.items():
        # The report's names: HumanEval/0, and mbpp/11 for number 11 of mbpp.jsonl.
        name = task_id if "/" in task_id else f"{path_of[task_id].name.split('.')[0]}/{task_id}"
        groups[task_id] = "similar" if name in similar else "too small" if is_small(problem) else "other"
    return groups


def is_small(problem):
    """Whether there is an own solution, and no function of it is compared whatever its name."""
    from cleaning.decontaminate import MIN_NODES, flat, functions_of  # importing it takes as long as all the others

    functions = functions_of(problem.program(problem.solution)) if problem.solution else []
    return bool(functions) and all(len(flat(function)) < MIN_NODES for function in functions)


def print_table(summary, out):
    """The score by family and similarity, and in all; why programs failed."""
    rows = {**summary["families"], **summary.get("by_similarity", {}), "all": summary}
    rates = [key for key in summary if key.startswith("pass@")]
    errors = [key for key in summary if key.startswith("stderr")]  # in the same order
    print(f"\n{'':<16}{'problems':>10}" + "".join(f"{rate:>18}" for rate in rates))
    for name, group in rows.items():
        cells = [f"{group[rate]:.1%} +- {group[error]:.1%}" for rate, error in zip(rates, errors)]
        print(f"{name:<16}{group['n_problems']:>10}" + "".join(f"{cell:>18}" for cell in cells))
    print(f"\nof {summary['n_samples']:,} programs")
    for reason, n in {"passed": summary["n_passed"], **summary["failures"]}.items():
        cut_off = summary["cut_off"].get(reason, 0)
        print(f"{n:>8,}  {reason[:50]}" + (f", {cut_off:,} of them cut off" if cut_off else ""))
    if summary["cut_off"]:
        print("Cut off: at --max_new_tokens or at the end of the model's context.")
    if summary["how_far"]:
        steps = {step: share for step, share in summary["how_far"].items() if step != "n"}
        print("how far they get: " + ", ".join(f"{share:.1%} {step}" for step, share in steps.items()))
    if summary["likelihood"]:
        found = summary["likelihood"]
        line = f"own solutions: {found['bpb']:.3f} bits per byte"
        if "above_mutants" in found:
            line += f", fewer than {found['above_mutants']:.1%} +- {found['stderr']:.1%} of their mutants"
        print(line)
    print(f"results -> {out}")


if __name__ == "__main__":
    configurator.run(main, Settings)
