"""Conversations: the record shapes of published instruction sets -> one list of messages.

    messages, conversations, conversation    lists of turns
    alpaca          instruction, input, output or response; seed tasks with one entry in instances
    pairs           query, prompt or question; response, completion or answer; the two may be lists of turns (TRL)
    commits         message or subject, old_contents: the request; new_contents: the answer (CommitPackFT)
    chat            turns of MOSS: what was said; its inner thoughts and tool calls are left out
    tasks           type, input, output: the words around the input are drawn from prompt files (see Prompts)

Each of them may have a system prompt beside it, and a history: a list of earlier turns. A turn of a list is one of

    {"role": "user", "content": "..."}       OpenAI's; content may be a list of parts, which are joined
    {"from": "human", "value": "..."}        ShareGPT's
    {"human": "...", "assistant": "..."}     a question and its answer, under any of the names in SAID_BY
    ["...", "..."]                           the same as a list, or a role and what it says
    "...", "..."                             the same without brackets

weight: 0, loss: false and the like (see WEIGHTS) keep an answer out of the loss. What cannot be used becomes a Problem:
empty_turn, not_text, wrong_role_order, no_assistant_turn, nothing_counted, unknown_role, unknown_weight, no_chat.
"""

import hashlib
import json
import math
import random
import re
from dataclasses import dataclass
from pathlib import Path

from configurator import UserError
from corpus.documents import Problem, checked, field_names, plain
from corpus.records import DAMAGE, NOT_UTF8, opened_text
from tokenizer import fenced

ROLES = dict.fromkeys(("system", "developer"), "system")
ROLES |= dict.fromkeys(("user", "human", "prompter"), "user")
ROLES |= dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "ai"), "assistant")
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


def from_record(record, where):
    """A Document whose text is the conversation as JSON, {"messages": ..., "type": ...}, or the Problem it has.
    A message whose weight is 0 is not counted in the loss."""
    try:
        found = turns(record)
        for turn in found:
            turn.content = plain(turn.content)
        check(found)
    except Unusable as error:
        return Problem(where, *error.args)
    messages = []
    for turn in found:
        weight = {"weight": 0} if turn.role == "assistant" and not turn.counts else {}
        messages.append({"role": turn.role, "content": turn.content, **weight})
    chat = {"messages": messages}
    if isinstance(record, dict) and isinstance(record.get("type"), str):
        chat["type"] = record["type"]
    return checked(json.dumps(chat, ensure_ascii=False), where, {})


# -- from a record's shape to turns. Every function raises Unusable.


def turns(record):
    """The Turns of a record, with its system prompt and history in front."""
    if record and isinstance(record, list) and all(isinstance(turn, dict) for turn in record):
        record = {"messages": record}
    if not isinstance(record, dict):
        raise Unusable("bad_json", "not an object")
    read, fields = shape(record)
    found = turn_list(record, "history") + read(record, *fields)
    found = [turn for turn in found if turn.role != "system" or turn.content.strip()]  # a blank one says nothing
    first = "".join(turn.content for turn in found[:1] if turn.role == "system")
    for name in SYSTEM:
        if not is_blank(record.get(name)):
            prompt = text_of(record[name], name)
            return found if prompt.strip() == first.strip() else [Turn("system", prompt), *found]
    return found


def shape(record):
    """(function, fields) that read a record: of the shapes whose fields it has, the one with the largest share of them
    in use. A table that holds records of several shapes gives each of them all the fields, the others' as null."""

    def share_in_use(candidate):
        """How many of a shape's fields say something of the type it wants."""
        read, fields = candidate
        wanted = {turn_list: list, moss: list | dict}.get(read, str | list)
        in_use = 0
        for value in map(record.get, fields):
            is_json = isinstance(value, str) and value.lstrip().startswith("[") and value.strip("[ \n]")
            in_use += not is_blank(value) and bool(is_json or isinstance(value, wanted))
        return in_use / len(fields)

    possible = [(read, fields) for read, *fields in SHAPES if record.keys() >= set(fields)]
    if not possible:
        raise Unusable("no_chat", field_names(record))
    return max(possible, key=share_in_use)


def is_blank(value):
    """Whether a field says nothing: null, blank text, an empty list or object, or NaN, pandas' null."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, list | dict):
        return not value
    return value is None or (isinstance(value, float) and math.isnan(value))


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
    found = []
    for number, item in enumerate(items, 1):
        place = f"{name}, turn {number}"
        if isinstance(item, dict):
            found += turns_of(item, place)
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


def pair(record, question, answer, _kind=None):
    """A question, with its context on the lines below, and its answer. Each may be a list of turns instead."""
    found = []
    for role, names in (("user", (question, "context")), ("assistant", (answer,))):
        value = record[names[0]]
        items = value if isinstance(value, list) else [value]
        if any(isinstance(item, dict) and item.keys() & {"role", "from"} for item in items):
            found += turn_list(record, names[0])
        else:
            parts = [text_of(record.get(name), name) for name in names]
            found.append(Turn(role, "\n".join(filter(None, parts))))
    return found


def alpaca(record, instruction, answer):
    """An instruction, with its input and its context on the lines below, and the answer."""
    if answer == "instances":
        instances = record["instances"]
        if not isinstance(instances, list) or len(instances) != 1 or not isinstance(instances[0], dict):
            raise Unusable("no_chat", "instances is not a list of one object")
        record = {**instances[0], "instruction": record["instruction"]}
        answer = first_filled(record, ("output", "response"))
        if answer is None:
            raise Unusable("no_chat", f"instances: {field_names(instances[0])}")
    parts = [text_of(record[instruction], instruction), text_of(record.get("input"), "input")]
    request = "\n".join(part for part in parts if part)
    return pair({**record, instruction: request}, instruction, answer)


def moss(record, name):
    """The turns of a conversation of MOSS without the marks around each turn, <|Human|>: ... <eoh>."""
    chat = record[name]
    if not isinstance(chat, dict):
        return turn_list(record, name)
    found = []
    for number, turn in enumerate(chat.values(), 1):
        if not isinstance(turn, dict):
            raise Unusable("no_chat", f"{name}, turn {number} is {kind(turn)}, not an object")
        for role, field in (("user", "Human"), ("assistant", "MOSS")):
            said = text_of(turn.get(field), f"{name}, turn {number}: {field}")
            found.append(Turn(role, re.sub(r"^<\|(Human|MOSS)\|>: ?|<eo[hm]>\s*$", "", said)))
    return found


def commit(record, before, after):
    """A commit as a request, its message with the old file, and an answer, the new file. One that deletes a file or
    leaves its text alone, such as a renaming, has nothing to answer."""
    old, new = text_of(record[before], before), text_of(record[after], after)
    if not new.strip():
        raise Unusable("empty_turn", "the commit deletes the file")
    if old.rstrip() == new.rstrip():
        raise Unusable("no_chat", "the commit leaves the file as it is")
    name = first_filled(record, ("message", "subject"))
    message = text_of(record[name], name) if name else ""
    language = str(record.get("lang") or "").lower()
    request = f"{message}\n\n{fenced(old, language)}" if old.strip() else message
    return [Turn("user", request if message.strip() else ""), Turn("assistant", fenced(new, language))]


SHAPES = [(turn_list, name) for name in ("messages", "conversations", "conversation")]
SHAPES += [(alpaca, "instruction", answer) for answer in ("instances", "output", "response")]
SHAPES += [(moss, "chat"), (commit, "old_contents", "new_contents")]
SHAPES += [(pair, "query", "response"), (pair, "prompt", "response"), (pair, "prompt", "completion")]
SHAPES += [(pair, "question", "answer"), (pair, "input", "output", "type")]
SHAPES += [(pair, "question", "response"), (pair, "query", "answer"), (pair, "prompt", "answer")]


def check(found):
    """Raise Unusable for Turns that are no conversation: a blank one, or an order other than a system prompt, then
    user and assistant by turns; and where the loss would count nothing."""
    for number, turn in enumerate(found, 1):
        if not turn.content.strip():
            raise Unusable("empty_turn", f"turn {number}, {turn.role}")
    roles = [turn.role for turn in found]
    if "assistant" not in roles:
        raise Unusable("no_assistant_turn", f"{len(roles)} turns")
    spoken = roles[1:] if roles[0] == "system" else roles
    if any(role != "user" for role in spoken[0::2]) or any(role != "assistant" for role in spoken[1::2]):
        raise Unusable("wrong_role_order", " ".join(roles[:6]))
    if not any(turn.counts for turn in found if turn.role == "assistant"):
        raise Unusable("nothing_counted", "the weight of every answer is 0")


# -- what may be done to a request before it is tokenized


class Prompts:
    """A folder of prompt files, <type>.pre.prompt and <type>.post.prompt, one prompt a line. A conversation of that
    type gets one of them, drawn at random, in front of its first request or behind it (as in BiLLa). Raises UserError
    for a folder without such files and for a file with another name or encoding, or without a prompt."""

    def __init__(self, folder):
        self.by_type = {}  # {type: [("pre" or "post", prompt), ...]}
        for path in sorted(Path(folder).glob("*.prompt")) if folder else ():
            kind, _, place = path.name.removesuffix(".prompt").rpartition(".")
            if place not in ("pre", "post"):
                raise UserError(f"{path} is neither <type>.pre.prompt nor <type>.post.prompt")
            try:
                with opened_text(path) as file:
                    text = file.read()
            except DAMAGE as error:
                raise UserError(f"cannot read {path}: {error}") from None
            if "\0" in text or NOT_UTF8.search(text):
                raise UserError(f"{path} is not UTF-8")
            found = [(place, line) for line in text.splitlines() if line.strip()]
            if not found:
                raise UserError(f"{path} holds no prompt: write one a line")
            self.by_type.setdefault(kind, []).extend(found)
        if folder and not self.by_type:
            raise UserError(f"no prompt files in {folder}: they are named <type>.pre.prompt and <type>.post.prompt")

    def applied(self, kind, request, rng):
        """The request of a conversation with a prompt for its type (kind); unchanged if there is no prompt for it."""
        if kind not in self.by_type:
            return request
        place, prompt = rng.choice(self.by_type[kind])
        return f"{prompt}\n{request}" if place == "pre" else f"{request}\n{prompt}"


def noisy(text, share, rng):
    """Mistype a share of a text's characters: one in five of these is deleted, the others are repeated once or twice.
    A model that has read such requests understands typing errors."""
    out = []
    for char in text:
        times = 1
        if rng.random() < share:
            times = 0 if rng.random() < 0.2 else 1 + rng.randint(1, 2)
        out.append(char * times)
    return "".join(out)


def finished(text, prompts, char_noise):
    """The messages of a Document's text, with prompts and noise applied. What is drawn depends on the text alone."""
    chat = json.loads(text)
    messages = chat["messages"]
    rng = random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))
    requests = [message for message in messages if message["role"] == "user"]
    requests[0]["content"] = prompts.applied(chat.get("type"), requests[0]["content"], rng)
    for message in requests if char_noise else ():
        message["content"] = noisy(message["content"], char_noise, rng) or message["content"]
    return messages
