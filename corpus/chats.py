"""Conversations: the record shapes of published instruction sets -> one list of messages.

    messages        [{"role", "content"}, ...]                            OpenAI's
    conversations   [{"from": "human" | "gpt" | "system", "value"}, ...]  ShareGPT's
    alpaca          instruction, input, output or response; history; system; seed tasks with one entry in instances
    pairs           query and response, prompt and response or completion, question and answer
    commits         message or subject, old_contents: the request; new_contents: the answer (CommitPackFT)
    chat            turns of MOSS: what was said; its inner thoughts and tool calls are left out
    tasks           type, input, output: the words around the input are drawn from prompt files (see Prompts)

What cannot be used becomes a Problem: empty_turn, wrong_role_order, no_assistant_turn, unknown_role, no_chat.
"""

import hashlib
import json
import random
import re
from pathlib import Path

from configurator import UserError
from corpus.documents import Problem, checked, field_names
from tokenizer import fenced

ROLES = {"user": "user", "human": "user", "system": "system"}
ROLES |= dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant")
PAIRS = (("query", "response"), ("prompt", "response"), ("prompt", "completion"), ("question", "answer"))


def from_record(record, where):
    """A Document whose text is the conversation as JSON, {"messages": ..., "type": ...}, or the Problem it has."""
    if not isinstance(record, dict):
        return Problem(where, "bad_json", "not an object")
    try:
        messages = turns(record)
        if messages is None:
            return Problem(where, "no_chat", field_names(record))
        if found := fault(messages):
            return Problem(where, *found)
        chat = {"messages": [{"role": ROLES[role], "content": content} for role, content in messages]}
        if isinstance(record.get("type"), str):
            chat["type"] = record["type"]
        return checked(json.dumps(chat, ensure_ascii=False), where, {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Problem(where, "no_chat", f"{type(error).__name__}: {error}")


# -- from a record's shape to turns: [(role as the record names it, content), ...]


def turns(record):
    """The turns of a record, or None if it has no known shape. Raises KeyError, TypeError, ValueError or
    AttributeError for a record that has only the first signs of a known shape."""
    if "messages" in record:
        return [(message["role"], message["content"]) for message in record["messages"]]
    if "conversations" in record:
        is_sharegpt = all("from" in turn for turn in record["conversations"])
        role, content = ("from", "value") if is_sharegpt else ("role", "content")
        return system(record) + [(turn[role], turn[content]) for turn in record["conversations"]]
    if "instruction" in record:
        return system(record) + alpaca(record)
    if "chat" in record:
        return system(record) + moss(record)
    if "old_contents" in record and "new_contents" in record:
        return commit(record)
    for question, answer in PAIRS:
        if question in record and answer in record:
            return system(record) + [("user", record[question]), ("assistant", record[answer])]
    if "type" in record and "input" in record and "output" in record:
        return [("user", record["input"]), ("assistant", record["output"])]
    return None


def system(record):
    """The turn with the system's prompt, if a record has one."""
    text = record.get("system") or record.get("system_prompt") or record.get("meta_instruction") or ""
    return [("system", text)] if text.strip() else []


def alpaca(record):
    """The turns of an instruction with its answer, and of the history before them."""
    if "instances" in record:
        (instance,) = record["instances"]
        record = {**instance, "instruction": record["instruction"]}
    request = "\n".join(part for part in (record["instruction"], record.get("input")) if part)
    answer = record["output"] if "output" in record else record["response"]
    found = []
    for question, reply in [*(record.get("history") or []), (request, answer)]:
        found += [("user", question), ("assistant", reply)]
    return found


def moss(record):
    """The turns of a conversation of MOSS without the marks around each turn, <|Human|>: ... <eoh>."""
    found = []
    for turn in record["chat"].values():
        for role, name in (("user", "Human"), ("assistant", "MOSS")):
            found.append((role, re.sub(r"^<\|(Human|MOSS)\|>: ?|<eo[hm]>\s*$", "", turn[name])))
    return found


def commit(record):
    """A commit as a request, its message with the old file, and an answer, the new file."""
    message = record.get("message") or record.get("subject") or ""
    language = str(record.get("lang") or "").lower()
    request = f"{message}\n\n{fenced(record['old_contents'], language)}" if record["old_contents"].strip() else message
    return [("user", request if message.strip() else ""), ("assistant", fenced(record["new_contents"], language))]


def fault(messages):
    """(rule, detail) of what is wrong with a conversation, or None."""
    for number, (role, content) in enumerate(messages, 1):
        if role not in ROLES:
            return "unknown_role", f"turn {number}: {role!r}"
        if not isinstance(content, str) or not content.strip():
            return "empty_turn", f"turn {number}, {role}"
    roles = [ROLES[role] for role, _ in messages]
    if "assistant" not in roles:
        return "no_assistant_turn", f"{len(roles)} turns"
    spoken = roles[1:] if roles[0] == "system" else roles
    if any(role != "user" for role in spoken[0::2]) or any(role != "assistant" for role in spoken[1::2]):
        return "wrong_role_order", " ".join(roles[:6])
    return None


# -- what may be done to a request before it is tokenized


class Prompts:
    """A folder of prompt files, <type>.pre.prompt and <type>.post.prompt, one prompt a line. A conversation of that
    type gets one of them, drawn at random, in front of its first request or behind it (as in BiLLa). Raises UserError
    for a folder without such files and for a file with another name or encoding."""

    def __init__(self, folder):
        self.by_type = {}  # {type: [("pre" or "post", prompt), ...]}
        for path in sorted(Path(folder).glob("*.prompt")) if folder else ():
            kind, _, place = path.name.removesuffix(".prompt").rpartition(".")
            if place not in ("pre", "post"):
                raise UserError(f"{path} is neither <type>.pre.prompt nor <type>.post.prompt")
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError as error:
                raise UserError(f"{path} is not UTF-8: {error}") from None
            self.by_type.setdefault(kind, []).extend((place, line) for line in lines if line.strip())
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
