"""Names and sentences for exercises: words.txt, kinds.toml and frames.txt.

A tenth of all names, nouns, frames and phrases is held out: training never sees them, the ladder of test problems asks
for them. The hash of a word decides, so that a word that is added stays on its side.
"""

import hashlib
import re
import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent
HELD_OUT = 0.1  # share of names and nouns


def sections(path):
    """{"noun": the lines of a file under [noun]}."""
    found, lines = {}, []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            lines = found[line.strip("[]")] = []
        elif line.strip() and not line.startswith("#"):
            lines.append(line.strip())
    return found


def is_held_out(text, share=HELD_OUT):
    """Whether a text is for tests only."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) < share * 2**64


def phrases_of(operation, held_out=False):
    """The phrases of an operation that are for training, or those that are not. Where there are few, all are for
    training."""
    phrases = list(dict.fromkeys(operation.phrases))
    if len(phrases) < 5:
        return [] if held_out else phrases
    # Without the names in slots: the same wording of the same operation in another table is on the same side.
    return [phrase for phrase in phrases if is_held_out(re.sub(r"{\w+", "{", phrase[1])) == held_out]


WORDS = {name: " ".join(lines).split() for name, lines in sections(FOLDER / "words.txt").items() if name != "locals"}
LOCALS = [line.split() for line in sections(FOLDER / "words.txt")["locals"]]
SENTENCES = sections(FOLDER / "frames.txt")
FRAMES = {"": SENTENCES["noun"], "!": SENTENCES["imperative"], "?": SENTENCES["clause"]}
KINDS = tomllib.loads((FOLDER / "kinds.toml").read_text(encoding="utf-8"))
# Kinds that are called like another one.
CALLED = {"ints1": "ints", "nats": "ints", "sorted": "ints", "floats1": "floats", "words1": "words"}
CALLED |= {"counts1": "counts", "square": "matrix", "index": "nat", "size": "nat"}


def plural(noun):
    """Several of it: cities, boxes, prices."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def pool(words, held_out):
    """Those of the words that are held out, or the others."""
    return [word for word in words if is_held_out(word) == held_out]


NOUNS = {
    (item, held_out): pool(WORDS[section], held_out)
    for item, section in (("int", "amounts"), ("float", "amounts"), ("word", "things"))
    for held_out in (False, True)
}
TRAINING = {section: pool(words, False) for section, words in WORDS.items()}
IDENTIFIERS = {held_out: pool(WORDS["identifiers"] + WORDS["plain"], held_out) for held_out in (False, True)}


def random_name(rng, held_out=False):
    """A name of the standard library, of two or three words, or invented. What is held out is the whole name, and in it
    no word that is held out as a noun."""
    for _ in range(1000):
        form = rng.random()
        if form < 0.4:
            return rng.choice(IDENTIFIERS[held_out])
        if form < 0.75:
            words = [rng.choice(TRAINING["verbs"]), rng.choice(TRAINING["amounts"] + TRAINING["things"])]
            words[1] = rng.choice([words[1], plural(words[1])])
            words[1:1] = [rng.choice(TRAINING["adjectives"])] if rng.random() < 0.25 else []
            name = "_".join(words)
        elif form < 0.85:
            name = "_".join(rng.choice(TRAINING[kind]) for kind in ("adjectives", "things"))
        else:
            name = "".join(rng.choice(WORDS["invented"]) for _ in range(rng.randint(2, 4)))
        if is_held_out(name) == held_out:
            return camel(name) if rng.random() < 0.05 else name
    raise AssertionError("words.txt holds too few words")


def camel(name):
    """findPrice for find_price."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


EXAMPLES, REQUESTS = SENTENCES["example"], SENTENCES["request"]
CHAT = [line for line in (FOLDER / "chat.txt").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
