"""Going on from a checkpoint: a run that was stopped, or a later stage.

A resumed run must be what the run would have been without the stop, so that restore() refuses other data, another
model and other settings than before. A later stage starts from another run's checkpoint and inherits how it was
trained; when it is itself resumed, all that it inherited is in its own checkpoints, and the earlier run may be gone.
"""

import math
from dataclasses import asdict, replace

from configurator import UserError
from model import ModelConfig, Transformer
from training.checkpoint import chosen, load_optimizers, load_weights, read_meta, saved
from training.lora import FASTER
from training.optim import Schedule, lr_at, warmup_then_decay

# These decide which rows a step reads. Rows are found by counting, so that after a change of any of them some would
# be skipped or read twice.
DATA = {"data", "batch_tokens", "block_size", "best_fit", "seed"}
# These do not decide what is learnt, or do so only through max_steps and the schedule, which are compared themselves.
FREE = set("init val out_dir max_steps decay_tokens epochs micro_batch recompute device compile verify changed".split())
FREE |= set("log_every dynamics_every eval_every eval_tokens save_every keep resume sample problems test".split())
FREE |= {"tracker", "sample_batch"}
INHERITED = "batch_tokens doc_mask optimizer weight_decay beta1 beta2 momentum grad_clip seed".split()
RESHAPED = ("block_size", "rope_base", "rope_scaling", "rope_factor")  # what a later stage may change of a model
# The setting that only one stage has.
ONLY_OF = {"schedule": "pretrain.py", "decay_tokens": "anneal.py", "neftune": "sft.py", "group_size": "grpo.py"}
ONLY_OF |= {"beta": "dpo.py", "center": "reward.py"}


def should_resume(settings):
    """Whether to go on from a checkpoint in settings.out_dir. Raises UserError where it holds another run's checkpoints
    and nothing is said of resuming, or none although the run is to be resumed."""
    found = bool(saved(settings.out_dir))
    if found and settings.resume is False:
        raise UserError(
            f"{settings.out_dir} already holds checkpoints: --resume goes on from the newest; "
            "or choose another --out_dir"
        )
    if settings.resume and not found:
        raise UserError(f"no checkpoint in {settings.out_dir}: the same command without --resume begins a run")
    return found if settings.resume is None else settings.resume


def all_resume(settings, machine):
    """should_resume(), which the main process alone finds out and tells the others."""
    with machine.together():
        found = machine.is_main and should_resume(settings)
    return machine.sum(found)[0] > 0


def newest_run(path, machine):
    """The checkpoint at path that is chosen(), if its meta.json says all that a run goes on from. Raises UserError
    where another version wrote it."""
    folder, meta = chosen(path, machine)
    try:
        ModelConfig(**meta["model"]), Schedule(**meta["schedule"]), range(meta["step"])
        for key in ("metrics", "data", "data_ahead", "rows_read", "read_before", "tokenizer"):
            meta[key]
        for key in (*INHERITED, "lr", "warmup_steps", "max_steps"):
            meta["settings"][key]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder} was written by another version of this program: meta.json, {error}") from None
    return folder, meta


# -- a run that was stopped


def restore(settings, machine, model, optimizers, tokenizer, data, schedule):
    """Load the newest whole checkpoint in settings.out_dir; its (folder, meta). Raises UserError where its model, its
    tokenizer, its data or a setting that decides what is learnt is another."""
    folder, meta = newest_run(settings.out_dir, machine)
    check_stage(folder, meta, settings)
    check_tokenizer(folder, meta, tokenizer)
    before, config = asdict(ModelConfig(**meta["model"])), asdict(model.config)
    if other := [key for key in config if before[key] != config[key]]:
        raise UserError(f"{folder} has another shape: give {values(other, before)}, not {values(other, config)}")
    if meta["step"] > settings.max_steps:
        raise UserError(f"{folder} has already reached step {meta['step']}, beyond max_steps={settings.max_steps}")
    differing = compare(settings, folder, meta, data, schedule)
    load_weights(model, folder, machine.device)
    if optimizer_state(settings, folder, meta):
        load_optimizers(folder, model, optimizers, machine.device)
    machine.say(f"resuming from {folder}" + (f" with other settings: {differing}" if differing else ""))
    return folder, meta


def go_back(settings, whole, before, what, machine, model, optimizers):
    """Give model and optimizers the state in the newest of their run's checkpoints, whole; its step. before: the one
    that the run went back to the last time. Raises UserError, which tells what has happened, where there is none, or it
    is that one again: other data have not helped."""
    if not whole:
        raise UserError(f"{what}: begin again with a lower rate than {settings.lr:g}: --lr=...")
    if whole[-1] == before:
        how = f"go on from {whole[-1]} with a lower rate than {settings.lr:g}: --resume --changed=lr --lr=..."
        raise UserError(f"{what}: {how}")
    meta = read_meta(whole[-1])
    load_weights(model, whole[-1], machine.device)
    if optimizer_state(settings, whole[-1], meta):
        load_optimizers(whole[-1], model, optimizers, machine.device)
    else:  # another optimizer wrote it: they begin anew, as they did when the run was resumed from there
        for optimizer in optimizers:
            optimizer.state.clear()
    return meta["step"]


def compare(settings, folder, meta, data, schedule):
    """Compare a resumed run with the one that wrote a checkpoint: the settings that differ, as text.

    Raises UserError for other data, and for another value of a setting that decides what is learnt, unless
    settings.changed names it."""
    before, now = meta["settings"], asdict(settings)
    if unknown := set(settings.changed) - now.keys():
        raise UserError(f"changed names {', '.join(sorted(unknown))}, which is no setting of this stage")
    differing = {key for key in now if key in before and now[key] != before[key]} - {"resume", "changed"}
    # A folder may have been moved; another mixture, or a folder that was made anew from other text, is other data.
    differing -= {"data", "replay"}
    differing |= {"data"} if meta["data"] != data.identity() else set()

    essential = differing - FREE
    # A longer cosine is another schedule from its first step on. What differs and is named (lr, warmup_steps) is taken
    # from the new one, to see whether max_steps alone changes the steps that are done.
    named = {key: getattr(schedule, key) for key in essential if hasattr(schedule, key)}
    was = replace(Schedule(**meta["schedule"]), **named)
    if "schedule" not in essential and any(lr_at(step, schedule) != lr_at(step, was) for step in range(meta["step"])):
        essential |= {"max_steps"}
    if "data" in essential and "data" not in now:
        what = f"other problems than {settings.problems}, or other text than --replay={settings.replay}"
        raise UserError(f"{folder} learnt from {what}: choose another --out_dir")
    if rows := essential & DATA:
        raise UserError(
            f"{folder} was trained with {values(rows, before)}, not {values(rows, now)}: rows would be skipped or read "
            "twice; give what it was trained with, or start a new stage from it with anneal.py"
        )
    if unnamed := essential - set(settings.changed):
        raise UserError(
            f"{folder} was trained with {values(unnamed, before)}, not {values(unnamed, now)}: give that again, or "
            f"--changed={','.join(sorted(unnamed))} to go on with the new value"
        )
    return values(differing, now)


def values(keys, settings):
    """Settings as they are typed: lr=0.003, seed=1."""
    return ", ".join(f"{key}={settings[key]}" for key in sorted(keys))


# -- a later stage


def starting_point(settings, machine):
    """(folder, meta, ModelConfig) of what a later stage goes on from: the newest checkpoint of settings.init, or, when
    the stage itself is resumed, its own. Settings that are auto (None) become those of that checkpoint's run."""
    folder, meta = newest_run(settings.out_dir if settings.resume else settings.init, machine)
    guessed = [key for key in ("lr", "batch_tokens") if getattr(settings, key) is None]
    if guessed and not meta["step"]:  # convert.py has made it, and knows nothing of its training
        demo = values(guessed, meta["settings"])
        machine.say(
            f"warning: give --{' and --'.join(guessed)}: {folder} was not trained here, and auto is the demo's {demo}"
        )
    own = ["lr", "warmup_steps"] if settings.resume else []  # which begin as a share of something else
    for key in [*INHERITED, *own]:
        if getattr(settings, key) is None:
            setattr(settings, key, meta["settings"][key])
    try:
        config = lengthened(ModelConfig(**meta["model"]), settings)
    except ValueError as error:
        raise UserError(error) from None
    if settings.shifted_attention and config.n_head < 2:
        raise UserError("shifted_attention needs two heads or more: half of them are shifted")
    for key in RESHAPED:
        setattr(settings, key, getattr(config, key))
    return folder, meta, config


def lengthened(config, settings):
    """A checkpoint's ModelConfig with the context and the rotary positions that the settings ask for.

    Positions are stretched from the length at which they were first learnt, and by default never less than before:
    tuning on short rows must not undo what an anneal has learnt. What is not changed stays as it is. Raises
    ValueError where settings do not fit."""
    changes = {key: getattr(settings, key) for key in RESHAPED if getattr(settings, key) is not None}
    if changes.get("rope_scaling", config.rope_scaling) == "none":
        return replace(config, **{"rope_factor": 1.0, "rope_trained": 0, **changes})
    trained, factor = config.rope_trained or config.block_size, config.rope_factor
    if any(changes.get(key, getattr(config, key)) != getattr(config, key) for key in ("block_size", "rope_scaling")):
        factor = max(factor, changes.get("block_size", config.block_size) / trained)
    return replace(config, **{"rope_factor": factor, "rope_trained": trained, **changes})


def lr_before(meta):
    """The peak learning rate of a checkpoint's run; if that trained adapters, a third of it, as all weights would have
    had: the shares that later stages take of it are meant for these."""
    about = meta["settings"]
    return about["lr"] / (FASTER if about.get("lora_rank") else 1)


def tuning_schedule(settings, meta, data, slower):
    """The Schedule of a stage that reads its data settings.epochs times; settings that are auto are filled in.

    meta: of the checkpoint that it goes on from; slower: how many times lower than its run's the learning rate is."""
    if settings.lr is None:
        settings.lr = lr_before(meta) / slower
    if settings.max_steps is None:
        settings.max_steps = math.ceil(settings.epochs * data.n_rows.sum() / data.quotas.batch_size)
    if settings.warmup_steps is None:
        settings.warmup_steps = min(20, settings.max_steps // 10)
    return warmup_then_decay(settings)


def read_before(settings, meta):
    """{Shards.key: rows} that were read before this stage began, for its data to go on behind them.

    Row numbers mean the same rows only where the earlier run cut its data alike."""
    if settings.resume:
        return meta["read_before"]
    same_rows = all(getattr(settings, key) == meta["settings"].get(key) for key in ("block_size", "seed", "best_fit"))
    return meta["rows_read"] if same_rows else {}


def optimizer_state(settings, folder, meta):
    """The checkpoint folder whose optimizer state a later stage begins with: None where it uses another optimizer or
    trains other parameters, and for a checkpoint that convert.py has made, which holds none."""
    same = settings.optimizer == meta["settings"]["optimizer"]
    same = same and getattr(settings, "lora_rank", 0) == meta["settings"].get("lora_rank", 0)
    return folder if same and not meta.get("weights_only") else None


def trained_model(config, folder, meta, tokenizer, machine):
    """A Transformer of the shape config with a checkpoint's weights in fp32, to be trained on. Raises UserError where
    it was trained with another tokenizer."""
    check_tokenizer(folder, meta, tokenizer)
    model = Transformer(config).to(machine.device)
    load_weights(model, folder, machine.device)
    return model


def check_stage(folder, meta, settings):
    """Raises UserError where another stage wrote a checkpoint."""
    for key, stage in ONLY_OF.items():
        if key in meta["settings"] and not hasattr(settings, key):
            raise UserError(f"{folder} was trained by {stage}: --resume goes on with that; or choose another --out_dir")


def check_tokenizer(folder, meta, tokenizer):
    """Raises UserError where the model in a checkpoint folder was trained with another tokenizer."""
    if meta["tokenizer"] != tokenizer.fingerprint:
        raise UserError(
            f"{folder} was trained with tokenizer {meta['tokenizer']}, "
            f"the shards were made with {tokenizer.fingerprint}"
        )
