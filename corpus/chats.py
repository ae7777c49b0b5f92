"""Conversations: the record shapes of published instruction sets -> one list of messages.

    messages        [{"role", "content"}, ...]                            OpenAI's
    conversations   [{"from": "human" | "gpt" | "system", "value"}, ...]  ShareGPT's
    alpaca          instruction, input, output or response; history; system; seed tasks with one entry in instances
    pairs           query and response, prompt and response or completion, question and answer
    commits         old_contents, new_contents, message or subject (CommitPackFT): the message asks, the new file answers
    chat            turns of MOSS: what was said; its inner thoughts and tool calls are left out
    tasks           type, input, output: the words around the input are drawn from prompt files (see Prompts)

A conversation that cannot be used becomes a Problem: empty_turn, wrong_role_order, no_assistant_turn, unknown_role, no_chat.
"""

import hashlib
import json
import random
import re
from pathlib import Path

from configurator import UserError
from corpus.documents import Document, Problem
from tokenizer import fenced

ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
    "system": "system",
}
PAIRS = (("query", "response"), ("prompt", "response"), ("prompt", "completion"), ("question", "answer"))


def from_record(record, where):
    """A Document whose text is the conversation as JSON, {"messages": ..., "type": ...}, or the Problem that it has."""
    if not isinstance(record, dict):
        return Problem(where, "bad_json", "not an object")
    try:
        messages = turns(record)
        if messages is None:
            return Problem(where, "no_chat", "fields: " + ", ".join(map(str, record))[:200])
        if problem := fault(messages):
            return Problem(where, *problem)
        chat = {"messages": [{"role": ROLES[role], "content": content} for role, content in messages]}
        if isinstance(record.get("type"), str):
            chat["type"] = record["type"]
        text = json.dumps(chat, ensure_ascii=False)
        text.encode("utf-8")
        return Document(text, where)
    except UnicodeEncodeError:
        return Problem(where, "bad_utf8", "half of a surrogate pair")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Problem(where, "no_chat", f"{type(error).__name__}: {error}")


def turns(record):
    """[(role as the record names it, content)], or None for a record of no known shape."""
    if "messages" in record:
        return [(message["role"], message["content"]) for message in record["messages"]]
    if "conversations" in record:
        named = ("from", "value") if all("from" in turn for turn in record["conversations"]) else ("role", "content")
        return system(record) + [tuple(turn[name] for name in named) for turn in record["conversations"]]
    if "instruction" in record:
        return system(record) + alpaca(record)
    if "chat" in record:
        return system(record) + [
            (role, moss_text(turn[name]))
            for turn in record["chat"].values()
            for role, name in (("user", "Human"), ("assistant", "MOSS"))
        ]
    if "old_contents" in record and "new_contents" in record:
        message = record.get("message") or record.get("subject") or ""
        language = str(record.get("lang") or "").lower()
        request = (
            f"{message}\n\n{fenced(record['old_contents'], language)}" if record["old_contents"].strip() else message
        )
        return [("user", request if message.strip() else ""), ("assistant", fenced(record["new_contents"], language))]
    for question, answer in PAIRS:
        if question in record and answer in record:
            return system(record) + [("user", record[question]), ("assistant", record[answer])]
    if "type" in record and "input" in record and "output" in record:
        return [("user", record["input"]), ("assistant", record["output"])]
    return None


def system(record):
    text = record.get("system") or record.get("system_prompt") or record.get("meta_instruction") or ""
    return [("system", text)] if text.strip() else []


def alpaca(record):
    if "instances" in record:
        (instance,) = record["instances"]
        record = {**instance, "instruction": record["instruction"]}
    request = "\n".join(part for part in (record["instruction"], record.get("input")) if part)
    answer = record["output"] if "output" in record else record["response"]
    past = [
        turn for question, reply in record.get("history") or [] for turn in (("user", question), ("assistant", reply))
    ]
    return [*past, ("user", request), ("assistant", answer)]


def moss_text(turn):
    """A turn of MOSS without its marks, <|Human|>: ... <eoh>."""
    return re.sub(r"<eo[hm]>\s*$", "", re.sub(r"^<\|(Human|MOSS)\|>: ?", "", turn))


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
    if any(role != ("user", "assistant")[i % 2] for i, role in enumerate(spoken)):
        return "wrong_role_order", " ".join(roles[:6])
    return None


# -- what may be done to a request before it is tokenized


class Prompts:
    """A folder of prompt files, <type>.pre.prompt and <type>.post.prompt, one prompt a line. A conversation of that type
    gets one of them, drawn at random, in front of its first request or behind it (as in BiLLa)."""

    def __init__(self, folder):
        self.by_type = {}
        for path in sorted(Path(folder).glob("*.prompt")) if folder else ():
            kind, _, place = path.name.removesuffix(".prompt").rpartition(".")
            if place not in ("pre", "post"):
                raise UserError(f"{path} is neither <type>.pre.prompt nor <type>.post.prompt")
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            self.by_type.setdefault(kind, []).extend((place, line) for line in lines)
        if folder and not self.by_type:
            raise UserError(f"no prompt files in {folder}: they are named <type>.pre.prompt and <type>.post.prompt")

    def applied(self, kind, request, rng):
        if kind not in self.by_type:
            return request
        place, prompt = rng.choice(self.by_type[kind])
        return f"{prompt}\n{request}" if place == "pre" else f"{request}\n{prompt}"


def noisy(text, share, rng):
    """text with a share of its characters deleted (one in five of them) or repeated once or twice: a model that has
    read such requests understands typing errors."""
    out = []
    for char in text:
        times = 1 if rng.random() >= share else 0 if rng.random() < 0.2 else 1 + rng.randint(1, 2)
        out.append(char * times)
    return "".join(out)


def finished(text, prompts, char_noise):
    """The messages of a Document's text, prompts and noise applied; what is drawn depends on the text alone."""
    chat = json.loads(text)
    messages = chat["messages"]
    rng = random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))
    first = next(message for message in messages if message["role"] == "user")
    first["content"] = prompts.applied(chat.get("type"), first["content"], rng)
    for message in messages if char_noise else ():
        if message["role"] == "user":
            message["content"] = noisy(message["content"], char_noise, rng) or message["content"]
    return messages
