"""What the replacements and the removal of licences take from well-kept files: code lost, and what was replaced.

python -m experiments.cleaning_losses --sources=/usr/include,/usr/lib      a table, and an example of every replacement

A removed licence is compared by pygments, which knows each language's comments: every token that is no comment must
stay. Replaced addresses and keys are shown for a person to judge.
"""

import needs  # noqa: F401

import collections
import hashlib
import random
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from pygments import token
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from tqdm import tqdm

import configurator
from cleaning import licences, pii
from cleaning.languages import COMMENTS_OF, PYTHON_NAMES
from cleaning.view import CODE, PYTHON, comments_of, suffix_of
from experiments.common import print_table
from ranges import Amount, Natural

PLACEHOLDERS = {"email": "name@example.com", "ip": "192.0.2.1", "key": "KEY"}


@dataclass
class Settings:
    """Which files are cleaned."""

    # -- files
    sources: list[str] = field(default_factory=lambda: [sysconfig.get_paths()["purelib"]])  # folders
    max_bytes: Amount = 1_000_000  # larger files are passed over
    examples: Natural = 20  # lines to show of each kind of replacement


def files(settings):
    """Yield (path, text) of every different file below the sources whose suffix is that of a language."""
    seen = set()
    for source in settings.sources:
        for path in tqdm(sorted(Path(source).rglob("*")), desc=source, unit="file", leave=False):
            if path.suffix.lower() not in COMMENTS_OF or not path.is_file() or path.stat().st_size > settings.max_bytes:
                continue
            data = path.read_bytes()
            digest = hashlib.sha256(data).digest()
            if digest not in seen and b"\0" not in data:
                seen.add(digest)
                yield path, data.decode("utf-8", "replace")


def code(name, text):
    """The tokens of a text that are neither comments nor white space, as pygments sees a file of this name."""
    found = []
    suffix = Path(name).suffix
    name = {".pm": "x.perl", ".pl": "x.perl", ".inl": "x.cpp"}.get(suffix, name)  # not Raku, Prolog, or unknown
    for kind, value in get_lexer_for_filename(name, text, stripnl=False).get_tokens(text):
        is_comment = kind in token.Comment and kind not in token.Comment.Preproc and kind not in token.Comment.Hashbang
        is_comment = is_comment and kind not in token.Comment.PreprocFile
        # pygments takes PHP's /** for a string, and the @ of @REM for a token of its own.
        if value.strip(" \t\r\n@") and not is_comment and not value.startswith("/**"):
            found.append(value.strip())
    return "".join(found)


def heads(old, new):
    """The parts of two texts before what both end with, whole lines."""
    same, step = 0, min(len(old), len(new))
    while step:
        if same + step <= min(len(old), len(new)) and old[len(old) - same - step :] == new[len(new) - same - step :]:
            same += step
        else:
            step //= 2
    cut = old.find("\n", len(old) - same) + 1 or len(old)
    return old[:cut], new[: cut - len(old) + len(new)]


def main(settings):
    """Clean every file and print the table and the examples."""
    rows, examples = collections.defaultdict(collections.Counter), collections.defaultdict(list)
    for path, text in files(settings):
        suffix, meta = path.suffix.lower(), {"path": path.name}
        kind = PYTHON if suffix_of(meta) in PYTHON_NAMES else CODE
        row = rows[suffix]
        row["files"] += 1
        new = licences.without_license(text, comments_of(kind, meta))
        if new != text:
            row["licences"] += 1
            try:
                if code(path.name, heads(text, new)[0]) != code(path.name, heads(text, new)[1]):
                    row["lost code"] += 1
                    examples["lost code"].append(f"{path}")
            except ClassNotFound:
                row["not checked"] += 1
        replaced, counts = pii.replaced(text, kind)
        row.update(counts)
        for old, now in zip(text.splitlines(), replaced.splitlines()) if counts else ():
            for what, placeholder in PLACEHOLDERS.items():
                if old != now and now.count(placeholder) > old.count(placeholder):
                    examples[what].append(f"{path}: {old.strip()[:160]}")
    total = sum(rows.values(), collections.Counter())
    names = ["files", "licences", "lost code", "not checked", "email", "ip", "key"]
    ordered = [*sorted(rows.items(), key=lambda item: -item[1]["files"]), ("all", total)]
    print_table(
        ["suffix", *names], [[suffix, *(f"{row[name]:,}" for name in names)] for suffix, row in ordered], "<" + ">" * 7
    )
    for what, found in examples.items():
        print(f"\n{what}, {len(found):,} lines, for example")
        print("\n".join(random.Random(0).sample(found, min(len(found), settings.examples))))


if __name__ == "__main__":
    configurator.run(main, Settings)
