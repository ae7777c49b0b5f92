"""Records of conversations as a careless export might leave them: real shapes whose values were swapped at any depth."""

import copy
import random

TURNS = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "a", "weight": 0},
    {"from": "human", "value": "q"},
    {"from": "gpt", "value": "a", "train": True},
    {"human": "q", "assistant": "a"},
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
    {"role": "user", "content": [{"type": "text", "text": "q"}, "r", {"type": "image_url", "image_url": {"url": "u"}}]},
    ["q", "a"],
    "q",
]
SHAPES = [
    {"messages": TURNS[:2]},
    {"conversations": TURNS[2:4], "system": "s"},
    {"conversation": TURNS[4:5]},
    {"instruction": "q", "input": "i", "output": "a", "history": [["q", "a"]], "system": "s"},
    {"instruction": "q", "instances": [{"input": "i", "output": "a"}]},
    {"chat": {"turn_1": {"Human": "<|Human|>: q<eoh>\n", "MOSS": "<|MOSS|>: a<eom>\n"}}, "meta_instruction": "s"},
    {"old_contents": "x\n", "new_contents": "```\ny", "message": "m", "subject": "m", "lang": "Python"},
    {"query": "q", "response": "a", "history": ["q", "a"]},
    {"prompt": "q", "completion": "a", "response": "a", "system_prompt": "s"},
    {"question": "q", "answer": "a"},
    {"type": "t", "input": "q", "output": "a"},
    [TURNS[0], TURNS[1]],
]
ODD = [
    None,
    True,
    False,
    0,
    1,
    -1,
    0.5,
    float("nan"),
    float("inf"),
    10**30,
    "",
    " ",
    "q",
    "\ud800",
    "\0",
    "```",
    "[",
    "{}",
]
ODD += ['[{"role": "user", "content": "q"}]', "[" * 2000, "user", "Human", "ab", [], {}, [[]], [{}], [None], [["q"]]]
ODD += [["q", "a", "b"], b"\xff", {"role": "user"}, {"type": "text", "text": 3}, {"text": "t"}, {"": {"": []}}, *TURNS]


def places(value, found):
    """All (container, key) below a value, so that container[key] can be replaced."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(items):
        found.append((value, key))
        places(child, found)
    return found


def record(rng):
    """A record of a known shape in which up to four values, anywhere, have been replaced, removed, renamed or added."""
    made = copy.deepcopy(rng.choice(SHAPES))
    if isinstance(made, dict) and rng.random() < 0.3:
        made |= copy.deepcopy(rng.choice(SHAPES[:-1]))
    for _ in range(rng.randrange(5)):
        targets = places(made, [])
        if not targets:
            return rng.choice(ODD)
        container, key = rng.choice(targets)
        action = rng.random()
        if action < 0.6:
            container[key] = copy.deepcopy(rng.choice(ODD))
        elif action < 0.75:
            del container[key]
        elif isinstance(container, dict):
            other = rng.choice(
                ["role", "from", "content", "value", "weight", "mask", "system", "history", "messages", "é"]
            )
            container[other] = copy.deepcopy(rng.choice([container[key], rng.choice(ODD)]))
        else:
            container.insert(key, copy.deepcopy(rng.choice(ODD)))
    return made


def records(seed, n):
    """n such records, the same for the same seed."""
    rng = random.Random(seed)
    return (record(rng) for _ in range(n))
