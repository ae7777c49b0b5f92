"""Checkpoints: folders that are either whole or not there.

    <out_dir>/step_00000600/   model.pt  optimizer.pt  tokenizer.json  meta.json  metrics.jsonl  sha256.json

meta.json holds the step, tokens seen, settings, schedule, model configuration, metrics, what has been read of which
data, and the tokenizer's fingerprint; metrics.jsonl is the run's log so far; sha256.json holds the sha256 of every
other file. A folder is written beside its name, synced, then renamed. Reading never runs code from a file
(weights_only). A damaged checkpoint is named and the one before it is used.
"""

import contextlib
import json
import os
import pickle
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from configurator import UserError, made_by, write_json
from hints import how_to_make
from model import ModelConfig, Transformer
from shards import naming, sha256_file
from tokenizer import Tokenizer

FILES = {"model.pt", "optimizer.pt", "tokenizer.json", "meta.json"}  # what every checkpoint holds


def save(out_dir, step, model, optimizers, tokenizer, meta):
    """Write out_dir/step_<step>; returns the folder. meta: whatever else a reader should know."""
    folder = Path(out_dir) / f"step_{step:08d}"
    beside = folder.with_suffix(".tmp")
    for leftover in Path(out_dir).glob("step_*.tmp"):  # of a run that was killed while it saved or deleted
        shutil.rmtree(leftover, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        tokenizer.save(beside / "tokenizer.json")
        write_tensors(beside / "model.pt", model.state_dict())
        write_tensors(beside / "optimizer.pt", [optimizer.state_dict() for optimizer in optimizers])
        about = {"step": step, **meta, "model": asdict(model.config), "tokenizer": tokenizer.fingerprint}
        write_json(beside / "meta.json", {**about, "made_by": made_by()})
        if (log := Path(out_dir, "metrics.jsonl")).exists():
            with naming(beside / log.name):
                shutil.copy(log, beside)
        write_json(beside / "sha256.json", {path.name: sha256_file(path) for path in sorted(beside.iterdir())})
        sync_folder(beside)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(beside, folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return folder


def whole_until(folder):
    """The checkpoints beside a whole one that are older and whole too, and that one."""
    found = []
    for older in saved(folder.parent):
        with contextlib.suppress(UserError):
            if older < folder and checked_meta(older):
                found.append(older)
    return [*found, folder]


def is_due(step, every):
    """Whether something that is done every so many steps is done after this one; every = 0 means never."""
    return bool(every) and step % every == 0


def to_keep(whole, folder, save_every, keep):
    """The folders to keep when a new one has been written: `keep` of them with it. Those of every save_every steps go
    before those that a signal left in between, so that a run that was stopped ends with what an unbroken one leaves.

    whole: older folders that are known to be whole."""

    def worth(older):
        """Its place in the order in which checkpoints are given up."""
        return is_due(int(older.name.removeprefix("step_")), save_every), older

    return [*sorted(sorted(whole, key=worth)[max(0, len(whole) - keep + 1) :]), folder]


def delete_older(out_dir, kept):
    """Delete the checkpoints in out_dir that are older than the last of `kept`, except for those in it.

    kept: folders that are known to be whole, as this run has written or read them. Counting whatever lies there instead
    would let damaged folders push out the last one from which a run can go on.
    """
    for folder in saved(out_dir):
        if folder < kept[-1] and folder not in kept and not folder.is_symlink():  # a link is a person's own
            beside = folder.with_suffix(".tmp")
            os.replace(folder, beside)  # what is left of it after a kill must not look like a checkpoint
            shutil.rmtree(beside)


def write_tensors(path, value):
    """torch.save through a plain file: a full disk then is an OSError, as everywhere else."""
    with naming(path), open(path, "wb") as f:
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
    return sorted(path for path in Path(out_dir).glob("step_" + 8 * "[0-9]") if path.is_dir())


def newest(path):
    """(folder, meta) of the newest whole checkpoint: path is one, or a folder of them. Damaged ones are named on
    standard error. Raises UserError when there is none."""
    path = Path(path)
    folders = [path] if (path / "meta.json").exists() else saved(path)[::-1]
    for folder in folders:
        try:
            return folder, checked_meta(folder)
        except UserError as error:
            if not folder.exists():  # the run that writes here has just deleted it: there is a newer one
                return newest(path)
            print(f"warning: {error}", file=sys.stderr)
    what = f"no whole checkpoint in {path}, delete it and train again" if folders else f"no checkpoint in {path}"
    raise UserError(what + how_to_make(path))


def checked_meta(folder):
    """meta.json, and the "sha256" of the files, of a checkpoint that is whole. Raises UserError otherwise."""
    try:
        digests = json.loads((folder / "sha256.json").read_text(encoding="utf-8"))
        if missing := FILES - digests.keys():
            raise UserError(f"checkpoint {folder} is damaged: sha256.json does not name {', '.join(sorted(missing))}")
        for name in digests:
            if sha256_file(folder / name) != digests[name]:
                raise UserError(f"checkpoint {folder} is damaged: {name} does not have its sha256")
        return {**json.loads((folder / "meta.json").read_text(encoding="utf-8")), "sha256": digests}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"checkpoint {folder} is damaged: {error}") from None


def load_tensors(path, device="cpu"):
    """What torch.save wrote, tensors and plain containers alone: nothing in the file is executed. Raises UserError for
    anything else."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (EOFError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"checkpoint {path.parent} does not hold this model's {path.name}: {error}") from None


def load_weights(model, folder, device):
    """Give a model the weights in a checkpoint folder. Raises UserError where they are not those of its shape."""
    weights = load_tensors(folder / "model.pt", device)
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"checkpoint {folder} does not hold this model: {error}") from None


def load_model(path, machine):
    """(model, tokenizer, meta) of the newest whole checkpoint at path, ready to be asked: on the machine's device, its
    weights in the machine's format, in evaluation mode. meta["sha256"] stands for all of the checkpoint's files."""
    folder, meta = newest(path)
    try:
        model = Transformer(ModelConfig(**meta["model"])).to(machine.device)
        load_weights(model, folder, machine.device)
        meta["sha256"] = sha256_file(folder / "sha256.json")
        model.dtype = machine.dtype
        return model.to(machine.dtype).eval(), Tokenizer.load(folder / "tokenizer.json"), meta
    except (UserError, OSError, KeyError, TypeError, ValueError) as error:
        if not folder.exists():
            return load_model(path, machine)
        if isinstance(error, UserError | OSError):
            raise
        raise UserError(f"checkpoint {folder} does not hold this model: {error}") from None


def load_optimizers(folder, optimizers, device):
    """Give optimizers the state in a checkpoint; their hyper-parameters stay. Raises UserError for other optimizers."""
    states = load_tensors(folder / "optimizer.pt", device)
    try:
        for optimizer, state in zip(optimizers, states, strict=True):
            groups = []
            for saved_group, group in zip(state["param_groups"], optimizer.param_groups):
                groups.append({**group, "params": saved_group["params"]})
            optimizer.load_state_dict({**state, "param_groups": groups})
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder} was trained with another optimizer: give the --optimizer it was trained with"
        ) from None
