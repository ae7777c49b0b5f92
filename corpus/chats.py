"""Conversations: the record shapes of published instruction sets -> one list of messages.

Which fields a shape has, and what of them is the request and what the answer, stands in shapes.toml. Here is what a
template cannot say: lists of turns (turns.py), MOSS, commits, translations. Any record may have a system prompt beside
it, tools that are described there, and a history: a list of earlier turns. What cannot be used becomes a Problem:
empty_turn, not_text, wrong_role_order, no_assistant_turn, nothing_counted, unknown_role, unknown_weight, no_chat,
not_wanted.
"""

import hashlib
import json
import random
import re
from pathlib import Path

from configurator import UserError
from corpus import shapes
from corpus.documents import Problem, checked, field_names, plain
from corpus.records import DAMAGE, NOT_UTF8, opened_text
from corpus.shapes import is_blank, lowered
from corpus.turns import SYSTEM, Turn, Unusable, first_filled, kind, text_of, turn_list
from tokenizer import fenced

# Fields that are part of a request: a shape that does not read them would lose them without a word.
REQUEST = ("input", "context", "desc", "options", "choices", "passage", "document", "article", "table", "code")
HOW_TO_READ = "say how to read them, as in --sources='FILE?user={question}&assistant={reply}'"
LANGUAGES = {"en": "English", "zh": "Chinese", "de": "German", "fr": "French", "es": "Spanish", "ru": "Russian"}
LANGUAGES |= {"ja": "Japanese", "cs": "Czech", "fi": "Finnish", "ro": "Romanian", "tr": "Turkish", "hi": "Hindi"}


def from_record(record, where, shape=None):
    """A Document whose text is the conversation as JSON, {"messages": ..., "type": ...}, or the Problem it has.
    A message whose weight is 0 is not counted in the loss. shape: of all records, as shapes.toml has it; None = by the
    fields of each record."""
    try:
        return document(checked_turns(turns(record, shape)), record, where)
    except Unusable as error:
        return Problem(where, *error.args)


def document(found, record, where):
    """The Document of a record's Turns, with its type, or the Problem that its text has."""
    messages = []
    for turn in found:
        weight = {"weight": 0} if turn.role == "assistant" and not turn.counts else {}
        messages.append({"role": turn.role, "content": turn.content, **weight})
    chat = {"messages": messages}
    if isinstance(record, dict) and isinstance(record.get("type"), str):
        chat["type"] = record["type"]
    return checked(json.dumps(chat, ensure_ascii=False), where, {})


# -- from a record's shape to turns. Every function raises Unusable.


def turns(record, given=None):
    """The Turns of a record, with its system prompt and history in front. given: the shape, if it is known."""
    if record and isinstance(record, list) and all(isinstance(turn, dict) for turn in record):
        record = {"messages": record}
    if not isinstance(record, dict):
        raise Unusable("bad_json", "not an object")
    named = lowered(record)
    is_told = given and "user" in given  # which fields are read
    if named.get("label") is False and not is_told:  # KTO's (arXiv:2402.01306) for an answer that nobody should give
        raise Unusable("not_wanted", "its label is false, as KTO's of a bad answer; ?user=...&assistant=... reads it")
    shape = given if is_told else {**shape_of(named), **(given or {})}
    read = READERS.get(shape.get("read"))
    spoken = read(named, shape["fields"][0]) if read else pair(named, shape)
    found = turn_list(named, "history") + spoken
    found = [turn for turn in found if turn.role != "system" or turn.content.strip()]  # a blank one says nothing
    return with_system(found, system_prompt(named, shape))


def system_prompt(record, shape):
    """What a record says to the assistant beside the conversation: its system prompt, then the tools that it has."""
    if shape.get("system"):
        prompt = shapes.filled(shape["system"], record, text_of)
    else:
        name = first_filled(record, SYSTEM)
        prompt = text_of(record[name], name) if name else ""
    tools = record.get("tools")
    if is_blank(tools.strip(" []") if isinstance(tools, str) else tools):
        return prompt
    tools = tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)
    return f"{prompt}\n\nTools: {tools}".strip()


def with_system(found, prompt):
    """The Turns with a system prompt in front, unless that is what they begin with."""
    first = "".join(turn.content for turn in found[:1] if turn.role == "system")
    if not prompt.strip() or prompt.strip() == first.strip():
        return found
    return [Turn("system", prompt), *found]


def shape_of(record):
    """The shape that reads a record: of those whose fields it has, the one with the largest share of them in use. A
    table that holds records of several shapes gives each of them all the fields, the others' as null."""
    shape, largest = None, -1.0
    for candidate in shapes.possible("chats", tuple(record)):
        if (share := share_in_use(candidate, record)) > largest:
            shape, largest = candidate, share
        if largest == 1:
            break
    if shape is None:
        raise Unusable("no_chat", f"{field_names(record)}; {HOW_TO_READ}")
    if "user" in shape:
        used = shapes.fields_of(shape["user"]) | shapes.fields_of(shape["assistant"])
        unread = [name for name in REQUEST if name in record and name not in used and not is_blank(record[name])]
        if unread:
            raise Unusable("no_chat", f"{', '.join(unread)} would be lost: {field_names(record)}; {HOW_TO_READ}")
    return shape


def share_in_use(shape, record):
    """The share of a shape's fields that say something of the type it wants."""
    turns = {"turn_list": list, "moss": list | dict}.get(shape.get("read"), str | list | dict)
    in_use = 0
    for number, name in enumerate(shape["fields"]):
        value, wanted = record.get(name), str | list | dict if number else turns
        is_json = isinstance(value, str) and value.lstrip().startswith("[") and value.strip("[ \n]")
        in_use += not is_blank(value) and bool(is_json or isinstance(value, wanted))
    return in_use / len(shape["fields"])


def pair(record, shape):
    """The two Turns of a shape with templates. Either field may be a list of turns instead, as TRL has them."""
    found = []
    for role in ("user", "assistant"):
        name = shapes.only_field(shape[role])
        value = record.get(name)
        items = value if isinstance(value, list) else [value] if isinstance(value, dict) else ()
        if any(isinstance(item, dict) and item.keys() & {"role", "from"} for item in items):
            found += turn_list(record, name)
            continue
        text = shapes.filled(shape[role], record, text_of)
        if role == "assistant" and not text.strip():
            text = shape.get("otherwise", "")
        found.append(Turn(role, text))
    return found


def instances(record, name):
    """A seed task of Self-Instruct: an instruction with one input and its output."""
    tasks = record["instances"]
    if not isinstance(tasks, list) or len(tasks) != 1 or not isinstance(tasks[0], dict):
        raise Unusable("no_chat", "instances is not a list of one object")
    answer = first_filled(tasks[0], ("output", "response"))
    if answer is None:
        raise Unusable("no_chat", f"instances: {field_names(tasks[0])}")
    return pair({**tasks[0], name: record[name]}, {"user": "{instruction}\n{input}", "assistant": f"{{{answer}}}"})


def translated(record, name):
    """A text and what it is in another language; which of the two is asked for depends on the text alone."""
    texts = record[name]
    if not isinstance(texts, dict) or len(texts) != 2:
        raise Unusable("no_chat", f"{name} is not an object of two languages")
    pairs = [(language, text_of(text, f"{name}.{language}")) for language, text in sorted(texts.items())]
    if hashlib.sha256(pairs[0][1].encode("utf-8", "surrogatepass")).digest()[0] % 2:
        pairs.reverse()
    (_, question), (language, answer) = pairs
    asked = f"Translate into {LANGUAGES.get(language, language)}.\n\n{question}" if question.strip() else ""
    return [Turn("user", asked), Turn("assistant", answer)]


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


def commit(record, before):
    """A commit as a request, its message with the old file, and an answer, the new file. One that deletes a file or
    leaves its text alone, such as a renaming, has nothing to answer."""
    old, new = text_of(record[before], before), text_of(record["new_contents"], "new_contents")
    if not new.strip():
        raise Unusable("empty_turn", "the commit deletes the file")
    if old.rstrip() == new.rstrip():
        raise Unusable("no_chat", "the commit leaves the file as it is")
    name = first_filled(record, ("message", "subject"))
    message = text_of(record[name], name).rstrip() if name else ""
    language = str(record.get("lang") or "").lower()
    request = f"{message}\n\n{fenced(old, language)}" if old.strip() else message
    return [Turn("user", request if message.strip() else ""), Turn("assistant", fenced(new, language))]


READERS = {"turn_list": turn_list, "instances": instances, "moss": moss, "commit": commit, "translated": translated}


def checked_turns(found):
    """The Turns with line ends as Unix has them. Raises Unusable where they are no conversation: for a blank one, or an
    order other than a system prompt, then user and assistant by turns; and where the loss would count nothing."""
    for turn in found:
        turn.content = plain(turn.content)
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
    return found


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


def said(text):
    """What is said in a Document's text, by whom: two conversations in which that is equal are copies."""
    messages = json.loads(text)["messages"]
    return "\n".join(f"{message['role']}\n{message['content'].strip()}" for message in messages)


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
