"""HumanEval and MBPP by their names, downloaded once into data/: models are scored on them, and what is trained on is
cleaned of copies."""

import hashlib
import http.client
import urllib.request
from pathlib import Path

from configurator import UserError

# What is downloaded once, by its name: the address, the place, and the sha256 where one is published with it.
DOWNLOADS = {
    "humaneval": (
        "https://github.com/openai/human-eval/raw/master/data/HumanEval.jsonl.gz",
        "data/HumanEval.jsonl.gz",
        "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
    ),
    "mbpp": (
        "https://github.com/google-research/google-research/raw/master/mbpp/sanitized-mbpp.json",
        "data/sanitized-mbpp.json",
        "",
    ),
}


def file_of(name):
    """The path of a benchmark that DOWNLOADS names, downloaded unless it is there; any other name is a path itself.
    Raises UserError if it cannot be had, or is another file."""
    if name not in DOWNLOADS:
        return Path(name)
    url, place, sha256 = DOWNLOADS[name]
    path = Path(place)
    try:
        data = path.read_bytes() if path.exists() else urllib.request.urlopen(url, timeout=30).read()
    except (OSError, http.client.HTTPException) as error:
        how = f"where there is a network, curl -LO {url}, then copy it to {path}; or give the path of a copy"
        raise UserError(f"{name} cannot be downloaded ({error}): {how}") from None
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{path} is not the published file: its sha256 differs; delete it to download it again")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return path
