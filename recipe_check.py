"""What a recipe will read, need and take, told before it runs: `python recipe.py configs/0.5b.toml --check`.

The first record of every source is read, which shows whether its name, split, fields and licence are what the recipe
takes them for. Nothing else is downloaded.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

import pretrain
from cleaning.classifier import labelled
from configurator import UserError
from corpus import chats, pairs
from corpus.documents import Document, read
from corpus.parallel import submitted
from corpus.sources import SETS, SOURCE_SETTINGS, parsed, short_name, source_name
from model import Transformer
from training.machine import PEAK_FLOPS

MFU, CARD = 0.4, "3090"  # what the hours are counted for where there is no GPU whose speed is known
SEVERAL, MANY = 3, 1000  # records that cannot be used, or are not wanted, after which none will be better


def check(steps, processes):
    """Print the tables of a recipe's sources and of what its training takes. Raises UserError where a source cannot be
    read as the recipe has it."""
    wanted = {}  # (source, what its records are taken for)
    for step in steps:
        view = next((view for view in ("pairs", "chats") if getattr(step.settings, view, False)), "text")
        for name, kind in {**SOURCE_SETTINGS, "sources": view}.items():
            wanted |= dict.fromkeys((source, kind) for source in getattr(step.settings, name, []))
    made = [step.result for step in steps]  # what earlier steps will make cannot be looked at
    wanted = [(source, kind) for source, kind in wanted if not is_made(source, made)]
    found = {}
    with ThreadPoolExecutor(16) as pool:
        try:
            for one, done in submitted(pool, lambda one: first_record(*one), wanted):
                found[one] = done.result()
        except BaseException:  # Ctrl-C: the sources that have not begun are left out
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    names = [short_name(source) for source, _ in wanted]
    width = max(map(len, names), default=6)
    print(f"\n{'source':<{width}}  {'rows':>13} {'GB':>8}  {'licence':<22} first record")
    bad = 0
    for one, name in zip(wanted, names):
        source, (is_fit, text) = one[0], found[one]
        about = SETS.get(parsed(source, must_exist=False).known, {})
        rows = f"{about['rows']:,}" if "rows" in about else "?"
        size = f"{about['gb']:,.2f}" if "gb" in about else "?"
        bad += not is_fit
        print(f"{name:<{width}}  {rows:>13} {size:>8}  {about.get('license', '?')[:22]:<22} {text}")
        if about.get("gated"):
            print(f"{'':<{width}}  gated: {about['gated']}, then: hf auth login")
    print_needs(steps, [source for source, _ in wanted], processes)
    if bad:
        raise UserError(f"{bad} of {len(wanted)} sources cannot be read as the recipe has them: see the table")


def is_made(source, made):
    """Whether a source lies in what a step of the recipe leaves."""
    path = parsed(source, must_exist=False).path
    return path is not None and any(path.is_relative_to(result) for result in made)


def first_record(source, kind):
    """(whether it can be used, how it begins or what is wrong) of the first record of a source that meets its
    conditions, or of the next ones. kind: what it is taken for, text, chats, pairs, or a text or chat with a label."""
    name, text, bad, unwanted = source_name(source), "no records", 0, 0
    label = parsed(source, must_exist=False).label
    parsers = {"text": None, "chats": chats.from_record, "pairs": pairs.from_record, "label": partial(labelled, label)}
    try:
        for item in read(name + ("&" if "?" in name else "?") + "documents=1", parsers[kind]):
            if isinstance(item, Document):
                return True, "ok: " + " ".join(item.text.split())[:60]
            text = f"{item.rule}: {item.detail}"
            unwanted, bad = unwanted + (item.rule == "not_wanted"), bad + (item.rule != "not_wanted")
            if bad == SEVERAL or unwanted == MANY:
                break
        return False, text
    except UserError as error:
        return False, str(error)


def print_needs(steps, sources, processes):
    """Print the tokens, hours and disk space of a recipe's training stages."""
    trunk = next((step.settings for step in steps if step.stage == "pretrain"), None)
    tokenizer = next((step.settings for step in steps if step.stage == "tokenizer_train"), None)
    if not trunk or not tokenizer:
        return
    with torch.device("meta"):  # weights have shapes and take no memory
        model = Transformer(pretrain.model_config(trunk, tokenizer))
    found = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    name = next((card for card in PEAK_FLOPS if card in found), CARD)
    speed = PEAK_FLOPS[name]
    tokens, by_epochs = {}, []
    for step in steps:
        about, length = step.settings, getattr(step.settings, "max_steps", None)
        if step.stage == "grpo":  # its tokens are what the model writes
            continue
        if length:
            tokens[step.name] = length * (about.batch_tokens or trunk.batch_tokens)
        elif step.stage == "anneal":
            tokens[step.name] = about.decay_tokens
        elif hasattr(about, "epochs"):
            by_epochs.append(f"{step.name} ({about.epochs:g} epochs)")
    print(f"\n{model.n_params():,} parameters; hours on {processes} x {name} at {MFU:.0%} of its speed")
    print(f"{'stage':<12}{'tokens':>18}{'hours':>9}")
    for stage, count in tokens.items():
        hours = count * model.flops_per_token() / (processes * speed * MFU) / 3600
        print(f"{stage:<12}{count:>18,}{hours:>9,.1f}")
    if by_epochs:
        print(f"beside them {', '.join(by_epochs)}: their data have not been counted yet")
    disk = sum(parsed(source, must_exist=False).tokens for source in sources) * 4 + 16 * model.n_params() * 3
    free = shutil.disk_usage(".").free
    what = "for checkpoints and the shards of sources with a budget of tokens"
    print(f"disk: about {disk / 1e9:,.1f} GB {what}, {free / 1e9:,.1f} GB are free")
