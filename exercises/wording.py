"""Names and sentences for exercises: words.txt and frames.txt.

A tenth of all names and phrases is held out: training never sees them, the ladder of test problems asks for them. The
hash of a text decides, so that what is added changes no side. Of nouns, words.txt says which are held out.
"""

import functools
import hashlib
import re
from pathlib import Path

FOLDER = Path(__file__).parent
HELD_OUT = 0.1  # share of names, phrases and chains


def sections(path):
    """{"noun": the lines of a file under [noun]}."""
    found, lines = {}, []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            lines = found[line.strip("[]")] = []
        elif line.strip() and not line.startswith("#"):
            lines.append(line.strip())
    return found


def is_held_out(text):
    """Whether a text is for tests only."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) < HELD_OUT * 2**64


def phrases_of(operation, held_out=False):
    """The phrases of an operation that are for training, or those that are not. Where there are few, all are for
    training."""
    phrases = list(dict.fromkeys(operation.phrases))
    if len(phrases) < 5:
        return [] if held_out else phrases
    return [phrase for phrase in phrases if is_held_out(core(*phrase)) == held_out]


@functools.cache
def core(mark, text):
    """A phrase without the names in its slots, as it may stand in another table, and an imperative without what a frame
    puts around another: "check whether {year} is a leap year" becomes "{ is a leap year"."""
    text = re.sub(r"{\w+", "{", text).lower()
    if mark == "!":
        text = text.removeprefix(next(filter(text.startswith, OPENINGS), ""))
        text = text.removesuffix(next(filter(text.endswith, ENDINGS), ""))
    return text


def ended(form, sentence):
    """The sentence for a form such as "{sentence} Thanks!", with a full stop where another sentence follows."""
    is_open = not form.endswith("{sentence}") and not sentence.endswith((".", "?", "!", ":"))
    return sentence + "." * is_open


def plural(noun):
    """Several of it: cities, boxes, prices."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


VOCABULARY = sections(FOLDER / "words.txt")
LOCALS = [line.split() for line in VOCABULARY.pop("locals")]
WORDS = {name: " ".join(lines).split() for name, lines in VOCABULARY.items()}
SENTENCES = sections(FOLDER / "frames.txt") | sections(FOLDER / "chat.txt")
FRAMES = {"": SENTENCES["noun"], "!": SENTENCES["imperative"], "?": SENTENCES["clause"]}
# What stands around a phrase in a frame, the longest first: "check whether ", ", otherwise false".
AROUND = [frame.lower().split("{phrase}") for frame in FRAMES[""] + FRAMES["?"]]
OPENINGS = sorted((re.split(r"[.,;:}] ", before)[-1] for before, _ in AROUND), key=len, reverse=True)
ENDINGS = sorted((after.rstrip(".?") for _, after in AROUND), key=len, reverse=True)
IDENTIFIERS = [name for name in WORDS["identifiers"] + WORDS["plain"] if "_" not in name or not is_held_out(name)]


def random_name(rng, held_out=False):
    """A name of the standard library, of two or three words, or invented. It is held out as a whole, not by its words;
    and then has three of them or is invented, since the library, which is trained on, has others of two."""
    for _ in range(1000):
        form = rng.random()
        if form < 0.4 and not held_out:
            return rng.choice(IDENTIFIERS)
        nouns = WORDS["amounts"] + WORDS["things"]
        if form < 0.75:
            noun = rng.choice(nouns)
            words = [rng.choice(WORDS["verbs"]), rng.choice([noun, plural(noun)])]
            words[1:1] = [rng.choice(WORDS["adjectives"])] if held_out or rng.random() < 0.25 else []
            name = "_".join(words)
        elif form < 0.85 and not held_out:
            name = f"{rng.choice(WORDS['adjectives'])}_{rng.choice(nouns)}"
        else:
            least = 3 if held_out else 2  # two syllables may be a word
            name = "".join(rng.choice(WORDS["invented"]) for _ in range(rng.randint(least, 4)))
        if is_held_out(name) == held_out:
            return reshaped(rng, name)
    raise AssertionError("words.txt holds too few words")


def reshaped(rng, name):
    """A name, now and then in a less usual shape: findPrice, find_Price, find_price_2."""
    shape = rng.random()
    if shape < 0.05:
        return camel(name)
    if shape < 0.10:
        return "_".join(rng.choice([word, word.capitalize()]) for word in name.split("_"))
    if shape < 0.125:
        return name + rng.choice(["", "_"]) + str(rng.randint(2, 99))
    return name


def camel(name):
    """findPrice for find_price."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
