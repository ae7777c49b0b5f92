"""The five pictures of experiments.walkthrough, and what of a Run is drawn in them."""

import numpy as np
import torch

import pretrain
from corpus.records import optional
from loss import IGNORE
from model import Transformer
from training.dataloader import batch_shape
from training.machine import Machine
from training.memory import memory_parts
from training.optim import Schedule, lr_at
from training.plan import Plan

STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": False}
TRAINING = ("pretrain", "anneal", "sft")  # the stages of the demo
NEXT = {"arrowstyle": "-|>", "color": "0.4"}  # arrows
PALETTE = "tab20"  # colours of documents that lie side by side


def figure(width, height, **how):
    """(figure, axes) of so many inches."""
    pyplot = optional("matplotlib.pyplot", "plots")
    pyplot.switch_backend("Agg")
    pyplot.rcParams.update(STYLE)
    return pyplot.subplots(figsize=(width, height), dpi=100, constrained_layout=True, **how)


def save(picture, path):
    """Write a picture in 64 colours, which is enough for these and takes a third of the space; and forget it."""
    picture.canvas.draw()
    image = optional("PIL.Image", "plots").fromarray(np.asarray(picture.canvas.buffer_rgba())).convert("RGB")
    image.quantize(64).save(path, optimize=True)
    optional("matplotlib.pyplot", "plots").close(picture)


def stages(run):
    """The boxes of pipeline() for a Run: data, trainings, evaluations."""
    made, trained = run.steps["exercises"], run.summary["stages"]
    folders = [s["out_dir"] for step, s in run.steps.items() if step.startswith("prepare_data")]
    counts = f"{made['documents']:,} pages, {made['chats']:,} chats"
    first = [("exercises", [f"{made['out_dir']}/", counts])]
    first += [("tokenizer_train.py", [run.steps["tokenizer_train"]["out"], f"{run.tokenizer.vocab_size:,} tokens"])]
    first += [
        ("prepare_data.py", [*[f"{folder}/" for folder in folders], f"{trained['prepare_data']['tokens']:,} tokens"])
    ]
    second, third = [], []
    for stage, name in zip(TRAINING, run.names):
        bpb = f", {trained[stage]['val_bpb']:.3f} bits per byte" if trained[stage]["val_bpb"] else ""
        second.append((f"{stage}.py", [f"{run.steps[stage]['out_dir']}/", f"{trained[stage]['tokens']:,} tokens{bpb}"]))
        score = run.summary["ladder"]["compositions"][name]["pass@1"]
        third.append(("eval_humaneval.py", [f"{name} model", f"pass@1 on compositions: {score:.1%}"]))
    return first, second, third


def pipeline(path, rows):
    """Stages as boxes with arrows. rows: data, trainings, evaluations, each three boxes (title, lines)."""
    picture, axis = figure(8.5, 4.6)
    box = optional("matplotlib.pyplot", "plots").Rectangle
    width, height, top = 0.86, 0.62, 0.23  # of a box; from its middle to its title
    for y, row in enumerate(rows):
        for x, (title, lines) in enumerate(row):
            corner = x - width / 2, -y - height / 2
            axis.add_patch(box(corner, width, height, color=f"C{y}", alpha=0.15))
            axis.text(x, -y + top, title, ha="center", va="center", weight="bold")
            axis.text(x, -y - 0.04, "\n".join(lines), ha="center", va="center", fontsize=8)
    for x in range(3):
        if x < 2:  # in the rows of data and of trainings each stage reads what the one before has left
            for y in (0, 1):
                axis.annotate("", (x + 1 - width / 2, -y), (x + width / 2, -y), arrowprops=NEXT)
        for y in (0, 1):  # all trainings read shards; each model is tested
            start = 2 + 0.1 * (x - 2) if y == 0 else x
            axis.annotate("", (x, -y - 1 + height / 2), (start, -y - height / 2), arrowprops=NEXT)
    axis.text(1.05, -0.38, "shards", ha="right", color="0.4")
    axis.text(2.03, -1.5, "weights", color="0.4", va="center")
    axis.set(xlim=(-0.45, 2.45), ylim=(-2.35, 0.35))
    axis.axis("off")
    save(picture, path)


def packing(path, batch, number):
    """The documents of all rows of a Batch, and the mask of one of its rows."""
    picture, (left, right) = figure(9, 4, ncols=2, width_ratios=[1.3, 1])
    n = batch.ids.shape[1]
    shown = (batch.documents % 20).float().masked_fill(batch.targets == IGNORE, float("nan"))
    how = {"cmap": PALETTE, "vmin": 0, "vmax": 19, "interpolation": "nearest"}
    left.imshow(shown.numpy(), aspect="auto", extent=(0, n, len(batch.ids) + 0.5, 0.5), **how)
    left.hlines([line + 0.5 for line in range(1, len(batch.ids))], 0, n, color="white", linewidth=2)
    left.annotate("", (n, number + 1), (1.07 * n, number + 1), arrowprops=NEXT, annotation_clip=False)
    rows = range(1, len(batch.ids) + 1)
    left.set(title="a batch: one colour per document", xlabel="place in the row", ylabel="row", yticks=rows)
    own = batch.documents[number]
    visible = (own[:, None] == own[None, :]).tril()
    mask = (own[:, None] % 20).float().expand(n, n).masked_fill(~visible, float("nan"))
    right.imshow(mask.numpy(), **how)
    right.set(title=f"row {number + 1}: what may look at what", xlabel="key", ylabel="query")
    save(picture, path)


def schedules_of(run):
    """[(stage, its Schedule)] of the three stages of training."""
    return [(stage, Schedule(**meta["schedule"])) for stage, (_, _, meta) in run.models.items()]


def schedules(path, stages):
    """The learning rate of every step, stage behind stage. stages: [(name, Schedule)]."""
    picture, axis = figure(9, 2.6)
    before = 0
    for number, (name, schedule) in enumerate(stages):
        steps = range(before, before + schedule.max_steps)
        rates = [lr_at(step, schedule) for step in range(schedule.max_steps)]
        axis.fill_between(steps, rates, alpha=0.25, step="post")
        axis.plot(steps, rates, drawstyle="steps-post", label=name)
        before += schedule.max_steps
        if number == 0:
            axis.axvline(before, color="0.4", linestyle=":")
            axis.annotate("the trunk ends ", (before, 0.5 * schedule.lr), ha="right", color="0.4")
    axis.set(xlabel="optimizer steps", ylabel="learning rate", ylim=(0, None))
    axis.legend(loc="upper right")
    save(picture, path)


def ladder(path, scores):
    """pass@1 with its standard error. scores: {set of problems: {model: {"pass@1", "stderr"}}}."""
    picture, axis = figure(9, 0.8 + 0.42 * len(scores))
    models = list(next(iter(scores.values())))
    for number, model in enumerate(models):
        own = {place: score[model] for place, score in enumerate(scores.values()) if model in score}
        places = [place + 0.25 * (number - 1) for place in own]
        rates = [100 * score["pass@1"] for score in own.values()]
        errors = [100 * score["stderr"] for score in own.values()]
        axis.barh(places, rates, 0.23, xerr=errors, label=model, error_kw={"elinewidth": 1, "ecolor": "0.3"})
    axis.set(xlabel="pass@1, %", xlim=(0, 100), yticks=range(len(scores)), yticklabels=list(scores))
    axis.invert_yaxis()
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(models), frameon=False)
    save(picture, path)


def micro_batch(run):
    """The rows of a forward pass in pretraining on one CPU."""
    return batch_shape(pretrain.Settings(**run.steps["pretrain"]), run.models["pretrain"][0].config.block_size, 1)[1]


def memory_of(run, recompute=False):
    """memory_parts() of pretraining on one CPU."""
    with torch.device("meta"):  # weights have shapes and take no memory
        model = Transformer(run.models["pretrain"][0].config)
    machine = Machine(0, 1, torch.device("cpu"), torch.float32)
    plan = Plan(micro_batch(run), "ids", compiles=True, recompute=recompute)
    return memory_parts(model, pretrain.Settings(**run.steps["pretrain"]), machine, plan)


def memory(path, bars):
    """Megabytes of each part, stacked. bars: {how it is trained: {part: bytes}}."""
    picture, axis = figure(9, 0.9 + 0.5 * len(bars))
    for number, (name, parts) in enumerate(bars.items()):
        left = 0.0
        for color, (part, size) in enumerate(parts.items()):
            axis.barh(name, size / 1e6, left=left, color=f"C{color}", label=part if number == 0 else None)
            left += size / 1e6
    axis.set(xlabel="MB")
    axis.invert_yaxis()
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, frameon=False)
    save(picture, path)
