"""WALKTHROUGH.md: one exercise, followed from the operations it is made of to the verdict on the model's answer.

    python -m experiments.walkthrough --recipe=out/demo

The sentences stand in experiments/walkthrough.md, with a $name wherever something of a run belongs. This file finds
what these names stand for in the files of a recipe that has run; walkthrough_blocks.py sets tokens and tables,
walkthrough_pictures.py draws.
"""

import needs  # noqa: F401

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from string import Template

import torch

import configurator
from attention import document_mask
from configurator import ROOT, UserError
from evaluation import sandbox
from evaluation.formats import problem_of
from evaluation.generate import generate, prompt_ids
from evaluation.problems import read_lines
from evaluation.replies import code_in
from exercises import making, tables, views, wording
from experiments import walkthrough_pictures as pictures
from experiments.report import first_answers, score_table
from experiments.walkthrough_blocks import border, code, columns, contents, entry, piece, span, wrapped
from experiments.walkthrough_pictures import TRAINING, memory_of, micro_batch, schedules_of
from loss import IGNORE
from pages import to_markdown
from ranges import Place
from recipe import read_progress
from training import checkpoint
from training.dataloader import Mixture, make_batch, parse_mixture
from training.machine import Machine
from training.optim import orthogonalized

TEMPLATE = ROOT / "experiments" / "walkthrough.md"
PICTURES = "docs/walkthrough"  # beside the page
RUNG = "compositions"
MATRIX = "layers.0.mlp.up_proj.weight"  # one of the hidden matrices, to show what Muon does


@dataclass
class Settings:
    """What to read, and where to write."""

    # -- recipe and page
    recipe: str = "out/demo"  # the out_dir of a recipe that has run
    out: Place = "WALKTHROUGH.md"  # the page; its pictures are put into docs/walkthrough/ beside it


@dataclass
class Run:
    """What a recipe has left."""

    summary: dict
    steps: dict  # {step: its settings}: "pretrain", "eval_humaneval.tuned"
    models: dict  # {training stage: (model, tokenizer, meta)}, in fp32 on the CPU
    names: list  # what the three models are called: base, annealed, tuned
    answers: dict  # {model's name: {task_id: record of results.jsonl}}
    records: list  # the problems of the rung
    tokenizer: object


def main(settings):
    """Write the page and its pictures."""
    run = read_run(Path(settings.recipe))
    facts = {"recipe": settings.recipe, **choice(run)}
    record = facts.pop("record")
    problem = problem_of(record)
    ids = [run.tokenizer.eot, *run.tokenizer.encode(text_of(record))]
    row = first_row(run)
    facts |= made_of(run, record) | tokens_of(run, ids) | row_facts(run, row) | training_facts(run)
    facts |= loss_facts(run, ids, len(record["prompt"].encode())) | answer_facts(run, problem) | last_facts(run, record)
    page = wrapped(Template(TEMPLATE.read_text(encoding="utf-8")).substitute(facts))
    folder = Path(settings.out).parent / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    pictures.pipeline(folder / "pipeline.png", pictures.stages(run))
    pictures.packing(folder / "packing.png", *row)
    pictures.schedules(folder / "schedules.png", schedules_of(run))
    pictures.ladder(folder / "ladder.png", run.summary["ladder"])
    bars = {"as it was trained": memory_of(run), "--recompute": memory_of(run, recompute=True)}
    pictures.memory(folder / "memory.png", bars)
    configurator.write_text(settings.out, page)
    print(f"page -> {settings.out}, pictures -> {folder}")


def read_run(folder):
    """The Run of a recipe's folder. Raises UserError where it does not hold one with all stages."""
    machine = Machine(0, 1, torch.device("cpu"), torch.float32)
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        steps = {entry["step"]: entry["settings"] for entry in read_progress(folder / "progress.json")}
        answers = {name: first_answers(score["results"]) for name, score in summary["exercises"].items()}
        problems = read_lines(ROOT / steps["exercises"]["out_dir"] / "problems.jsonl")
        records = [record for record in problems if record["family"] == RUNG]
        models = {stage: checkpoint.load_model(ROOT / steps[stage]["out_dir"], machine) for stage in TRAINING}
        run = Run(summary, steps, models, list(answers), answers, records, models["sft"][1])
        if len(answers) != len(TRAINING) or not records or RUNG not in summary["ladder"]:
            raise UserError(f"its models are {list(answers)}, its problems of {RUNG} {len(records)}")
        if steps["pretrain"]["optimizer"] != "muon":
            raise UserError("it was not trained with Muon, which the page explains")
        return run
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "python recipe.py configs/demo.toml makes such a folder"
        raise UserError(f"{folder} does not hold the results of a whole recipe ({error!r}): {hint}") from None


# -- what the page says, section by section: {name in the template: text}


def choice(run):
    """The exercise, by a fixed rule: of those that tuning has made the model solve, the one with the fewest tokens."""
    first, last = run.names[0], run.names[-1]
    learnt = {record["task_id"] for record in run.records} & solved(run, last) - solved(run, first)
    rule = f"of the {len(run.records)} problems `{RUNG}`, "
    rule += f"{len(learnt) or 'none'} passed their tests with the {last} model and not with the {first} model; "
    rule += f"this is the one with the fewest tokens of {'these' if learnt else 'all'}"
    candidates = [record for record in run.records if record["task_id"] in learnt] or run.records
    record = min(candidates, key=lambda record: len(run.tokenizer.encode(text_of(record))))
    tomls = [word for word in run.summary["made_by"]["command"].split() if word.endswith(".toml")]
    number = record["task_id"].rpartition("/")[2]
    return {"record": record, "number": number, "rung": RUNG, "rule": rule, "tomls": " ".join(tomls)}


def solved(run, name):
    """The task_ids of the problems that a model has solved."""
    return {task for task, answer in run.answers[name].items() if answer["passed"]}


def text_of(record):
    """The text of a problem with its solution."""
    return record["prompt"] + record["canonical_solution"]


def made_again(record, seed):
    """The Exercise that a record was made from. Raises UserError where the tables have changed since."""
    rung, number = record["task_id"].split("/")
    exercise, again = views.made(rung, seed, number)
    if again != {**record, "task_id": again["task_id"]}:
        raise UserError(f"exercises/ has changed since {record['task_id']} was made: run the recipe again")
    return exercise


def made_of(run, record):
    """Sections 1 and 2: operations, sentence, text."""
    seed = run.steps["exercises"]["seed"]
    exercise = made_again(record, seed)
    text = text_of(record)
    operations = []
    for path in sorted(tables.FOLDER.rglob("*.txt")):
        operations += [(path, operation) for operation in tables.read_table(path)]
    entries = [entry(part, exercise.sentence, operations) for part in dict.fromkeys(exercise.parts)]
    return {
        "n_operations": f"{len(operations):,}",
        "composition": record["composition"],
        "entries": "\n\n".join(filter(None, entries)),
        "seed": seed,
        "sentence": code(exercise.sentence, "text"),
        "n_bodies": len(exercise.bodies),
        "n_tests": len(exercise.examples) - 1,
        "held_out": f"{wording.HELD_OUT:.0%}",
        "text": code(text, "python"),
        "n_bytes": len(text.encode()),
    }


def tokens_of(run, ids):
    """Section 3: ids under their tokens."""
    tokenizer = run.tokenizer
    n_bytes = int(tokenizer.byte_lengths()[ids].sum())
    return {
        "vocab_size": f"{tokenizer.vocab_size:,}",
        "n_ranks": f"{tokenizer.vocab_size - len(tokenizer.special):,}",
        "n_special": len(tokenizer.special),
        "n_tokens": len(ids) - 1,
        "bytes_per_token": f"{n_bytes / (len(ids) - 1):.2f}",
        "id_columns": columns([piece(tokenizer, token) for token in ids], {"id": list(map(str, ids))}),
    }


def first_row(run):
    """(Batch, number of a row in it): the first step of pretraining, and its first row of several documents."""
    s = run.steps["pretrain"]
    mixture = [(str(ROOT / folder), share) for folder, share in parse_mixture(s["data"])]
    batch_size = s["batch_tokens"] // s["block_size"]
    data = Mixture(mixture, s["block_size"], batch_size, s["seed"], run.tokenizer.eot, s["best_fit"])
    batch = make_batch(*data.arrays(0), run.tokenizer.eot, "ids", torch.device("cpu"))
    n_documents = [len(own[y != IGNORE].unique()) for own, y in zip(batch.documents, batch.targets)]
    return batch, next((n for n, number in enumerate(n_documents) if number > 1), 0)


def row_facts(run, row):
    """Section 4: the documents of a row, its border, its mask."""
    batch, number = row
    ids, targets, documents = (x[number] for x in (batch.ids, batch.targets, batch.documents))
    mask = document_mask(batch.documents[number : number + 1])[0, 0]
    n = len(ids)
    return {
        "n_rows": len(batch.ids),
        "block_size": n,
        "row_number": number + 1,
        "n_documents": len(documents[targets != IGNORE].unique()),
        "documents": contents(run.tokenizer, ids, targets, documents),
        "n_counted": int((targets != IGNORE).sum()),
        "border": border(run.tokenizer, ids, targets, documents, mask),
        "causal_share": f"{(n + 1) / (2 * n):.1%}",
        "mask_share": f"{mask.float().mean().item():.1%}",
    }


def training_facts(run):
    """Section 5: the model, the learning rates, what Muon does, memory."""
    model = run.models["pretrain"][0]
    config, parts, schedule = model.config, memory_of(run), dict(schedules_of(run))
    folder, _ = checkpoint.newest(ROOT / run.steps["pretrain"]["out_dir"])
    gradient = checkpoint.load_tensors(folder / "optimizer-0.pt")["muon"][MATRIX]["momentum_buffer"]
    before, after = (torch.linalg.svdvals(x) for x in (gradient, orthogonalized(gradient[None])[0]))
    each = config.n_head // config.n_kv_head
    gqa = f"{each} of them do" if each > 1 else "every query head has its own, so that it is not used"
    return {
        "n_params": f"{model.n_params():,}",
        **{name: getattr(config, name) for name in ("n_layer", "n_embd", "n_head", "n_kv_head")},
        "gqa": gqa,
        "warmup_steps": schedule["pretrain"].warmup_steps,
        "peak_lr": f"{schedule['pretrain'].lr:g}",
        "decay_shape": schedule["anneal"].decay_shape,
        "sft_lr": f"{schedule['sft'].lr:g}",
        "matrix": MATRIX,
        "before_ratio": f"{before[0] / before.median():.1f}",
        "after_low": f"{after[-1]:.2f}",
        "after_high": f"{after[0]:.2f}",
        "micro_batch": micro_batch(run),
        "memory_total": f"{sum(parts.values()) / 1e6:.1f}",
        "memory_list": ", ".join(f"{part} {size / 1e6:.1f}" for part, size in parts.items()),
    }


@torch.no_grad()
def losses_of(model, ids):
    """The loss in nats of each token but the first: a float for each of ids[1:]."""
    return model(torch.tensor([ids[:-1]]), torch.tensor([ids[1:]]), reduction="none").tolist()


def in_hundredths(values):
    """Numbers as texts of two decimals."""
    return [f"{value:.2f}" for value in values]


def loss_facts(run, ids, n_prompt):
    """Section 6: the loss of each token of the text in each model. n_prompt: bytes of the text before the body."""
    losses = {name: losses_of(run.models[stage][0], ids) for name, stage in zip(run.names, TRAINING)}
    before, after = losses[run.names[0]], losses[run.names[-1]]
    sizes = run.tokenizer.byte_lengths()[ids[1:]]
    is_body = sizes.cumsum() > n_prompt  # a token across the border belongs to the body
    rows = []
    for name, values in losses.items():
        docstring = [value for value, inside in zip(values, is_body) if not inside]
        body = [value for value, inside in zip(values, is_body) if inside]
        bits_per_byte = sum(values) / (math.log(2) * sizes.sum())
        rows.append([name, f"{mean(docstring):.3f}", f"{mean(body):.3f}", f"{bits_per_byte:.3f}"])
    pieces = [piece(run.tokenizer, token) for token in ids[1:]]
    fallen = sorted(range(len(pieces)), key=lambda i: after[i] - before[i])[:3]
    costly = sorted(range(len(pieces)), key=lambda i: -after[i])[:3]
    drops = ", ".join(f"{span(pieces[i])} ({before[i]:.2f} to {after[i]:.2f})" for i in fallen)
    rises = ", ".join(f"{span(pieces[i])} ({after[i]:.2f})" for i in costly)
    shown = {run.names[0]: in_hundredths(before), run.names[-1]: in_hundredths(after)}
    return {
        "loss_columns": columns(pieces, shown),
        "drops": f"The loss has fallen most for {drops}.",
        "rises": f"What costs the {run.names[-1]} model most is {rises}: could anybody have known these?",
        "loss_table": to_markdown("table", (["model", "docstring", "body", "bits per byte"], rows)).rstrip(),
    }


@torch.no_grad()
def answer_facts(run, problem):
    """Section 7, and the verdict: the answer of the tuned model, greedily."""
    (model, tokenizer, _), size = run.models["sft"], run.steps["sft"]["neftune"]
    n_new = run.steps[f"eval_humaneval.{run.names[-1]}"]["max_new_tokens"]
    prompt = prompt_ids(tokenizer, problem.asked(chat=True), chat=True)
    answer = generate(model, tokenizer, [prompt], n_new)[0]
    written = answer.ids + [tokenizer.token_id("<|im_end|>")] * (answer.reason == "stop")
    logits = model(torch.tensor([prompt + written]))[0, len(prompt) - 1 : -1, : tokenizer.vocab_size]
    likeliest = logits.softmax(-1).topk(3)
    lines, first_shares = [], likeliest.values[:, 0].tolist()
    for shares, tokens in zip(likeliest.values.tolist(), likeliest.indices.tolist()):
        cells = [f"{piece(tokenizer, token):18}{share:7.1%}" for share, token in zip(shares, tokens)]
        lines.append("    ".join(cells))
    least = first_shares.index(min(first_shares))
    one, two = (piece(tokenizer, token) for token in likeliest.indices[least, :2].tolist())
    neftune = "*NEFTune*, noise on the embeddings that keeps tuning from learning single wordings by heart, "
    neftune += f"was on (`--neftune={size:g}`)." if size else "is there as `--neftune` and was off."
    program = code_in(answer.text)
    return {
        "neftune": neftune,
        "request": code(tokenizer.decode(prompt).replace("\n", "↵\n"), "text"),
        "max_new_tokens": n_new,
        "answer_lines": code("\n".join(lines), "text"),
        "least_certain": f"It was least certain of {span(one)}, {min(first_shares):.1%}; the next was {span(two)}.",
        "program": code(program.strip("\n") or "(nothing)", "python"),
        "verdict": sandbox.run(problem.program(program), problem.test).result.rstrip(": "),
    }


def last_facts(run, record):
    """Sections 8 and 9, and what the reader's own runs are to be compared with."""
    base, steps, trained = run.answers[run.names[0]][record["task_id"]], run.steps, run.summary["stages"]
    where = f" on `{run.summary['bpb_of']}`" if run.summary["bpb_of"] else ""
    others = [f"`{name}`" for name in run.summary["ladder"] if name not in making.LADDER]
    return {
        "others": f"What people wrote is in {', '.join(others)}." if others else "",
        "test": code(record["test"], "python"),
        "base_verdict": base["result"].rstrip(": "),
        "base_program": code(base["completion"].strip("\n") or "(nothing)", "python"),
        "ladder_table": to_markdown("table", score_table(run.summary["ladder"], run.names)).rstrip(),
        "pretrain_dir": steps["pretrain"]["out_dir"],
        "anneal_dir": steps["anneal"]["out_dir"],
        "tokenizer": steps["tokenizer_train"]["out"],
        "n_chats": steps["exercises"]["chats"],
        "trunk_bpb": f"{trained['pretrain']['val_bpb']:.3f}{where}",
        "anneal_bpb": f"{trained['anneal']['val_bpb']:.3f} bits per byte{where}",
    }


if __name__ == "__main__":
    configurator.run(main, Settings)
