r"""Documents as gaps to fill: a part of the text goes to the end, where the model learns to write it.

    def area(r):\n    return 3 * r * r\n                                              the text of a document
    ------prefix------===middle===-suffix-                                            is cut at two places,

    <|fim_prefix|>def area(r):\n    <|fim_suffix|> * r\n<|fim_middle|>return 3 * r    and put together like this (PSM)
    <|fim_prefix|><|fim_suffix|> * r\n<|fim_middle|>def area(r):\n    return 3 * r    or with the suffix first (SPM)

Such a document is read from left to right like any other, and all of it counts in the loss. Among whole documents it
teaches a model to fill gaps, at little cost for what it learns of those (Bavarian et al., arXiv:2207.14255).
"""

import random
import re


def cut(text, settings):
    """(prefix, middle, suffix, suffix_first) of a document that becomes a gap, or None for one that stays as it is.

    The two places are different, and any two are as likely: before any characters, so that a gap may begin inside of a
    word, as it does at a person's cursor, or, in settings.fim_line_rate of the gaps, at ends of lines, as where whole
    lines are missing. What is drawn depends on the text and on settings.fim_seed alone: a higher settings.fim_rate
    makes gaps of more documents, and leaves those of a lower one as they are.
    """
    rng = random.Random(f"{settings.fim_seed}|{text}")
    if rng.random() >= settings.fim_rate:
        return None
    suffix_first = rng.random() < settings.fim_spm_rate
    whole_lines = rng.random() < settings.fim_line_rate
    start, end = sorted(rng.sample(line_ends(text) if whole_lines else range(len(text) + 1), 2))
    return text[:start], text[start:end], text[end:], suffix_first


def line_ends(text):
    """The places in a text between which its lines stand: 0, and behind each line."""
    return sorted({0, len(text), *(newline.end() for newline in re.finditer("\n", text))})
