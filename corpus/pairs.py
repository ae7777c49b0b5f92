"""Pairs: a prompt with two answers, of which the first is the better one, as people or tests have found.

The prompt is in any shape of a conversation (shapes.toml), the answers are in the fields chosen and rejected:

    {"prompt": "...", "chosen": "...", "rejected": "..."}                                  texts
    {"conversations": [...], "chosen": {"from": "gpt", "value": "..."}, "rejected": ...}   turns, or lists of turns
    {"chosen": [{"role": "user", ...}, ...], "rejected": [...]}                            whole conversations

What cannot be used becomes a Problem: one of those of chats.py, no_pair or same_answer.
"""

import json

from corpus import chats
from corpus.documents import Problem, field_names
from corpus.shapes import lowered
from corpus.turns import Turn, Unusable, turn_list

ANSWERS = ("chosen", "rejected")


def from_record(record, where, shape=None):
    """A Document whose text is {"messages": [..., chosen answer, rejected answer]} as JSON, or the Problem that the
    record has. Earlier answers in the prompt have weight 0: the loss counts the two alone. shape: as in chats.py."""
    try:
        chosen, rejected = (conversation(record, name, shape) for name in ANSWERS)
        if chosen[:-1] != rejected[:-1]:
            raise Unusable("no_pair", "the conversations differ before their last turns")
        if chosen[-1] == rejected[-1]:
            raise Unusable("same_answer", "chosen and rejected are the same")
    except Unusable as error:
        return Problem(where, *error.args)
    for turn in chosen[:-1]:
        turn.counts = False
    return chats.document([*chosen, rejected[-1]], record, where)


def conversation(record, name, shape):
    """The Turns of a record with the answer in one of its fields, which is the last of them. Raises Unusable."""
    if not isinstance(record, dict):
        raise Unusable("bad_json", "not an object")
    named = lowered(record)
    if missing := [answer for answer in ANSWERS if answer not in named]:
        raise Unusable("no_pair", f"there is no {' and no '.join(missing)}: {field_names(record)}")
    answer, prompt = named[name], {key: value for key, value in named.items() if key not in ANSWERS}
    if isinstance(answer, str):
        said = [Turn("assistant", answer)]
    else:
        said = turn_list({name: [answer] if isinstance(answer, dict) else answer}, name) or [Turn("assistant", "")]
    if said[0].role == "assistant":
        # The shapes that have a prompt have an answer too. Of a conversation that holds the answer already, the prompt
        # is what comes before it.
        asked = chats.turns({**prompt, "response": "?"}, shape)
        said = [*(asked[:-1] if asked and asked[-1].role == "assistant" else asked), *said]
    else:
        said = chats.with_system(said, chats.system_prompt(prompt, shape or {}))
    said = chats.checked_turns(said)
    if said[-1].role != "assistant":
        raise Unusable("no_pair", f"{name} does not end with an answer")
    said[-1].counts = True
    return said


def prompt_of(text):
    """The prompt in a Document's text. It decides whether a pair is for validation, so that pairs with one prompt are
    all on one side."""
    return json.dumps(json.loads(text)["messages"][:-2])


def rendered(messages, tokenizer):
    """(ids, loss mask) of the messages of a pair: the conversation with the chosen answer, <|endoftext|>, which opens a
    document, and the one with the rejected answer."""
    *prompt, chosen, rejected = messages
    ids, mask = tokenizer.render([*prompt, chosen])
    other_ids, other_mask = tokenizer.render([*prompt, rejected])
    return [*ids, tokenizer.eot, *other_ids], [*mask, 0, *other_mask]
