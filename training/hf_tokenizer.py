"""A tokenizer as Hugging Face's tokenizer.json, and back.

There a token is text in GPT-2's alphabet, in which every byte is a printable character, and BPE is a list of merges
instead of ranks. Both say the same where every token is made by one merge of two tokens before it: both ways, that is
checked.
"""

import base64
import re

import regex

from configurator import UserError
from tokenizer import Tokenizer


def alphabet():
    """{byte: character} of GPT-2: printable bytes are themselves, the others U+0100 and up, in order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


CHARACTER = alphabet()
BYTE = {character: byte for byte, character in CHARACTER.items()}


def written(token):
    """A token, bytes, in GPT-2's alphabet."""
    return "".join(map(CHARACTER.get, token))


def halves(token, ranks):
    """The two tokens that BPE merges last to make a token. Raises UserError where it makes it in no such way."""
    parts, own = [token[i : i + 1] for i in range(len(token))], ranks[token]
    while len(parts) > 2:
        pairs = [(ranks.get(a + b, own), i) for i, (a, b) in enumerate(zip(parts, parts[1:]))]
        rank, i = min(pairs)
        if rank >= own:
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    if len(parts) != 2:
        raise UserError(f"this vocabulary cannot be written as merges: no two tokens before it make {token!r}")
    return parts


def to_json(tokenizer):
    """The content of tokenizer.json. Raises UserError for another tokenizer than a byte-level BPE."""
    content = tokenizer.content
    if content["kind"] != "bpe":
        raise UserError("its tokenizer is a SentencePiece model, which has no merges: only byte-level BPE is exported")
    tokens = [base64.b64decode(token) for token in content["ranks"]]
    ranks = {token: rank for rank, token in enumerate(tokens) if token}
    merges = [" ".join(map(written, halves(token, ranks))) for token in ranks if len(token) > 1]
    eot = tokenizer.special_names[tokenizer.eot]
    opened = [{"SpecialToken": {"id": eot, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(name, number) for name, number in tokenizer.special.items()],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": content["pattern"]}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        # Every document begins with <|endoftext|>, and so does every prompt.
        "post_processor": {
            "type": "TemplateProcessing",
            "single": opened,
            "pair": [*opened, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {eot: {"id": eot, "ids": [tokenizer.eot], "tokens": [eot]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {written(token): rank for token, rank in ranks.items()},
            "merges": merges,
        },
    }


def added_token(name, number):
    """The entry of a special token."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": name, **flags, "special": True}


def from_json(content):
    """(Tokenizer, the id that each of its ids has in the folder) from the content of a tokenizer.json. Special tokens
    go behind the others: rows of the embedding change places. Raises UserError where it is no byte-level BPE."""
    try:
        model, added = content["model"], {token["content"]: token["id"] for token in content["added_tokens"]}
        pattern = pattern_of(content["pre_tokenizer"])
        merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        vocabulary, known = model["vocab"], {**model["vocab"], **added}
        if model["type"] != "BPE" or content.get("normalizer") or model.get("byte_fallback"):
            raise ValueError("it is no byte-level BPE without normalisation")
        made = dict.fromkeys(a + b for a, b in merges)
        tokens = [CHARACTER[byte] for byte in range(256)] + [token for token in made if token in vocabulary]
        ranks = [bytes(map(BYTE.__getitem__, token)) for token in tokens]
        if left := vocabulary.keys() - set(tokens) - added.keys():
            raise ValueError(f"no merge makes {min(left)!r}")
        if plain := [token["content"] for token in content["added_tokens"] if not token.get("special", True)]:
            raise ValueError(f"the added token {plain[0]!r} is plain text")
        order = {token: rank for rank, token in enumerate(ranks)}
        parts_of = {a + b: [a, b] for a, b in reversed(merges)}
        for token, data in zip(tokens[256:], ranks[256:]):
            if list(map(written, halves(data, order))) != parts_of[token]:
                raise ValueError(f"by its merges, {token!r} is made in another way than by ranks")
        special = sorted(added, key=added.get)
        places = [known[token] for token in [*tokens, *special]]
        regex.compile(pattern)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, regex.error) as error:
        raise UserError(f"its tokenizer.json cannot be read as byte-level BPE: {error}") from None
    return Tokenizer.from_bpe(pattern, ranks, special), places


GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


# Characters of all kinds, by which a pattern shows whether it leaves some over.
KINDS = "ab Zé中क़ 1٣½Ⅷ x's 'LL \n\t\r  .,;:!?()[]{}<>'\"`\\/|_-+=*&^%$#@~ \u0301\u200b\u00a0\0 🙂"


def leaves_over(pattern):
    """Whether there are characters that no match of a pattern covers."""
    return "".join(match.group() for match in regex.finditer(pattern, KINDS)) != KINDS


def pattern_of(pre_tokenizer):
    """The pattern by which text is cut into pre-tokens. Raises ValueError for what is more than one pattern."""
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    patterns = []
    for step in steps:
        if step["type"] == "Split" and step["behavior"] == "Isolated" and not step.get("invert"):
            patterns.append(step["pattern"].get("Regex") or re.escape(step["pattern"]["String"]))
        elif step["type"] == "Digits" and step.get("individual_digits"):
            patterns.append(r"\p{N}")
        elif step["type"] != "ByteLevel" or step.get("add_prefix_space"):
            raise ValueError(f"a step of its pre_tokenizer is {step['type']}")
        elif step.get("use_regex", True):
            patterns.append(GPT2)
    if patterns == [r"\p{N}", GPT2]:  # SmolLM's: digits are cut off first, so that the blanks before them end a text
        return GPT2.replace(r" ?\p{N}+", r"\p{N}").replace(r"\s+(?!", r"\s+(?=\p{N})|\s+(?!", 1)
    if len(patterns) != 1:
        raise ValueError(f"its pre_tokenizer has {len(patterns)} patterns")
    # What lies between the matches is a pre-token there, and would be lost here. Most patterns leave nothing over.
    (pattern,) = patterns
    return rf"{pattern}|(?:(?!{pattern})[\s\S])+" if leaves_over(pattern) else pattern
