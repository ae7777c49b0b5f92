"""Lists of turns, in every form that published conversations have: a turn is one of

    {"role": "user", "content": "..."}       OpenAI's; content may be a list of parts, which are joined
    {"from": "human", "value": "..."}        ShareGPT's
    {"human": "...", "assistant": "..."}     a question and its answer, under any of the names in SAID_BY
    ["...", "..."]                           the same as a list, or a role and what it says
    "...", "..."                             the same without brackets

weight: 0, loss: false and the like (see WEIGHTS) keep an answer out of the loss. Every function raises Unusable.
"""

import json
from dataclasses import dataclass

from corpus.documents import field_names
from corpus.shapes import is_blank

ROLES = dict.fromkeys(("system", "developer"), "system")
# A call of a tool is what the assistant says, and the tool answers in the user's place.
ROLES |= dict.fromkeys(("user", "human", "prompter", "observation"), "user")
ROLES |= dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "ai", "function_call"), "assistant")
SYSTEM = ("system", "system_prompt", "system_message", "meta_instruction")
# A turn without a role says by the name of a field who speaks. A question comes before its answer, in whatever order
# the fields are.
SAID_BY = dict.fromkeys(SYSTEM, "system")
SAID_BY |= dict.fromkeys(("user", "human", "question", "query", "prompt", "instruction", "input"), "user")
SAID_BY |= dict.fromkeys(("assistant", "gpt", "bot", "answer", "response", "completion", "output"), "assistant")
# 0 or false keeps a turn out of the loss: OpenAI's weight, ms-swift's and XTuner's loss, Axolotl's train.
WEIGHTS = ("weight", "loss", "train", "training", "trainable", "train_detail", "loss_weight", "loss_mask", "mask")
KINDS = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "text"}
KINDS |= {list: "a list", dict: "an object"}


@dataclass(slots=True)
class Turn:
    """One message of a conversation."""

    role: str  # system, user or assistant
    content: str
    counts: bool = True  # whether the loss counts it, where the assistant speaks


class Unusable(Exception):
    """A record that is no conversation to train on. Its arguments are the rule and the detail of a Problem."""


def kind(value):
    """What a value is, in words."""
    return KINDS.get(type(value), type(value).__name__)


def shown(value):
    """A value as a Problem's detail shows it."""
    return ascii(value)[:80]


def text_of(value, name):
    """The text of a field: its own, or that of its parts. name: what to call it where it is anything else."""
    if isinstance(value, str):
        return value
    if is_blank(value):
        return ""
    if not isinstance(value, list):
        raise Unusable("not_text", f"{name} is {kind(value)}, not text")
    if len(value) > 1 and all(isinstance(part, str) for part in value):  # answers to choose from, say
        raise Unusable("not_text", f"{name} is a list of {len(value)} texts, not one")
    return "".join(part_text(part, name) for part in value)


def part_text(part, name):
    """The text of a part of a message: a text or {"type": "text", "text": ...}. As chat templates do, nothing is put
    between the parts."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise Unusable("not_text", f"{name} has a part that is {kind(part)}, not text")
    if part.get("type", "text") in ("text", "input_text", "output_text") and isinstance(part.get("text"), str):
        return part["text"]
    what = shown(part["type"]) if "type" in part else kind(part)
    raise Unusable("not_text", f"{name} has a part that is {what}, not text")


def turn_list(record, name):
    """The Turns of a field that is a list of them, or such a list as JSON."""
    items = record.get(name)
    if is_blank(items):
        return []
    if isinstance(items, str):
        try:
            items = json.loads(items)
        except (ValueError, RecursionError):
            pass  # it is text, then
    columns = list(items.values()) if isinstance(items, dict) else []
    if columns and all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        items = [dict(zip(items, row)) for row in zip(*columns)]  # a Sequence of datasets: {"role": [...], ...}
    if not isinstance(items, list):
        raise Unusable("no_chat", f"{name} is {kind(items)}, not a list")
    if all(isinstance(item, str) for item in items):  # [question, answer, question, answer]
        if len(items) % 2:
            raise Unusable("no_chat", f"{name} is {len(items)} texts: a question or an answer is missing")
        items = [items[i : i + 2] for i in range(0, len(items), 2)]
    found, before = [], None
    for number, item in enumerate(items, 1):
        place = f"{name}, turn {number}"
        if isinstance(item, dict):
            speaker = item.get("from") or item.get("role")
            if speaker == "observation" and before != "function_call":
                raise Unusable("unknown_role", f"{place}: 'observation' without a function_call before it")
            found += turns_of(item, place)
            before = speaker
        elif isinstance(item, list) and len(item) == 2:
            first, second = [text_of(part, place) for part in item]
            if role := ROLES.get(first.strip().lower()):
                found.append(Turn(role, second))
            else:
                found += [Turn("user", first), Turn("assistant", second)]
        else:
            what = f"a list of {len(item)}" if isinstance(item, list) else kind(item)
            raise Unusable("no_chat", f"{place} is {what}, neither a turn nor a question and its answer")
    return found


def turns_of(item, place):
    """The Turns of one object: one turn that names its role, or a question and its answer."""
    for name in ("tool_calls", "function_call"):
        if not is_blank(item.get(name)):
            raise Unusable("not_text", f"{place}: {name} is {kind(item[name])}, not text")
    counts = is_counted(item, place)
    role = first_filled(item, ("role", "from"))
    if role:
        name = first_filled(item, ("content", "value", "text")) or "content"
        said_by = ROLES.get(item[role].strip().lower()) if isinstance(item[role], str) else None
        if not said_by:
            raise Unusable("unknown_role", f"{place}: {shown(item[role])}")
        return [Turn(said_by, text_of(item.get(name), f"{place}: {name}"), counts)]
    found = []
    for name, value in item.items():
        if str(name).lower() in SAID_BY and not is_blank(value):
            found.append(Turn(SAID_BY[str(name).lower()], text_of(value, f"{place}: {shown(name)}"), counts))
    if not found:
        raise Unusable("unknown_role" if "role" in item else "no_chat", f"{place}: {field_names(item)}")
    return sorted(found, key=lambda turn: ("system", "user", "assistant").index(turn.role))


def first_filled(record, names):
    """The first of these fields that says something, or None."""
    return next((name for name in names if not is_blank(record.get(name))), None)


def is_counted(item, place):
    """Whether the loss counts a turn. What is not plainly yes or no is refused: half a weight can't be given, and
    mask: true means "counted" in one data set and "left out" in the next."""
    counts = True
    for name in WEIGHTS:
        value = item.get(name)
        if is_blank(value):
            continue
        is_plain = isinstance(value, int | float) and value in (0, 1)
        if not is_plain or (name == "mask" and isinstance(value, bool)):
            raise Unusable("unknown_weight", f"{place}: {name} is {shown(value)}")
        counts = counts and bool(value)
    return counts
