"""Batches: exact proportions, each window once per epoch, the same for any number of processes and from any step."""

from collections import Counter

import numpy as np
import pytest

from configurator import UserError
from model import IGNORE
from shards import Shards
from training.dataloader import Mixture, Quotas, parse_mixture, validation_rows


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
    options = dict(mixture=[(folder, 1.0)], block_size=32, batch_size=6, seed=3)
    return Mixture(**{**options, **changes})


def test_each_window_is_read_once_per_epoch_and_epochs_differ(workdir):
    data = mixture(workdir, batch_size=1)
    n = data.n_windows[0]
    epochs = [[data.rows(step)[0][1] for step in range(epoch * n, (epoch + 1) * n)] for epoch in range(3)]
    for starts in epochs:
        assert len(set(starts)) == n and all(b - a == 32 for a, b in zip(sorted(starts), sorted(starts)[1:]))
        assert 0 <= min(starts) < 32 and max(starts) + 33 <= len(data.sources[0])
    assert epochs[0] != epochs[1] and len({min(starts) for starts in epochs}) > 1, "another order, another cut"


def test_targets_are_the_next_tokens(workdir):
    data = mixture(workdir)
    tokens = Shards(workdir / "data/shards", "train").tokens(0, 1 << 40)
    ids, targets = data.batch(4)
    for (_, start), x, y in zip(data.rows(4), ids, targets):
        assert np.array_equal(x, tokens[start : start + 32]) and np.array_equal(y, tokens[start + 1 : start + 33])


def test_processes_share_out_the_global_batch(workdir):
    data = mixture(workdir)
    for step in (0, 5):
        whole = data.batch(step)[0]
        for world_size in (2, 3, 6):
            assert np.array_equal(
                whole, np.concatenate([mixture(workdir).batch(step, rank, world_size)[0] for rank in range(world_size)])
            )


def test_batches_are_a_function_of_seed_and_step(workdir):
    assert np.array_equal(mixture(workdir).batch(9)[0], mixture(workdir).batch(9)[0])
    assert not np.array_equal(mixture(workdir).batch(9)[0], mixture(workdir, seed=4).batch(9)[0])


def test_every_source_of_a_mixture_has_its_own_epochs(workdir):
    folder = str(workdir / "data/shards")
    data = mixture(workdir, mixture=[(folder, 2 / 3), (folder, 1 / 3)])
    n = data.n_windows[0]
    rows = [row for step in range(3 * n // 6) for row in data.rows(step)]
    counts = Counter(source for source, _ in rows)
    assert counts[0] == 2 * counts[1]
    assert max(Counter(row for row in rows if row[0] == 1).values()) == 1
    assert data.epochs(3 * n // 6)[0] == pytest.approx(2 * data.epochs(3 * n // 6)[1])


def test_validation_counts_every_token_once(workdir):
    val = Shards(workdir / "data/shards", "val")
    tokens = val.tokens(0, 1 << 40)
    ids, targets = validation_rows(val, 32, 0)
    assert np.array_equal(targets[targets != IGNORE], tokens[1:]) and np.array_equal(
        ids[targets != IGNORE], tokens[:-1]
    )
    assert (validation_rows(val, 32, 50)[1] != IGNORE).sum() == 50


def test_mixtures_are_parsed_and_mistakes_named(workdir):
    assert parse_mixture("a:3,b:1") == [("a", 0.75), ("b", 0.25)] and parse_mixture("a") == [("a", 1.0)]
    for bad in ("a:x", "", "a:0", "a:1,b:-1"):
        with pytest.raises(UserError):
            parse_mixture(bad)
    with pytest.raises(UserError, match="too few"):
        mixture(workdir, block_size=1_000_000)
