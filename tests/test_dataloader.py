"""Batches: exact proportions, each row once per epoch, the same for any number of processes and from any step."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from configurator import UserError
from loss import IGNORE
from shards import Shards
from tokenizer import SPECIAL_TOKENS
from training.dataloader import Mixture, Quotas, best_fit, parse_folders, parse_mixture
from training.machine import Machine
from training.plan import Plan
from training.validation import validation_rows


@pytest.mark.parametrize(
    "shares, batch_size",
    [
        ((0.7, 0.2, 0.1), 10),
        ((1 / 3, 1 / 3, 1 / 3), 8),
        ((0.985, 0.01, 0.005), 16),
        ((0.5, 0.3, 0.15, 0.05), 7),
        ((1.0,), 3),
    ],
)
def test_quotas_stay_within_one_sequence_of_the_exact_share(shares, batch_size):
    quotas, total = Quotas(shares, batch_size), np.zeros(len(shares))
    for step in range(400):
        before, counts = quotas(step)
        assert counts.sum() == batch_size and counts.min() >= 0 and np.array_equal(before, total)
        total += counts
        assert np.abs(total - np.array(shares) * batch_size * (step + 1)).max() <= 1
    if np.allclose(np.array(shares) * batch_size % 1, 0):
        assert all(np.array_equal(quotas(step)[1], quotas(0)[1]) for step in range(400)), "exact in every batch"


def test_quotas_need_no_history():
    walked, jumped = Quotas((0.6, 0.3, 0.1), 8), Quotas((0.6, 0.3, 0.1), 8)
    for step in range(57):
        walked(step)
    assert all(np.array_equal(a, b) for a, b in zip(walked(57), jumped(57)))


def mixture(workdir, **changes):
    folder = str(workdir / "data/shards")
    options = dict(mixture=[(folder, 1.0)], block_size=32, batch_size=6, seed=3, eot=EOT)
    return Mixture(**{**options, **changes})


EOT = 320 - len(SPECIAL_TOKENS)  # of the fixture's vocabulary


def stream(workdir, split="train"):
    return Shards(workdir / "data/shards", split).tokens(0, 1 << 40)


def test_every_part_of_a_batch_has_its_share_of_each_source(workdir):
    """Gradients of micro-batches then differ by chance alone, and not by what they are of."""
    folder = str(workdir / "data/shards")
    data = mixture(workdir, mixture=[(folder, 0.75), (folder, 0.25)], batch_size=16)
    for step in range(3):
        rows = data.rows(step)
        assert sorted(rows) == [(0, n) for n in range(12 * step, 12 * step + 12)] + [
            (1, n) for n in range(4 * step, 4 * step + 4)
        ]
        for start in range(0, 16, 4):
            assert [source for source, _ in rows[start : start + 4]].count(1) == 1


def test_each_window_is_read_once_per_epoch_and_epochs_differ(workdir):
    data, tokens = mixture(workdir, batch_size=1), stream(workdir).tolist()
    text = "".join(map(chr, tokens))
    n = data.sources[0].n_rows
    epochs = []
    for epoch in range(3):
        rows = [data.arrays(step) for step in range(epoch * n, (epoch + 1) * n)]
        places = []
        for ids, targets in rows:
            assert np.array_equal(ids[0, 1:], targets[0, :-1]), "the target is the next token"
            places.append(text.index("".join(map(chr, [*ids[0], targets[0, -1]]))))
        assert all(b - a == 32 for a, b in zip(sorted(places), sorted(places)[1:])), "windows that follow each other"
        epochs.append(places)
    assert epochs[0] != epochs[1] and len({min(places) for places in epochs}) > 1, "another order, another cut"


@pytest.mark.parametrize("block_size", [32, 4096])
def test_packed_rows_hold_every_token_once_and_whole_documents(workdir, block_size):
    data, tokens = mixture(workdir, batch_size=1, best_fit=True, block_size=block_size), stream(workdir)
    packed = data.sources[0]
    rows = [packed.row(n) for n in range(packed.n_rows)]
    pairs = Counter((int(x), int(y)) for ids, targets in rows for x, y in zip(ids, targets) if y != IGNORE)
    assert pairs == Counter(zip(tokens.tolist(), [*tokens[1:].tolist(), EOT])), "each token and the one after it, once"
    if block_size == 4096:  # longer than every document: none is cut
        documents = Counter(tuple(d) for d in np.split(tokens, np.flatnonzero(tokens == EOT))[1:])
        packed_documents = Counter()
        for ids, targets in rows:
            counted = ids[: np.flatnonzero(targets != IGNORE)[-1] + 1]
            packed_documents.update(tuple(d) for d in np.split(counted, np.flatnonzero(counted == EOT))[1:])
        assert packed_documents == documents
        assert len(rows) <= 1.05 * len(tokens) / block_size + 1
    second = [packed.row(packed.n_rows + n)[0] for n in range(packed.n_rows)]
    assert not all(np.array_equal(a, b) for (a, _), b in zip(rows, second)), "another arrangement"


def test_only_the_beginning_of_a_row_may_continue_a_document(workdir):
    packed = mixture(workdir, best_fit=True).sources[0]
    for row in packed.arrange(0):
        for piece in row[1:]:
            assert packed.shards.tokens(int(packed.starts[piece]), 1)[0] == EOT


def test_best_fit_against_brute_force():
    random = np.random.default_rng(0)
    for _ in range(50):
        lengths = random.integers(1, 40, 60).tolist()
        rows = best_fit(lengths, [False] * 60, 40)
        brute = []
        for length in lengths:
            free = [(40 - sum(row), i) for i, row in enumerate(brute) if 40 - sum(row) >= length]
            if free:
                brute[min(free)[1]].append(length)
            else:
                brute.append([length])
        assert sorted(i for row in rows for i in row) == list(range(60))
        assert sorted(sum(lengths[i] for i in row) for row in rows) == sorted(map(sum, brute))


def test_a_later_stage_reads_on_where_the_one_before_stopped(workdir):
    first, whole = mixture(workdir), mixture(workdir)
    later = mixture(workdir, read_before=first.rows_read(5))
    for step in range(4):
        assert np.array_equal(later.arrays(step)[0], whole.arrays(5 + step)[0])


def test_processes_share_out_the_global_batch(workdir):
    data = mixture(workdir)
    for step in (0, 5):
        whole = data.arrays(step)[0]
        for world_size in (2, 3, 4, 5, 6):
            assert np.array_equal(
                whole,
                np.concatenate([mixture(workdir).arrays(step, rank, world_size)[0] for rank in range(world_size)]),
            )


@pytest.mark.parametrize("world_size, micro_batch, n_rows", [(1, 6, 6), (1, 4, 8), (4, 1, 2), (4, 2, 2), (5, 3, 3)])
def test_every_process_has_the_same_number_of_whole_micro_batches(workdir, world_size, micro_batch, n_rows):
    """Rows are added in which nothing counts."""
    parts, counted = [], 0
    for rank in range(world_size):
        plan = Plan(micro_batch, "ids", compiles=False, recompute=False)
        batch = mixture(workdir).batch(0, Machine(rank, world_size, "cpu", None), plan)
        parts.append([tuple(part.ids.shape) for part in batch.split(micro_batch)])
        counted += batch.count
        assert (
            batch.count
            == int((batch.targets != IGNORE).sum())
            == 32 * len(mixture(workdir).arrays(0, rank, world_size)[0])
        )
    assert parts == [[(micro_batch, 32)] * (n_rows // micro_batch)] * world_size and counted == 6 * 32


def test_batches_are_a_function_of_seed_and_step(workdir):
    assert np.array_equal(mixture(workdir).arrays(9)[0], mixture(workdir).arrays(9)[0])
    assert not np.array_equal(mixture(workdir).arrays(9)[0], mixture(workdir, seed=4).arrays(9)[0])


def test_every_source_of_a_mixture_has_its_own_epochs(workdir):
    folder = str(workdir / "data/shards")
    data = mixture(workdir, mixture=[(folder, 2 / 3), (folder, 1 / 3)])
    n = data.sources[0].n_rows
    rows = [row for step in range(3 * n // 6) for row in data.rows(step)]
    counts = Counter(source for source, _ in rows)
    assert counts[0] == 2 * counts[1]
    assert max(Counter(row for row in rows if row[0] == 1).values()) == 1
    assert data.epochs(3 * n // 6)[0] == pytest.approx(2 * data.epochs(3 * n // 6)[1])


def test_validation_counts_every_token_once(workdir):
    val = Shards(workdir / "data/shards", "val")
    tokens = val.tokens(0, 1 << 40)
    ids, targets = validation_rows(val, 32, 0, EOT)
    assert np.array_equal(targets[targets != IGNORE], tokens[1:]) and np.array_equal(
        ids[targets != IGNORE], tokens[:-1]
    )
    assert (validation_rows(val, 32, 50, EOT)[1] != IGNORE).sum() == 50


def test_mixtures_are_parsed_and_mistakes_named(workdir):
    assert parse_mixture("a:3,b:1") == [("a", 0.75), ("b", 0.25)] and parse_mixture("a") == [("a", 1.0)]
    assert parse_mixture("a/:3,./b:1e0") == [("a", 0.75), ("b", 0.25)]
    twice = ("a,a", "a,a/", "a:1,./a:2", f"a,{Path('a').absolute()}", "a,b,x/../a")
    for bad in ("a:x", "", ",", ":3", "a:0", "a:1,b:-1", "a:nan", "a:inf,b", "a:1e308,b:1e308", "a:", *twice):
        with pytest.raises(UserError):
            parse_mixture(bad)
    with pytest.raises(UserError, match="too few"):
        mixture(workdir, block_size=1_000_000)


def test_a_weight_where_none_is_read_is_not_taken_for_a_name(tmp_path):
    """The message told to prepare a folder that is called a:2."""
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="has a weight, and --val takes folders without"):
        parse_folders(f"{tmp_path}/a:2", "val")
    (tmp_path / "a:2").mkdir()
    assert parse_folders(f"{tmp_path}/a:2", "val") == [(f"{tmp_path}/a:2", 1.0)]
