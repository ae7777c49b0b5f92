"""Near-duplicates: signatures estimate the true similarity, recall follows the S-curve, clusters equal brute force, and
nothing depends on order."""

import itertools
import math
import random
import re
import sysconfig
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import program

from cleaning import dedup, hashing
from cleaning.view import View

BANDS, ROWS = dedup.banding(0.7)


def shingles(text):
    return hashing.shingles(View(text).fivegrams)


def keys(sets, bands=BANDS, rows=ROWS):
    return np.stack([hashing.band_keys(hashing.signature(s, bands * rows), bands, rows) for s in sets])


def clustered(texts, threshold=0.7, metas=None):
    """kept[i] is the index of the text that replaces text i, or i itself if it stays."""
    sets = [shingles(text) for text in texts]
    digests = np.stack([hashing.exact_digest(text) for text in texts])
    sizes, bands = np.array([len(s) for s in sets]), keys(sets)
    verify = lambda pairs: np.array([dedup.jaccard(sets[a], sets[b]) >= threshold for a, b in pairs])  # noqa: E731
    clusters = dedup.exact_clusters(digests, dedup.Clusters(len(texts)))
    dedup.near_clusters(lambda i: bands[:, i], BANDS, sizes, digests, verify, threshold, clusters)
    metas = metas or [{}] * len(texts)
    return dedup.choose(clusters, lambda i: dedup.priority({"where": i, **metas[i]}, digests[i]))


# -- independent of numpy: sets of tuples of words


def word_sets(text):
    words = re.findall(r"[a-z0-9_]+|[^\x00-\x7f]", text.lower())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def brute_force_groups(sets, threshold):
    """The connected parts of the graph of all pairs whose true similarity reaches the threshold."""
    holders = {}
    for i, s in enumerate(sets):
        for shingle in s:
            holders.setdefault(shingle, []).append(i)
    common = Counter(pair for group in holders.values() for pair in itertools.combinations(group, 2))
    group = list(range(len(sets)))
    for (a, b), n in common.items():
        if min(len(sets[a]), len(sets[b])) >= 5 and n >= threshold * (len(sets[a]) + len(sets[b]) - n):
            old, new = group[b], group[a]
            group = [new if g == old else g for g in group] if old != new else group
    return group


def partition(labels):
    parts = {}
    for i, label in enumerate(labels):
        parts.setdefault(label, set()).add(i)
    return {frozenset(part) for part in parts.values()}


def files(n):
    folders = [Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib")]
    paths = sorted({path for folder in folders for path in folder.rglob("*.py") if 0 < path.stat().st_size < 60_000})
    texts = []
    for path in paths[:: max(1, len(paths) // (n + 100))]:
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue
    return texts[:n]


def test_shingles_are_those_of_the_regular_expression():
    for text in (program(1), "a b c", "", "  déjà vu 中文字 x_1 = 'Y2' + A(b)\n" * 2, "one two three four FIVE"):
        assert len(shingles(text)) == len(word_sets(text))
    a, b = program(1), program(1).replace("déjà", "dejà") + "one more line of a few words"
    true = len(word_sets(a) & word_sets(b)) / len(word_sets(a) | word_sets(b))
    assert dedup.jaccard(shingles(a), shingles(b)) == true


def s_curve(similarity, bands, rows):
    """The probability that a pair shares a whole band."""
    return 1 - (1 - similarity**rows) ** bands


def planted(similarity, rng, n=400):
    """Two sets of n hashes in all of which this share is common."""
    pool = np.unique(rng.integers(0, 2**32, n + 10, dtype=np.uint32))[:n]
    rng.shuffle(pool)
    common = round(similarity * n)
    half = common + (n - common) // 2
    return np.sort(pool[:half]), np.sort(np.append(pool[:common], pool[half:]))


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.9])
def test_signatures_agree_as_often_as_the_sets_are_similar(similarity):
    """Broder: each of the n smallest values is the same with probability J. 3 standard errors of 100 x 256 trials."""
    rng = np.random.default_rng(1)
    pairs = [planted(similarity, rng) for _ in range(100)]
    agreement = np.mean([np.mean(hashing.signature(a, 256) == hashing.signature(b, 256)) for a, b in pairs])
    assert abs(agreement - similarity) < 3 * math.sqrt(similarity * (1 - similarity) / 25_600)


@pytest.mark.parametrize("bands, rows", [(25, 10), (14, 8), (BANDS, ROWS)])
@pytest.mark.parametrize("similarity", [0.7, 0.8, 0.85, 0.9])
def test_recall_lies_on_the_s_curve(similarity, bands, rows):
    """BigCode's, datatrove's and our banding: planted pairs become candidates as often as the formula says,
    1 - (1 - J^r)^b, within 3 standard errors of 400 pairs."""
    n, rng = 400, np.random.default_rng(2)
    candidates = (keys(planted(similarity, rng), bands, rows) for _ in range(n))
    found = sum((a == b).any() for a, b in candidates)
    expected = s_curve(similarity, bands, rows)
    assert abs(found / n - expected) <= 3 * math.sqrt(expected * (1 - expected) / n) + 1 / n


def test_published_points_of_the_s_curve():
    """Computed elsewhere for BigCode's (25, 10) and datatrove's (14 x 8)."""
    assert [round(s_curve(j, 25, 10), 3) for j in (0.5, 0.7, 0.8, 0.85, 0.9)] == [0.024, 0.511, 0.942, 0.996, 1.0]
    assert [round(s_curve(j, 14, 8), 3) for j in (0.5, 0.7, 0.8, 0.85, 0.9)] == [0.053, 0.565, 0.924, 0.988, 1.0]


def test_the_banding_misses_next_to_nothing_at_the_threshold():
    for threshold in (0.5, 0.7, 0.8, 0.9, 1.0):
        bands, rows = dedup.banding(threshold)
        assert bands * rows <= 256 and s_curve(threshold, bands, rows) >= 0.999


def test_clusters_equal_brute_force_on_1000_files():
    texts = files(1000)
    texts += [text.replace("self", "this") for text in texts[::25]] + [
        text + "\n# the end of it\n" for text in texts[::40]
    ]
    sets = [word_sets(text) for text in texts]
    digests = [hashing.exact_digest(text).tobytes() for text in texts]
    expected = brute_force_groups(sets, 0.7)
    first = {}
    for i, digest in enumerate(digests):  # exact copies belong together, however short
        old, new = expected[i], expected[first.setdefault(digest, i)]
        expected = [new if g == old else g for g in expected] if old != new else expected
    kept = clustered(texts)
    assert len(texts) > 750 and partition(kept.tolist()) == partition(expected)
    assert len(set(kept.tolist())) < len(texts) - 20


def test_shuffling_changes_nothing_and_a_second_pass_removes_nothing():
    texts = files(300)
    texts += [text.replace("self", "this") for text in texts[::5]] + texts[::7]
    kept = {texts[i] for i in clustered(texts).tolist()}
    for seed in range(3):
        shuffled = random.Random(seed).sample(texts, len(texts))
        assert {shuffled[i] for i in clustered(shuffled).tolist()} == kept
    again = sorted(kept)
    assert clustered(again).tolist() == list(range(len(again)))


def test_the_copy_with_most_stars_then_the_newest_then_the_first_by_path_is_kept():
    text = program(3)
    copies = [text, text + "# x\n", text + "# y\n", text + "# z\n"]
    order = [
        {"stars": 5, "date": "2020-01-01", "path": "a.py"},
        {"stars": 9, "date": "2019-01-01", "path": "d.py"},
        {"stars": 9, "date": "2021-01-01", "path": "c.py"},
        {"stars": 9, "date": "2021-01-01", "path": "b.py"},
    ]
    assert set(clustered(copies, metas=order).tolist()) == {3}
    assert set(clustered(copies[:3], metas=order[:3]).tolist()) == {2}
    assert set(clustered(copies[:2], metas=order[:2]).tolist()) == {1}
    assert dedup.priority({"stars": None, "date": None}, (1, 2)) == dedup.priority({}, (1, 2))
    assert dedup.priority({"date": "2020"}, (1, 2)) < dedup.priority({}, (1, 2)), "a date is newer than none"


def test_short_documents_are_compared_exactly_or_not_at_all():
    texts = ["a = 1\n", "a + 1\n", "b = 2\n", "", "\n", "a = 1  \r\n", "one two three four five"]
    kept = clustered(texts)
    assert kept[0] == kept[5] and len(set(kept.tolist())) == 5


def test_chains_are_followed_and_only_true_similarities_link():
    """a is like b and b like c, a less like c: one cluster. Two that share a band by chance stay apart."""
    words = [f"word{i}" for i in range(400)]
    chain = [" ".join(words[start : start + 300]) for start in (0, 45, 90)]
    assert dedup.jaccard(shingles(chain[0]), shingles(chain[2])) < 0.7 <= dedup.jaccard(*map(shingles, chain[:2]))
    assert len(set(clustered(chain).tolist())) == 1
    apart = [" ".join(words[start : start + 300]) for start in (0, 80)]
    assert dedup.jaccard(*map(shingles, apart)) < 0.7 and len(set(clustered(apart).tolist())) == 2


def test_hashes_are_the_same_on_every_machine():
    assert hashing.tokens(b"def main ( )")[0].tolist() == hashing.tokens(b"DEF\nmain()")[0].tolist()
    assert hex(int(hashing.tokens(b"main")[0][0])) == "0x7815ca0821dcd0bb"
    assert hashing.signature(np.arange(10, dtype=np.uint32), 4).tolist() == [97749334, 44474543, 249651134, 1484686378]


@pytest.mark.parametrize("piece", [100, hashing.MAX_PIECE])
def test_tokens_are_those_of_a_loop_over_a_regular_expression(piece, monkeypatch):
    """Also in a text of several pieces, which are hashed by themselves."""
    monkeypatch.setattr(hashing, "MAX_PIECE", piece)
    text = 'def größe(x):  # 中文\n    return "x_1" + y2  \n\n' * 20
    found = [(match.start(), match.group()) for match in re.finditer(r"[A-Za-z0-9_]+|[^\s\"'`\\]", text)]
    hashes, starts, lengths, kinds = hashing.tokens(text.encode())
    assert starts.tolist() == [len(text[:start].encode()) for start, _ in found]
    assert lengths.tolist() == [len(token.encode()) for _, token in found]
    polynomials = [sum(byte * hashing.BASE**i for i, byte in enumerate(t.lower().encode())) % 2**64 for _, t in found]
    assert hashes.tolist() == hashing.mix(np.array(polynomials, np.uint64)).tolist()
