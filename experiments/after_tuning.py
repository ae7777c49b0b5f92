"""What comes behind tuning, and does it help? One chat model of each seed, trained on in four ways.

    python -m experiments.after_tuning --models=out/demo/sft,out/demo-seed2/sft

Rejection sampling, DPO, GRPO and PPO get equally many attempts at problems with tests. All models are
scored on other problems, of a harder kind, by pass@1 and pass@16 at temperature 1, and by their bits
per byte on the library: what is forgotten counts too. An interrupted run goes on where it was.
"""

import needs  # noqa: F401

import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import configurator
from configurator import UserError
from evaluation.problems import pass_at_k, read_lines
from experiments.common import begin, has_begun, print_spread, run_stage, side_by_side
from experiments.held_out import HeldOut, weights_of
from pretrain import Optimizer
from ranges import Count, Natural, NotNegative, Place, Positive, SmallCount
from shards import exclusive
from training import checkpoint
from training import machine as machines

ARMS = ("tuned", "rejection", "dpo", "grpo", "ppo")
COLUMNS = {"pass@1": "pass@1", "pass@16": "pass@16", "bpb": "bits per byte: library"}


@dataclass
class Settings:
    """The models and the attempts."""

    # -- models
    models: str = "out/demo/sft"  # the chat models to begin with, one for each seed
    library: str = "data/demo/stdlib"  # shard folder for the bits per byte
    eval_tokens: Natural = 0  # of its validation tokens; 0 = all
    # -- attempts
    practice: str = "data/exercises/practice.jsonl"  # problems to learn from
    test: str = "data/exercises/problems.jsonl"  # problems to be scored on
    n_test: Natural = 200  # the first so many of them; 0 = all
    steps: Count = 60  # of GRPO and PPO: with n_problems and group_size, how many attempts each way of learning has
    n_problems: Count = 32  # problems per step
    group_size: SmallCount = 16  # attempts at each of them
    max_new_tokens: Count = 96  # length of an attempt
    # -- learning rates
    rejection_lr: Positive = 2e-3  # of tuning on the own programs that passed
    dpo_lr: Positive = 2e-4  # of preferring them to those that failed
    grpo_lr: Positive = 1e-3  # of GRPO
    grpo_optimizer: Optimizer = "muon"  # of GRPO
    ppo_lr: Positive = 3e-4  # of PPO, by AdamW
    # -- against forgetting
    replay_weight: NotNegative = 0.002  # of the library's training text beside GRPO's and PPO's attempts; 0 = none
    # -- results
    out_dir: Place = "out/after-tuning"  # models, samples, summary.json
    jobs: SmallCount = 2  # seeds under way at a time, each on one thread


def main(settings):
    """Train and score all models, print and write what came out."""
    out = Path(settings.out_dir).resolve()
    models = [str(Path(model).resolve()) for model in settings.models.split(",")]
    check(settings)
    if not has_begun(out, settings):
        begin(out, settings)
    with exclusive(out):
        scores = side_by_side(lambda one: all_arms(settings, out, *one), list(enumerate(models)), settings.jobs, "seed")
    arms = {}
    for arm in ARMS:
        arms[arm] = [by_arm[arm] for by_arm in scores]
    about = {"settings": asdict(settings), "made_by": configurator.made_by()}
    configurator.write_json(out / "summary.json", {"arms": arms, **about})
    print_spread(arms, COLUMNS)


def check(settings):
    """Raises UserError where there are too few problems for all ways of learning to have equally many attempts."""
    n, needed = sum(1 for _ in read_lines(Path(settings.practice))), settings.steps * settings.n_problems
    if n < needed:
        raise UserError(
            f"{settings.practice} has {n} problems, and {settings.steps} steps ask {needed}: give fewer steps"
        )


def all_arms(settings, out, seed, tuned):
    """{arm: its scores} of the models that begin with one tuned model."""
    folder = out / str(seed)
    places = {"tuned": tuned, **{arm: folder / arm for arm in ARMS[1:]}}
    harvest(settings, folder, tuned)
    for arm, arguments in stages(settings, folder, tuned, seed).items():
        run_stage(*arguments, f"--out_dir={places[arm]}")
    return {arm: score(settings, folder / f"eval-{arm}", place) for arm, place in places.items()}


def harvest(settings, folder, tuned):
    """Attempts of the tuned model, as many as the others make, and what rejection sampling and DPO learn from."""
    n_problems = settings.steps * settings.n_problems
    sample = (f"--checkpoint={tuned}", f"--problems={settings.practice}", f"--limit={n_problems}")
    how = ("--temperature=1", "--top_p=1", f"--n_samples={settings.group_size}", "--batch_size=256")
    length = f"--max_new_tokens={settings.max_new_tokens}"
    run_stage("eval_humaneval.py", *sample, *how, length, "--smooth=false", f"--out_dir={folder}/attempts")
    results = (f"--results={folder}/attempts/results.jsonl", f"--problems={settings.practice}")
    run_stage("evaluation.harvest", *results, f"--out_dir={folder}/harvest")
    tokenizer = f"--tokenizer={checkpoint.newest(tuned)[0]}/tokenizer.json"
    for kind, file in (("chats", "passed"), ("pairs", "pairs")):
        source = f"--sources={folder}/harvest/{file}.jsonl"
        run_stage(
            "prepare_data.py", f"--{kind}", source, tokenizer, "--val_fraction=0.02", f"--out_dir={folder}/{kind}"
        )


def stages(settings, folder, tuned, seed):
    """{arm: the command line that trains it}, without the folder of its results."""
    common = ("--resume=auto", "--eval_every=0", f"--init={tuned}", f"--seed={seed}")
    rollouts = (f"--problems={settings.practice}", f"--max_steps={settings.steps}")
    rollouts += (f"--n_problems={settings.n_problems}", f"--group_size={settings.group_size}")
    rollouts += (f"--max_new_tokens={settings.max_new_tokens}",)
    if settings.replay_weight:
        rollouts += (f"--replay={settings.library}", f"--replay_weight={settings.replay_weight}")
    grpo = f"--optimizer={settings.grpo_optimizer}", f"--lr={settings.grpo_lr}"
    rejection = ("sft.py", *common, f"--data={folder}/chats", "--epochs=2", f"--lr={settings.rejection_lr}")
    return {
        "rejection": rejection,
        "dpo": ("dpo.py", *common, f"--data={folder}/pairs", "--nll=0.2", f"--lr={settings.dpo_lr}"),
        "grpo": ("grpo.py", *common, *rollouts, *grpo),
        "ppo": ("grpo.py", "--critic", *common, *rollouts, "--optimizer=adamw", f"--lr={settings.ppo_lr}"),
    }


def score(settings, folder, place):
    """{"pass@1", "pass@16", "bpb"} of a model."""
    problems = (f"--problems={settings.test}", f"--limit={settings.n_test}", "--n_samples=16", "--batch_size=256")
    how = ("--temperature=1", "--top_p=1", f"--max_new_tokens={settings.max_new_tokens}")
    run_stage("eval_humaneval.py", f"--checkpoint={place}", *problems, *how, "--smooth=false", f"--out_dir={folder}")
    passed = {}
    for record in read_lines(folder / "results.jsonl"):
        passed.setdefault(record["task_id"], []).append(record["passed"])
    counts = [(len(verdicts), sum(verdicts)) for verdicts in passed.values()]
    found = {"bpb": library_bpb(settings, place)}
    for k in (1, 16):
        found[f"pass@{k}"] = statistics.mean(pass_at_k(n, c, k) for n, c in counts)
    return found


def library_bpb(settings, place):
    """Bits per byte of a model on the library's validation split."""
    folder, _ = checkpoint.newest(place)
    held_out = HeldOut(folder, machines.start("cpu", "fp32"), settings.library, settings)
    return held_out.losses(weights_of(folder))["val_bpb"]


if __name__ == "__main__":
    configurator.run(main, Settings)
