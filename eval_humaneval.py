"""Stage 6: checkpoint -> pass@k on HumanEval, MBPP, or any file of their shape.

    python eval_humaneval.py --checkpoint=out/sft                                    greedy, one sample
    python eval_humaneval.py --checkpoint=out/sft --n_samples=20 --temperature=0.2   pass@1 and pass@10
    python eval_humaneval.py --samples=samples.jsonl                                 score what another program wrote

Leaves samples.jsonl and results.jsonl (the formats of OpenAI's human-eval) and summary.json. An interrupted run goes
on where it was.
"""

import collections
import hashlib
import json
import os
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

import configurator
from configurator import UserError
from evaluation import sandbox
from evaluation.problems import code_in, read_lines, read_problems, score, stderr_key
from shards import sha256_file


@dataclass
class Settings:
    problems: str = ""  # a .jsonl or .jsonl.gz of problems; empty = HumanEval, downloaded once into data/
    checkpoint: str = ""  # the model to test: a checkpoint or a folder of them
    samples: str = ""  # or: a file of {"task_id", "completion"} to score
    out_dir: str = "out/eval"  # samples.jsonl, results.jsonl, summary.json
    chat: bool | None = None  # ask as in a chat and take the code from the reply; auto = as the checkpoint was trained
    n_samples: int = 1  # completions per problem; pass@k needs at least k
    temperature: float = 0.0  # 0 = greedy; 0.2 is usual for pass@1, 0.8 for pass@10 and pass@100
    top_p: float = 0.95  # draw from the fewest tokens that hold this share of the probability
    max_new_tokens: int = 512  # length of a completion
    batch_size: int = 64  # completions under way at a time
    seed: int = 1337  # of the draws
    device: str = "cpu"  # cpu or cuda, for generating
    limit: int = 0  # only the first so many problems; 0 = all
    similar: str = ""  # prepare_data.py's report.json: also score the problems apart that the data came close to
    min_similarity: float = 0.8  # of a training document to a problem, from which the problem counts as similar (phi-1)
    mbpp_ids: str = "11-510"  # of a file of MBPP's shape: its test split
    timeout: float = 3.0  # CPU seconds per program
    memory_mb: int = 1024  # memory per program
    num_workers: int = 0  # programs run at a time; 0 = two per core: half of the time one waits for its judge


HUMANEVAL = "https://github.com/openai/human-eval/raw/master/data/HumanEval.jsonl.gz"
HUMANEVAL_SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"


def main(s):
    if bool(s.checkpoint) == bool(s.samples):
        raise UserError("give either --checkpoint=DIR, a model to test, or --samples=FILE, completions to score")
    if s.n_samples < 1 or s.batch_size < 1 or s.temperature < 0 or s.timeout <= 0 or not 0 < s.top_p <= 1:
        raise UserError("needed: n_samples >= 1, batch_size >= 1, temperature >= 0, timeout > 0, 0 < top_p <= 1")
    if s.checkpoint and s.n_samples > 1 and s.temperature == 0:
        raise UserError("n_samples > 1 needs a temperature: at 0 all samples are the same")
    path = Path(s.problems) if s.problems else downloaded(Path("data/HumanEval.jsonl.gz"))
    problems = read_problems(path, s.mbpp_ids)
    problems = dict(list(problems.items())[: s.limit or None])
    out = Path(s.out_dir)
    out.mkdir(parents=True, exist_ok=True)
    samples = read_samples(s.samples, problems) if s.samples else generated(s, problems, path, out)
    results = judged(s, problems, samples, out)
    summary = summarize(s, problems, results)
    if s.similar:
        summary["by_similarity"] = by_similarity(s, path, results)
    configurator.write_json(out / "summary.json", {**summary, "settings": asdict(s), "made_by": configurator.made_by()})
    print_table(summary, out)


def downloaded(path):
    """HumanEval's file, fetched once from its public home and checked."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(HUMANEVAL, timeout=30) as response:
                data = response.read()
        except OSError as error:
            raise UserError(f"cannot download {HUMANEVAL}: {error}; give --problems=FILE instead") from None
        if hashlib.sha256(data).hexdigest() == HUMANEVAL_SHA256:
            path.write_bytes(data)
    if not path.exists() or sha256_file(path) != HUMANEVAL_SHA256:
        raise UserError(f"{path} is not the published HumanEval: its sha256 differs; delete it to download it again")
    return path


# -- completions


def read_samples(path, problems):
    """[(task_id, number among the problem's samples, completion)] of a sample file."""
    samples, seen = [], collections.Counter()
    for record in read_lines(path):
        task, completion = str(record.get("task_id")), record.get("completion")
        if not isinstance(completion, str):
            raise UserError(f"{path}: a sample of {task} has no completion")
        if task in problems:
            samples.append((task, seen[task], completion))
            seen[task] += 1
        else:
            seen["unknown"] += 1
    if seen["unknown"]:
        print(f"{seen['unknown']} samples are of none of the problems and are passed over")
    if not samples:
        raise UserError(f"{path} holds no samples of these problems")
    return samples


def generated(s, problems, path, out):
    """The same, from the checkpoint. samples.jsonl grows batch by batch; a run of the same recipe goes on there."""
    from evaluation.generate import generate
    from training import checkpoint

    model, tokenizer, meta = checkpoint.load_model(s.checkpoint, s.device)
    model.eval()
    chat = meta.get("chat", False) if s.chat is None else s.chat
    keys = ("n_samples", "temperature", "top_p", "max_new_tokens", "batch_size", "seed", "limit")
    recipe = {key: getattr(s, key) for key in keys} | {
        "chat": chat,
        "problems": sha256_file(path),
        "model": meta["sha256"],
    }
    done = continued(out / "samples.jsonl", recipe)

    def prompt(problem):
        if chat:
            request = [{"role": "user", "content": problem.request}]
            return [tokenizer.eot, *tokenizer.render(request, generation_prompt=True)[0]]
        return [tokenizer.eot, *tokenizer.encode(problem.prompt.strip())]

    prompts = {task: prompt(problem) for task, problem in problems.items()}
    wanted = [(task, i) for task in sorted(problems, key=lambda task: len(prompts[task])) for i in range(s.n_samples)]
    places = {key: place for place, key in enumerate((task, i) for task in problems for i in range(s.n_samples))}
    with (
        open(out / "samples.jsonl", "a", encoding="utf-8") as f,
        tqdm(total=len(wanted), desc="writing", unit="sample") as bar,
    ):
        for start in range(0, len(wanted), s.batch_size):
            batch = [key for key in wanted[start : start + s.batch_size] if key not in done]
            fitting = [key for key in batch if len(prompts[key[0]]) < model.config.block_size]
            completions = generate(
                model,
                tokenizer,
                [prompts[task] for task, _ in fitting],
                s.max_new_tokens,
                s.temperature,
                top_p=s.top_p,
                stop=() if chat else next(iter(problems.values())).stop,
                seed=[s.seed + places[key] for key in fitting],
            )
            texts = {key: code_in(c.text) if chat else c.text for key, c in zip(fitting, completions)}
            for task, i in batch:  # a prompt that does not fit the context is a failure
                done[task, i] = texts.get((task, i), "")
                line = {"task_id": task, "completion_id": i, "completion": done[task, i]}
                f.write(json.dumps(line, ensure_ascii=False) + "\n")
            f.flush()
            bar.update(min(s.batch_size, len(wanted) - start))
    return [(task, i, done[task, i]) for task, i in places]


def continued(path, recipe):
    """{(task_id, number): completion} of an interrupted run of the same recipe; otherwise the file starts anew."""
    note = path.with_suffix(".recipe.json")
    if not (path.exists() and note.exists() and json.loads(note.read_text()) == recipe):
        path.unlink(missing_ok=True)
        configurator.write_json(note, recipe)
        return {}
    records = whole_lines(path)
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return {(record["task_id"], record["completion_id"]): record["completion"] for record in records}


# -- verdicts


def judged(s, problems, samples, out):
    """One record per sample, in their order. results.jsonl grows as programs end; what it already holds is not run again."""
    limits = sandbox.Limits(timeout=s.timeout, memory_mb=s.memory_mb)
    path, jobs, results = out / "results.jsonl", {}, {}
    before = {record["key"]: record for record in whole_lines(path) if "key" in record}
    for task, i, completion in samples:
        program, test = problems[task].program(completion), problems[task].test
        key = hashlib.sha256(json.dumps([program, test, asdict(limits)]).encode()).hexdigest()[:16]
        jobs[task, i] = key, program, test
    waiting = {key: (key, program, test) for key, program, test in jobs.values() if key not in before}
    with open(path, "a", encoding="utf-8") as f:
        verdicts = sandbox.run_all(waiting.values(), s.num_workers or 2 * os.cpu_count(), limits)
        for key, verdict in tqdm(verdicts, total=len(waiting), desc="running", unit="program"):
            before[key] = {"key": key, **asdict(verdict)}
            f.write(json.dumps(before[key]) + "\n")
            f.flush()
    for task, i, completion in samples:
        results[task, i] = {"task_id": task, "completion_id": i, "completion": completion, **before[jobs[task, i][0]]}
    with open(path.with_suffix(".tmp"), "w", encoding="utf-8") as f:
        f.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in results.values())
    os.replace(path.with_suffix(".tmp"), path)
    return results


def whole_lines(path):
    """The records of a file that may have been cut off while it was written."""
    lines = path.read_text(encoding="utf-8").splitlines(True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def summarize(s, problems, results):
    counts = collections.defaultdict(lambda: [0, 0])
    for (task, _), record in results.items():
        counts[task][0] += 1
        counts[task][1] += record["passed"]
    if len(counts) < len(problems):
        print(f"{len(problems) - len(counts)} of {len(problems)} problems have no samples and are left out")
    families = collections.defaultdict(list)
    for task, count in counts.items():
        families[problems[task].family].append(count)
    missing = sandbox.PROTECTIONS - set().union(*(record["active"] for record in results.values()))
    if missing:
        print(f"warning: no program was confined by {' and '.join(sorted(missing))}: this system may not offer it")
    return {
        **score(list(counts.values())),
        "n_problems": len(counts),
        "n_samples": len(results),
        "failures": collections.Counter(
            failure(record["result"]) for record in results.values() if not record["passed"]
        ),
        "families": {
            name: {**score(group), "n_problems": len(group)} for name, group in sorted(families.items()) if name
        },
        "sandbox": sorted(sandbox.PROTECTIONS - missing),
    }


def by_similarity(s, path, results):
    """The score on the problems that the training data came close to, and on the others (phi-1, section 5)."""
    try:
        found = json.loads(Path(s.similar).read_text(encoding="utf-8"))["benchmarks"]["similar"]
        close = {name for name, entry in found.items() if entry["similarity"] >= s.min_similarity}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{s.similar} is no report.json of prepare_data.py --decontaminate") from None
    groups = {"similar": collections.defaultdict(lambda: [0, 0]), "other": collections.defaultdict(lambda: [0, 0])}
    for (task, _), record in results.items():
        name = str(task) if "/" in str(task) else f"{path.name.split('.')[0]}/{task}"
        count = groups["similar" if name in close else "other"][task]
        count[0] += 1
        count[1] += record["passed"]
    return {name: {**score(list(g.values())), "n_problems": len(g)} for name, g in groups.items() if g}


def failure(result):
    """The kind of failure: "failed: NameError: name ..." is a NameError."""
    return result.removeprefix("failed: ").split(":")[0]


def print_table(summary, out):
    parts = {**summary["families"], **summary.get("by_similarity", {})}
    rows = [*parts.items(), ("all", summary)]
    ks = [int(key[5:]) for key in summary if key.startswith("pass@")]
    print(f"\n{'':<16}{'problems':>10}" + "".join(f"{f'pass@{k}':>18}" for k in ks))
    for name, group in rows:
        cells = (f"{group[f'pass@{k}']:.1%} +- {group[stderr_key(k)]:.1%}" for k in ks)
        print(f"{name:<16}{group['n_problems']:>10}" + "".join(f"{cell:>18}" for cell in cells))
    failures = ", ".join(f"{n} {kind}" for kind, n in summary["failures"].most_common(5))
    print(f"failures: {failures or 'none'}\nresults -> {out}")


if __name__ == "__main__":
    configurator.run(main, Settings)
