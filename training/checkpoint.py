"""Checkpoints: folders that are either whole or not there.

    <out_dir>/step_00000600/   model.pt  optimizer-0.pt ...  tokenizer.json  meta.json  metrics.jsonl  sha256.json

With LoRA, adapters.pt holds what is trained, and model.pt the weights that stay as they are (training/lora.py).
meta.json holds the step, tokens seen, settings, schedule, model configuration, metrics, what has been read of which
data, and the tokenizer's fingerprint; metrics.jsonl is the run's log so far; sha256.json holds the sha256 of every
other file. Each process writes the state of the parameters that it owns, under their names: any number of processes
can go on from it, if all see one out_dir. A folder is written beside its name, synced, then renamed. Reading never runs
code from a file (weights_only). A damaged checkpoint is named and the one before it is used.
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

from configurator import UserError, made_by, write_json, write_text
from hints import how_to_make
from model import ModelConfig, Transformer
from shards import naming, sha256_file
from tokenizer import Tokenizer
from training.lora import merged, stored_apart

FILES = {"model.pt", "tokenizer.json", "meta.json"}  # what every checkpoint holds


def save(out_dir, step, model, optimizers, tokenizer, meta, machine):
    """Write out_dir/step_<step>, all processes together; returns the folder. meta: whatever else a reader should know.

    Raises OSError or, where several processes write, UserError: in all of them, and nothing half-written is left."""
    folder = Path(out_dir) / f"step_{step:08d}"
    beside = folder.with_suffix(".tmp")
    try:
        with machine.together():
            if machine.is_main:
                for leftover in Path(out_dir).glob("step_*.tmp"):  # of a run that was killed while it saved or deleted
                    shutil.rmtree(leftover, ignore_errors=True)
                beside.mkdir(parents=True)
        with machine.together():
            write_tensors(beside / f"optimizer-{machine.rank}.pt", states_by_name(model, optimizers))
            if machine.is_main:
                tokenizer.save(beside / "tokenizer.json")
                weights, adapters = stored_apart(model)
                write_tensors(beside / "model.pt", weights)
                if adapters:
                    write_tensors(beside / "adapters.pt", adapters)
                about = {"step": step, **meta, "model": asdict(model.config), "tokenizer": tokenizer.fingerprint}
                write_json(beside / "meta.json", {**about, "made_by": made_by()})
                if (log := Path(out_dir, "metrics.jsonl")).exists():
                    write_text(beside / log.name, log.read_text(encoding="utf-8"))
        with machine.together():
            if machine.is_main:
                put_in_place(beside, folder)
    except BaseException:
        if machine.is_main:
            shutil.rmtree(beside, ignore_errors=True)
        raise
    return folder


def put_in_place(beside, folder):
    """Give a finished checkpoint its sha256.json and its name."""
    write_json(beside / "sha256.json", {path.name: sha256_file(path) for path in sorted(beside.iterdir())})
    sync_folder(beside)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(beside, folder)
    sync_folder(folder.parent)


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


def chosen(path, machine):
    """newest(path), which the main process looks for: only it compares files with their sha256, and the others are told
    the number of the checkpoint. Raises UserError in all of them when there is none."""
    path = Path(path)
    with machine.together():
        folder, meta = newest(path) if machine.is_main else (path, None)
    in_path = machine.is_main and folder != path
    number = int(machine.sum(int(folder.name.removeprefix("step_")) if in_path else 0)[0])
    if not machine.is_main:
        folder = path / f"step_{number:08d}" if not (path / "meta.json").exists() else path
        meta = read_meta(folder)
    return folder, meta


def checked_meta(folder):
    """meta.json of a checkpoint that is whole. Raises UserError otherwise."""
    try:
        digests = json.loads((folder / "sha256.json").read_text(encoding="utf-8"))
        if missing := FILES - digests.keys():
            raise UserError(f"checkpoint {folder} is damaged: sha256.json does not name {', '.join(sorted(missing))}")
        for name in digests:
            if sha256_file(folder / name) != digests[name]:
                raise UserError(f"checkpoint {folder} is damaged: {name} does not have its sha256")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"checkpoint {folder} is damaged: {error}") from None
    return read_meta(folder)


def read_meta(folder):
    """meta.json of a checkpoint. Raises UserError where it cannot be read."""
    try:
        return {**json.loads((folder / "meta.json").read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"checkpoint {folder} is damaged: {error}") from None


def load_tensors(path, device="cpu"):
    """What torch.save wrote, tensors and plain containers alone: nothing in the file is executed. Raises UserError for
    anything else."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise  # a run may have deleted the folder meanwhile
    except (EOFError, ValueError, RuntimeError, OSError, pickle.UnpicklingError) as error:
        raise UserError(f"checkpoint {path.parent} does not hold this model's {path.name}: {error}") from None


def stored_weights(folder, device="cpu"):
    """{name: tensor} of all weights in a checkpoint folder, adapters beside the matrices that they are for. Raises
    UserError where there are none."""
    weights = load_tensors(folder / "model.pt", device)
    try:
        return weights | (load_tensors(folder / "adapters.pt", device) if (folder / "adapters.pt").exists() else {})
    except TypeError as error:
        raise UserError(f"checkpoint {folder} does not hold a model's weights: {error}") from None


def load_weights(model, folder, device):
    """Give a model the weights in a checkpoint folder, with LoRA's adapters merged unless it has adapters itself.
    Raises UserError where they are not those of its shape."""
    weights = stored_weights(folder, device)
    try:
        if not any(name.endswith("lora_a") for name, _ in model.named_parameters()):
            weights = merged(weights)
        if not hasattr(model, "value_head"):  # a stage that writes text needs no judgement of it
            weights.pop("value_head.weight", None)
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"checkpoint {folder} does not hold this model: {error}") from None


def load_model(path, machine, with_values=False):
    """(model, tokenizer, meta) of the newest whole checkpoint at path, ready to be asked: on the machine's device, its
    weights in the machine's format, in evaluation mode. meta["sha256"] stands for all of the checkpoint's files.
    with_values: it must be a reward model, and keeps its value_head. Raises UserError where there is none."""
    folder, meta = newest(path)
    if with_values and not meta.get("reward"):
        raise UserError(f"{folder} is no reward model: python reward.py trains one")
    try:
        model = Transformer(ModelConfig(**meta["model"])).to(machine.device)
        if with_values:
            model.add_value_head()
        load_weights(model, folder, machine.device)
        # Adapters that a person has put there are not named in sha256.json.
        parts = [folder / name for name in ("sha256.json", "adapters.pt") if (folder / name).exists()]
        meta["sha256"] = " ".join(map(sha256_file, parts))
        return model.ready(machine.dtype), Tokenizer.load(folder / "tokenizer.json"), meta
    except (UserError, OSError, KeyError, TypeError, ValueError) as error:
        if not folder.exists():
            return load_model(path, machine, with_values)
        if isinstance(error, UserError | OSError):
            raise
        raise UserError(f"checkpoint {folder} does not hold this model: {error}") from None


# -- the optimizers' state: {"muon" or "adamw": {parameter's name: {state's name: tensor}}}


def states_by_name(model, optimizers):
    """The state of this process's optimizers as it is saved."""
    names = {p: name for name, p in model.named_parameters()}
    states = {}
    for optimizer in optimizers:
        own = states[kind(optimizer)] = {}
        for p in parameters_of(optimizer):
            own[names[p]] = optimizer.state.get(p, {})
    return states


def load_optimizers(folder, model, optimizers, device):
    """Give this process's optimizers what a checkpoint's files hold of their parameters; their hyper-parameters stay.
    Raises UserError where other optimizers wrote it."""
    names, missing = {p: name for name, p in model.named_parameters()}, set()
    for optimizer in optimizers:
        missing |= {(kind(optimizer), names[p]) for p in parameters_of(optimizer)}
    for path in sorted(folder.glob("optimizer-*.pt")):  # one after the other: only one is in memory as a whole
        states = load_tensors(path)
        try:
            for optimizer in optimizers:
                for p in parameters_of(optimizer):
                    state = states.get(kind(optimizer), {}).get(names[p])
                    if state is not None:
                        optimizer.state[p] = {key: value.to(device) for key, value in state.items()}
                        missing.discard((kind(optimizer), names[p]))
        except AttributeError as error:
            raise UserError(f"checkpoint {folder} does not hold this model's {path.name}: {error}") from None
    if missing:
        raise UserError(f"{folder} has no optimizer state for {len(missing)} parameters, such as {min(missing)[1]}")


def kind(optimizer):
    """The --optimizer that an optimizer is."""
    return "adamw" if isinstance(optimizer, torch.optim.AdamW) else "muon"


def parameters_of(optimizer):
    """All parameters of an optimizer."""
    parameters = []
    for group in optimizer.param_groups:
        parameters += group["params"]
    return parameters
