"""The order of documents in the shards: nothing is lost, similar ones are side by side, repositories stay whole."""

import itertools
import json
import math
import os
import random
from collections import Counter

import numpy as np
import pytest
from conftest import door_error, program
from test_copies import prepare, work  # noqa: F401, a fixture
from test_repositories import documents_in, row

import prepare_data
from cleaning import alike, repositories
from cleaning.chunks import split_number
from shards import read_manifest

ORDERS = ("random", "alike", "repository", "repository_random")
TOPICS = [[f"{a}{b}{c}" for a in "bcdfg" for b in vowels for c in "lmnrst"] for vowels in ("aa", "ee", "oo", "uu")]


def page(seed):
    """A text of its own on one of four topics, with half of the topic's 30 words."""
    rng = random.Random(seed)
    words = rng.sample(sorted(set(TOPICS[seed % 4])), 15)
    return "".join(f"{rng.choice(words)}_{rng.choice(words)} = {rng.random()}\n" for _ in range(30))


def topic(text):
    """The number of a page's topic."""
    return next(i for i, words in enumerate(TOPICS) if text[:3] in words)


@pytest.fixture
def corpus(work):  # noqa: F811
    """60 files of 6 packages, and 20 modules beside them; a name tells neither topic nor split."""
    for i in range(80):
        path = work / "corpus" / (f"p{i // 10}/m{i}.py" if i < 60 else f"m{i}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(i))
    return work


def stream(out, split):
    """The bytes of all shards of a split behind each other, without their headers."""
    files = [file["name"] for file in read_manifest(out)["files"] if file["split"] == split]
    return b"".join((out / name).read_bytes()[1024:] for name in files)


def files_in(out, split):
    """{(repository, path): text} of a folder of repositories."""
    found = {}
    for document in documents_in(out, split):
        name, *files = document.removeprefix("<|repo_name|>").split("<|file_sep|>")
        for path, text in (file.split("\n", 1) for file in files):
            assert (name, path) not in found
            found[name, path] = text
    return found


# -- nothing is lost


def test_as_read_is_what_the_shards_always_were(corpus):
    """Each split is its documents as they are read, <|endoftext|> (256) in front of each."""
    prepare(["corpus"], clean=False, shard_bytes=20_000)
    texts = [path.read_text() for path in sorted(corpus.glob("corpus/m*"))]
    texts += [path.read_text() for path in sorted(corpus.glob("corpus/p*/*"))]
    for split in ("train", "val"):
        mine = [text for text in texts if text in documents_in("out", split)]
        ids = itertools.chain.from_iterable([256, *text.encode()] for text in mine)
        assert stream(corpus / "out", split) == np.array(list(ids), "<u2").tobytes()
    assert len(read_manifest("out")["shards"]) > 3


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_holds_each_document_once_and_does_not_depend_on_workers(corpus, order):
    prepare(["corpus"], "before", clean=False)
    for workers, out in ((1, "one"), (2, "two")):
        prepare(["corpus"], out, clean=False, order=order, shard_bytes=20_000, num_workers=workers)
    before = {split: documents_in("before", split) for split in ("train", "val")}
    for split in ("train", "val"):
        assert stream(corpus / "one", split) == stream(corpus / "two", split) != stream(corpus / "before", split)
        if order in ("random", "alike"):
            assert sorted(documents_in("one", split)) == sorted(before[split])
    if order.startswith("repository"):
        found = files_in("one", "train") | files_in("one", "val")
        assert sorted(found.values()) == sorted(before["train"] + before["val"])
        assert {name for name, _ in found} == {f"p{i}" for i in range(6)} | {f"m{i}" for i in range(60, 80)}
    shards = read_manifest("one")["shards"]
    sizes = [sum(file["tokens"] for file in shard["files"]) for shard in shards]
    assert len(shards) > 3 and min(sizes) > 0.5 * max(sizes)
    counts = read_manifest("one")["splits"]
    assert {split: counts[split]["documents"] for split in counts} == {
        split: len(documents_in("one", split)) for split in counts
    }
    assert "holds just that already" in prepare(["corpus"], "one", clean=False, order=order, shard_bytes=20_000)


# -- similar documents


def random_texts(n):
    """n texts of words such as texts have them: few are frequent, most are rare."""
    rng = np.random.default_rng(0)
    word = ["".join(letters) for letters in itertools.product("abcdefghij", repeat=3)]
    return [" ".join(word[k] for k in rng.zipf(1.3, 80) % 1000) for _ in range(n)]


def cosines_of(texts):
    """All cosines of TF-IDF vectors, (n, n), by the textbook."""
    counts = [Counter(text.split()) for text in texts]
    df = Counter(itertools.chain.from_iterable(counts))
    places = {word: i for i, word in enumerate(df)}
    matrix = np.zeros((len(texts), len(df)))
    for i, found in enumerate(counts):
        for word, n in found.items():
            if df[word] > 1:
                matrix[i, places[word]] = (1 + math.log(n)) * math.log(len(texts) / df[word])
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix @ matrix.T


def test_neighbours_are_those_of_brute_force():
    texts = random_texts(500)
    pairs, cosines = alike.neighbours(*alike.vectors(*alike.bags_of_words(texts)))
    dense = cosines_of(texts)
    np.testing.assert_allclose(cosines, dense[tuple(pairs.T)], atol=1e-12)
    np.fill_diagonal(dense, 0)
    nearest = np.argsort(-dense, axis=1)[:, :10]
    expected = {tuple(sorted((i, j))) for i in range(500) for j in nearest[i].tolist()}
    assert set(map(tuple, pairs.tolist())) == expected


def test_identifiers_are_cut_into_words():
    starts, words, counts = alike.bags_of_words(["readLine read_line", "HTTPServer2 中文", ""])
    assert np.diff(starts).tolist() == [2, 4, 0] and counts.tolist() == [2, 2, 1, 1, 1, 1]


def test_a_path_goes_to_the_most_similar_and_ends_when_it_is_long_enough():
    r"""0 --.9-- 1 --.8-- 2      4        the fewest neighbours have 4, then 0 and 3
    \--.5-- 3 --.4-- 2"""
    pairs, cosines = np.array([[0, 1], [1, 2], [1, 3], [2, 3]]), np.array([0.9, 0.8, 0.5, 0.4])
    assert alike.greedy_paths(pairs, cosines, [1] * 5, 100).tolist() == [4, 0, 1, 2, 3]
    assert alike.greedy_paths(pairs, cosines, [1] * 5, 2).tolist() == [4, 0, 1, 2, 3]
    assert alike.greedy_paths(pairs, cosines, [9, 9, 1, 1, 1], 2).tolist() == [4, 0, 2, 1, 3]
    none = np.zeros((0, 2), int)
    assert alike.greedy_paths(none, np.zeros(0), [1] * 3, 100).tolist() == [0, 1, 2]
    assert alike.arranged([], [], 100).tolist() == [] and alike.arranged(["a b"], [2], 100).tolist() == [0]


def test_near_copies_are_no_neighbours(monkeypatch):
    text = random_texts(300)
    text[7] = text[3] + " abc"
    order = alike.arranged(text, [80] * 300, 800).tolist()
    assert sorted(order) == list(range(300)) and abs(order.index(3) - order.index(7)) > 1
    monkeypatch.setattr(alike, "MAX_JACCARD", 1)
    order = alike.arranged(text, [80] * 300, 800).tolist()
    assert abs(order.index(3) - order.index(7)) == 1


def test_alike_puts_a_topic_side_by_side(corpus):
    same = {}  # how often a document is on the topic, and how similar it is to the one before it
    for order in ("alike", "random"):
        path_tokens = {"path_tokens": 100_000} if order == "alike" else {}
        prepare(["corpus"], order, clean=False, order=order, **path_tokens)
        found = documents_in(order, "train")
        topics, dense = list(map(topic, found)), cosines_of([text.replace("_", " ") for text in found])
        same[order] = np.mean(np.diff(topics) == 0), np.mean(np.diag(dense, 1))
    assert same["alike"][0] > 0.9 > 0.5 > same["random"][0] and same["alike"][1] > 3 * same["random"][1]


def test_marks_of_gaps_are_no_words(corpus, monkeypatch):
    seen = []
    monkeypatch.setattr(alike, "arranged", lambda texts, lengths, _: seen.extend(texts) or np.arange(len(lengths)))
    prepare(["corpus"], clean=False, order="alike", fim_rate=1.0)
    assert "<|fim_middle|>" in "".join(documents_in("out", "train")) and len(seen) == 80
    assert sorted(map(sorted, seen)) == sorted(sorted(page(i)) for i in range(80))


# -- repositories


def graph(rng, n, n_edges, has_circles):
    """{path: paths that it imports}, at random."""
    names, imports = [f"f{i:02}" for i in rng.sample(range(100), n)], {}
    for i, name in enumerate(names):
        imports[name] = set(rng.choices(names if has_circles else names[:i] or [name], k=n_edges)) - {name}
    return imports


def by_the_paper(imports):
    """The same order, literally: part by part, of what is left the one with fewest imports of what is left."""
    order, left = [], set(imports)
    while left:
        part = {min(left)}
        for _ in imports:
            part |= {b for a in part for b in imports[a]} | {a for a in imports if imports[a] & part}
        left -= part
        while part:
            order.append(min(part, key=lambda path: (len(imports[path] & part), path)))
            part.remove(order[-1])
    return order


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_imports(seed):
    rng = random.Random(seed)
    imports = graph(rng, n=30, n_edges=seed % 3, has_circles=False)
    order = repositories.dependency_order(imports)
    assert order == by_the_paper(imports)
    assert all(order.index(used) < order.index(path) for path in imports for used in imports[path])
    circles = graph(rng, n=30, n_edges=1 + seed % 3, has_circles=True)
    assert repositories.dependency_order(circles) == by_the_paper(circles)
    assert sorted(repositories.dependency_order(circles)) == sorted(circles)


FILES = {
    "setup.py": "import app.area, json",
    "src/app/__init__.py": "from .area import circle\nfrom . import units",
    "src/app/area.py": "import app.units\nimport math, os.path",
    "src/app/units.py": "from typing import json",
    "src/app/json.py": "import json",
    "src/app/deep/__init__.py": "",
    "src/app/deep/a.py": "from .. import area, circle\nfrom ..units import *\nfrom .....x import y",
    "scripts/run.py": "def f():\n    import helper\n    from app import deep, json",
    "scripts/helper.py": "print 'Python 2'",
    "README.md": "import app",
}


def test_which_files_a_file_imports():
    found = repositories.imports_of(FILES)
    assert {path: sorted(used) for path, used in found.items() if used} == {
        "setup.py": ["src/app/area.py"],
        "src/app/__init__.py": ["src/app/area.py", "src/app/units.py"],
        "src/app/area.py": ["src/app/units.py"],
        "src/app/deep/a.py": ["src/app/__init__.py", "src/app/area.py", "src/app/units.py"],
        "scripts/run.py": ["scripts/helper.py", "src/app/deep/__init__.py", "src/app/json.py"],
    }


def test_both_kinds_of_repositories_are_in_order_and_on_one_side(work):  # noqa: F811
    """Records of files with repo and path, and records that hold a whole repository, some of the same name."""
    names, records = [f"ada/r{i}" for i in range(12)], []
    for i, name in enumerate(names):
        a, b = program(2 * i) + "import b\n", program(2 * i + 1)
        records += [{"repo": name, "path": "a.py", "content": a}, {"repo": name, "path": "b.py", "content": b}]
        records.append(row(name, x="import z\n" + program(100 + i), z=program(200 + i)))
    random.Random(0).shuffle(records)
    (work / "r.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    prepare(["r.jsonl"], order="repository", val_fraction=0.5)
    sides = {split: documents_in("out", split) for split in ("train", "val")}
    split_of = {name: [split for split in sides if any(f">{name}<" in text for text in sides[split])] for name in names}
    assert all(len(found) == 1 for found in split_of.values()) and len(set(map(tuple, split_of.values()))) == 2
    paths = [
        tuple(file.split("\n")[0] for file in text.split("<|file_sep|>")[1:]) for text in sides["train"] + sides["val"]
    ]
    assert Counter(paths) == {("b.py", "a.py"): 12, ("z.py", "x.py"): 12}


@pytest.mark.parametrize("order", ORDERS)
def test_names_may_be_any_bytes(work, order):  # noqa: F811
    for i in range(12):
        os.makedirs(b"files/caf\xe9", exist_ok=True)
        with open(b"files/caf\xe9/\xe9%d.py" % i, "w") as file:
            file.write(page(i))
    prepare(["files"], clean=False, order=order, val_fraction=0.01)
    assert len(documents_in("out", "train")) == (1 if order.startswith("repository") else 12)


def test_documents_without_a_repository_stay_as_they_are(work):  # noqa: F811
    (work / "r.jsonl").write_text(
        "".join(json.dumps({"text": program(i), "path": f"a/{i}.py"}) + "\n" for i in range(9))
    )
    prepare(["r.jsonl"], order="repository", val_fraction=0.0)
    assert sorted(documents_in("out", "train")) == sorted(map(program, range(9)))


def test_what_has_no_order_is_one_line(corpus):
    common = ("--sources=corpus/p1", "--tokenizer=bytes.json", "--num_workers=1", "--clean=false", "--out_dir=out")
    assert "chats are packed" in door_error(prepare_data, "--chats", "--order=alike", *common)
    assert "files one by one" in door_error(prepare_data, "--fim_rate=0.5", "--order=repository", *common)
    name = next(name for name in "abcdefgh" if split_number(name) < 2**63)  # the one repository goes to validation
    (corpus / "one" / name).mkdir(parents=True)
    for i in range(20):
        (corpus / "one" / name / f"{i}.py").write_text(page(i))
    arguments = ("--order=repository", "--val_fraction=0.5", *common, "--sources=one")
    assert "every repository goes to validation" in door_error(prepare_data, *arguments)
    assert not (corpus / "out/manifest.json").exists()
