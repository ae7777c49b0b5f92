"""Checkpoints: folders that are either whole or not there.

    <out_dir>/step_00000600/   model.pt  optimizer.pt  tokenizer.json  meta.json

meta.json holds the step, tokens seen, settings, model configuration, metrics, the tokenizer's fingerprint and the
sha256 of the other files. A folder is written beside its name, synced, then renamed. Reading never runs code from
a file (weights_only). A damaged checkpoint is named and the one before it is used.
"""

import json
import os
import pickle
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

from configurator import UserError, made_by, write_json
from model import ModelConfig, Transformer
from shards import sha256_file
from tokenizer import Tokenizer


def save(out_dir, step, model, optimizers, tokenizer, meta, keep=2):
    """Write out_dir/step_<step> and delete all but the newest `keep`. meta: whatever else a reader should know."""
    folder = Path(out_dir) / f"step_{step:08d}"
    beside = folder.with_suffix(".tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        tokenizer.save(beside / "tokenizer.json")
        write_tensors(beside / "model.pt", model.state_dict())
        write_tensors(beside / "optimizer.pt", [optimizer.state_dict() for optimizer in optimizers])
        write_json(
            beside / "meta.json",
            {
                "step": step,
                **meta,
                "model": asdict(model.config),
                "tokenizer": tokenizer.fingerprint,
                "sha256": {path.name: sha256_file(path) for path in sorted(beside.iterdir())},
                "made_by": made_by(),
            },
        )
        sync_folder(beside)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(beside, folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    for old in saved(out_dir)[:-keep]:
        shutil.rmtree(old)
    return folder


def write_tensors(path, value):
    """torch.save through a plain file: a full disk then is an OSError, as everywhere else."""
    with open(path, "wb") as f:
        try:
            torch.save(value, f)
        except RuntimeError as error:  # torch's zip writer hides a full disk behind an error of its own
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        f.flush()
        os.fsync(f.fileno())


def sync_folder(folder):
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def saved(out_dir):
    """The checkpoint folders in out_dir, oldest first, whole or damaged."""
    return sorted(Path(out_dir).glob("step_????????"))


def newest(path):
    """(folder, meta) of the newest whole checkpoint: path is one, or a folder of them. Damaged ones are named on
    standard error. Raises UserError when there is none."""
    path = Path(path)
    folders = [path] if (path / "meta.json").exists() else saved(path)[::-1]
    for folder in folders:
        try:
            return folder, checked_meta(folder)
        except UserError as error:
            print(f"warning: {error}", file=sys.stderr)
    raise UserError(f"no {'whole ' if folders else ''}checkpoint in {path}")


def checked_meta(folder):
    """meta.json of a checkpoint whose files all have the sha256 that it names. Raises UserError otherwise."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        for name, digest in meta["sha256"].items():
            if sha256_file(folder / name) != digest:
                raise UserError(f"checkpoint {folder} is damaged: {name} does not have its sha256")
        return meta
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"checkpoint {folder} is damaged: {error}") from None


def load_tensors(path, device="cpu"):
    """What torch.save wrote, tensors and plain containers alone: nothing in the file is executed."""
    return torch.load(path, map_location=device, weights_only=True)


def load_weights(model, folder, device):
    """Give a model the weights in a checkpoint folder. Raises UserError where they are not those of its shape."""
    try:
        model.load_state_dict(load_tensors(folder / "model.pt", device))
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"checkpoint {folder} does not hold this model: {error}") from None


def load_model(path, machine):
    """(model, tokenizer, meta) of the newest whole checkpoint at path, ready to be asked: on the machine's device, its
    weights in the machine's format, in evaluation mode."""
    folder, meta = newest(path)
    try:
        config = ModelConfig(**meta["model"])
    except (TypeError, ValueError) as error:
        raise UserError(f"checkpoint {folder} does not hold this model: {error}") from None
    model = Transformer(config).to(machine.device)
    load_weights(model, folder, machine.device)
    return model.to(machine.dtype).eval(), Tokenizer.load(folder / "tokenizer.json"), meta


def load_optimizers(folder, optimizers, device):
    """Give optimizers the state in a checkpoint; their hyper-parameters stay. Raises UserError for other optimizers."""
    states = load_tensors(folder / "optimizer.pt", device)
    try:
        for optimizer, state in zip(optimizers, states, strict=True):
            groups = []
            for saved_group, group in zip(state["param_groups"], optimizer.param_groups):
                groups.append({**group, "params": saved_group["params"]})
            optimizer.load_state_dict({**state, "param_groups": groups})
    except (ValueError, KeyError):
        raise UserError(
            f"{folder} was trained with another optimizer: give the --optimizer it was trained with"
        ) from None


def restore(settings, machine, model, optimizers, tokenizer):
    """Load the newest whole checkpoint in settings.out_dir; its step. Raises UserError if its model, its tokenizer or
    its optimizer is another, or if there is nothing left to do."""
    folder, meta = newest(settings.out_dir)
    check_tokenizer(folder, meta, tokenizer)
    config = asdict(model.config)
    if changed := [key for key in config if meta["model"].get(key) != config[key]]:
        raise UserError(
            f"{folder} has another shape: {', '.join(changed)} differ; give the settings it was trained with"
        )
    if meta["step"] >= settings.max_steps:
        raise UserError(
            f"{folder} has already reached step {meta['step']}: nothing to do up to max_steps={settings.max_steps}"
        )
    load_weights(model, folder, machine.device)
    load_optimizers(folder, optimizers, machine.device)
    if machine.is_main:
        print(f"resuming from {folder}", flush=True)
    return meta["step"]


def check_tokenizer(folder, meta, tokenizer):
    """Raises UserError where the model in a checkpoint folder was trained with another tokenizer."""
    if meta["tokenizer"] != tokenizer.fingerprint:
        raise UserError(
            f"{folder} was trained with tokenizer {meta['tokenizer']}, "
            f"the shards were made with {tokenizer.fingerprint}"
        )


def inherit(settings, meta):
    """Fill in the settings of a later stage that are auto (None) from the checkpoint's run; the ModelConfig to go on
    with, whose context may be longer."""
    keys = "batch_tokens doc_mask optimizer weight_decay beta1 beta2 momentum grad_clip seed".split()
    for key in keys:
        if getattr(settings, key) is None:
            setattr(settings, key, meta["settings"][key])
    changes = {key: getattr(settings, key) for key in ("block_size", "rope_base") if getattr(settings, key) is not None}
    try:
        config = replace(ModelConfig(**meta["model"]), **changes)
    except ValueError as error:
        raise UserError(error) from None
    settings.block_size, settings.rope_base = config.block_size, config.rope_base
    return config


def optimizer_state(settings, folder, meta):
    """The checkpoint folder whose optimizer state a later stage begins with: None where it uses another optimizer."""
    return folder if settings.optimizer == meta["settings"]["optimizer"] else None


def trained_model(config, folder, meta, tokenizer, machine):
    """A Transformer of the shape config with a checkpoint's weights in fp32, to be trained on. Raises UserError where
    it was trained with another tokenizer."""
    check_tokenizer(folder, meta, tokenizer)
    model = Transformer(config).to(machine.device)
    load_weights(model, folder, machine.device)
    return model
