"""The arms of experiments.anneal_lab: the commands that make each model and test it, and what came of them."""

import json
from dataclasses import dataclass

import configurator
from configurator import UserError
from evaluation.problems import read_lines
from experiments.common import run_stage
from shards import sha256_file
from training import checkpoint
from training.dataloader import parse_mixture
from training.optim import DECAYS, Schedule, lr_at

SHAPES = ("no decay", *DECAYS)
BASELINE = "linear"  # what every other shape is compared with
# What a mixture adds to that of the trunk.
ADDED = {"pretraining": (), "documents": ("documents",), "chats": ("chats",), "both": ("documents", "chats")}
N_SAVED = 6  # checkpoints of an arm without decay, equally spaced, of which averages are made
EMA = 0.7  # weight of a checkpoint in such an average relative to the next one


@dataclass(frozen=True)
class Arm:
    """A model: how it is made, and what the report calls it."""

    # "decay" and "averages": of equal tokens; "equal sum": of equal sums of rates; "tuned": what follows an anneal
    group: str
    shape: str
    mixture: str
    seed: int
    tokens: int  # of the arm's own training, or of what was trained for it
    rates: float  # their sum over the steps, in units of the trunk's rate
    script: str
    arguments: tuple[str, ...]
    chat: bool = False  # also asked in a chat, although it was not tuned for it

    @property
    def name(self):
        """The arm's folder."""
        parts = [self.group, self.shape, self.mixture, str(self.seed)]
        return "_".join(parts).replace(" ", "-").replace(",", "")


# -- what there is to make


def mixture(trunk_data, added, share):
    """The text of a mixture: the trunk's, of which a share gives way to the folders `added`, in equal parts."""
    weights = {}
    for folder, weight in parse_mixture(trunk_data):
        weights[folder] = weight * (1 - share if added else 1)
    for folder in added:
        weights[folder] = weights.get(folder, 0) + share / len(added)
    return ",".join(f"{folder}:{weight:.6g}" for folder, weight in weights.items())


def schedule(shape, steps, floor):
    """The Schedule of an anneal at rate 1. No decay is a decay to a floor of 1."""
    if shape == "no decay":
        shape, floor = BASELINE, 1.0
    return Schedule(1.0, steps, 0, steps, shape, floor)


def sum_of_rates(shape, steps, floor):
    """The sum of the rates of all steps, in units of the highest."""
    return sum(lr_at(step, schedule(shape, steps, floor)) for step in range(steps))


def steps_of_equal_sum(shape, steps, floor):
    """How many steps bring a shape's sum of rates to that of so many steps of the baseline."""
    return round(steps * sum_of_rates(BASELINE, steps, floor) / sum_of_rates(shape, steps, floor))


def orders(n, seed):
    """The seeds of n orders of the data, none of which is the trunk's: with that one an anneal would read on where the
    trunk stopped, and with the others it reads its data in a new order."""
    return [other for other in range(n + 1) if other != seed][:n]


def anneals(settings, lab):
    """The Arms that go on from the trunk, and those of equal sums of rates if settings.equal_sums."""
    arms = []
    for kind in settings.mixtures:
        for seed in orders(settings.seeds, lab.seed):
            for shape in settings.shapes:
                arms.append(anneal(settings, lab, "decay", shape, kind, seed, lab.steps))
            for shape in settings.shapes if settings.equal_sums and kind == settings.mixtures[0] else ():
                if (steps := steps_of_equal_sum(shape, lab.steps, settings.floor)) != lab.steps:
                    arms.append(anneal(settings, lab, "equal sum", shape, kind, seed, steps))
    return arms


def anneal(settings, lab, group, shape, kind, seed, steps):
    """The Arm of one anneal."""
    data = mixture(lab.trunk_data, [getattr(settings, name) for name in ADDED[kind]], settings.share)
    plan = schedule(shape, steps, settings.floor)
    arguments = [f"--init={lab.trunk}", f"--data={data}", f"--best_fit={lab.best_fit}", f"--seed={seed}"]
    arguments += [f"--max_steps={steps}", f"--decay_shape={plan.decay_shape}"]
    arguments += [f"--min_lr_fraction={plan.min_lr_fraction}", f"--eval_every={max(1, steps // 3)}"]
    arguments += [f"--problems={lab.problems}"]
    if settings.dynamics_every:  # the noise of the gradient shows in the difference between micro-batches
        arguments += [f"--dynamics_every={settings.dynamics_every}", f"--micro_batch={max(1, lab.rows // 4)}"]
    if group == "decay" and shape == "no decay":
        arguments += [f"--save_every={max(1, steps // N_SAVED)}", f"--keep={N_SAVED}"]
    else:
        arguments += ["--save_every=0"]
    rates, chat = sum_of_rates(shape, steps, settings.floor), group == "decay" and shape == BASELINE
    tokens = steps * lab.batch_tokens
    return Arm(group, shape, kind, seed, tokens, rates, "anneal.py", (*arguments, *lab.common), chat)


def averages(settings, lab, arms):
    """The Arms that no training is for: of the trunk's last checkpoints, and of those of the arms without decay."""
    found = [average(settings, lab, "trunk", "", 0, 0, 0.0, lab.trunk, ["--last=1"])]  # validated as all arms are
    n_trunk = min(N_SAVED, len(checkpoint.whole_until(lab.trunk)))
    sources = [("trunk", "", 0, 0, 0.0, lab.trunk, n_trunk)] if n_trunk > 1 else []
    for arm in arms:
        if arm.group == "decay" and arm.shape == "no decay":
            about = arm.shape, arm.mixture, arm.seed, arm.tokens, arm.rates
            sources.append((*about, lab.folder(arm), min(N_SAVED, lab.steps)))
    for shape, *about, n_saved in sources:
        last = f"--last={n_saved}"
        found.append(average(settings, lab, f"{shape}, average", *about, [last]))
        found.append(average(settings, lab, f"{shape}, EMA", *about, [last, f"--ema={EMA}"]))
    return found


def average(settings, lab, shape, kind, seed, tokens, rates, checkpoints, how):
    """The Arm of one average."""
    common = [f"--checkpoints={checkpoints}", f"--val={lab.val}", f"--eval_tokens={settings.eval_tokens}"]
    return Arm("averages", shape, kind, seed, tokens, rates, "experiments.averages", (*common, *how))


def tunings(settings, lab, arms):
    """The Arms that are tuned on the chats: the baseline's anneal with each mixture, and that with the trunk's own once
    more for each mixture with chats, for as many steps longer as that anneal holds of chats."""
    found = []
    for arm in arms:
        if not settings.sft_steps or arm.group != "decay" or arm.shape != BASELINE:
            continue
        for name, steps in tuning_lengths(settings, lab, arm.mixture).items():
            arguments = [f"--init={lab.folder(arm)}", f"--data={settings.chats}", f"--max_steps={steps}"]
            arguments += [f"--lr={lab.lr}", f"--seed={arm.seed}", "--eval_every=0", "--save_every=0", *lab.common]
            tokens = steps * lab.batch_tokens
            found.append(Arm("tuned", name, arm.mixture, arm.seed, tokens, 0.0, "sft.py", tuple(arguments)))
    return found


def tuning_lengths(settings, lab, mixture):
    """{what the report calls it: steps} of the tunings that follow an anneal with this mixture."""
    lengths = {"tuned": settings.sft_steps}
    for kind in settings.mixtures:
        if mixture == "pretraining" and "chats" in ADDED[kind]:
            lengths[longer(kind)] = settings.sft_steps + round(settings.share * lab.steps / len(ADDED[kind]))
    return lengths


def longer(kind):
    """What the report calls tuning that is longer by the chats of an anneal with this mixture."""
    return f"tuned longer, as {kind}"


# -- making it


def run(lab, arm):
    """Make and test one arm; its result, which stays in result.json beside its checkpoint."""
    folder = lab.folder(arm)
    # What lies at these paths may be another trunk, or other problems, than the last time.
    made_from = [sha256_file(lab.trunk / "sha256.json"), sha256_file(lab.problems)]
    command, path = [arm.script, *arm.arguments, *made_from], folder / "result.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["command"] != command:
            how = "by other settings, or from another trunk or other problems"
            raise UserError(f"{folder} was made {how}: give those again, or choose another --out_dir")
        return before["result"]
    if arm.group != "averages":
        run_stage(arm.script, *arm.arguments, "--resume=auto", f"--out_dir={folder}")
    elif not checkpoint.saved(folder):
        run_stage(arm.script, *arm.arguments, f"--out_dir={folder}")
    scores = {"document": evaluate(lab, folder, "eval", "auto")}
    if arm.chat:
        scores["chat"] = evaluate(lab, folder, "eval-chat", "true")
    result = result_of(arm, folder, scores)
    configurator.write_json(path, {"command": command, "result": result})
    return result


def evaluate(lab, folder, name, chat):
    """(summary, {task_id: whether its program passes}) of a model on the laboratory's problems."""
    out = folder / name
    how = [f"--checkpoint={folder}", f"--problems={lab.problems}", f"--chat={chat}", "--max_new_tokens=256"]
    run_stage("eval_humaneval.py", *how, "--num_workers=1", f"--out_dir={out}")
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return summary, {record["task_id"]: record["passed"] for record in read_lines(out / "results.jsonl")}


def result_of(arm, folder, scores):
    """An entry of summary.json's arms."""
    lines = list(read_lines(folder / "metrics.jsonl"))
    *_, last = evaluated = [line for line in lines if "sources" in line]
    summary, passed = scores["document"]
    result = {"group": arm.group, "shape": arm.shape, "mixture": arm.mixture, "seed": arm.seed, "tokens": arm.tokens}
    result |= {"rates": arm.rates, "val_bpb": last["val_bpb"], "pass@1": summary["pass@1"]}
    result |= {"sources": point_of(last)["sources"]}
    result |= {"solutions_bpb": summary["likelihood"].get("bpb"), "passed": {key: int(p) for key, p in passed.items()}}
    result["curve"] = [point_of(line) for line in evaluated]
    result["dynamics"] = [{"step": line["step"], **line["dynamics"]} for line in lines if "dynamics" in line]
    if "chat" in scores:
        result["chat"] = {"pass@1": scores["chat"][0]["pass@1"]}
    return result


def point_of(line):
    """An evaluation in metrics.jsonl as a point of curves. Averages have no pass@1 there."""
    sources = {folder: own["val_bpb"] for folder, own in line["sources"].items()}
    return {"tokens": line["tokens"], "val_bpb": line["val_bpb"], "pass@1": line.get("pass@1"), "sources": sources}
