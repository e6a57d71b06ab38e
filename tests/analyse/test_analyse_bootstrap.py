"""The bootstrap: SciPy's intervals from SciPy's resamples, and intervals that hold the truth."""

import numpy as np
import pytest
from scipy import stats

from codestage.analyse.bootstrap import Resamples, counts, percentile_interval, resampled_means
from codestage.analyse.effects import combine, make_test, task_parts


def interval(tasks, *, seed=0):
    """The hierarchical interval of one contrast; each of `tasks` is D `[seed, item]`."""
    parts = [task_parts(d[None]) for d in tasks]
    drawn = Resamples(tasks[0].shape[0], seed=seed)
    pairs = enumerate(zip(tasks, parts, strict=True))
    items = [drawn.from_items(i, d[None], p.item_variance) for i, (d, p) in pairs]
    whole = combine(parts)
    draws = whole.estimate[:, None] + drawn.from_seeds(whole.by_seed) + np.mean(items, axis=0)
    low, high = percentile_interval(draws, 0.05)
    return float(low[0]), float(high[0]), draws[0]


def test_the_same_resamples_give_scipys_interval():
    d = np.random.default_rng(0).normal(0.1, 1, 80)
    theirs = stats.bootstrap(
        (d,), np.mean, n_resamples=999, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    indices = np.random.default_rng(5).integers(0, 80, (999, 80))
    low, high = percentile_interval(resampled_means(counts(indices, 80), d[None]), 0.05)
    assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), rel=1e-12)


def test_unknown_items_leave_sum_and_count():
    rng = np.random.default_rng(1)
    d = rng.normal(0, 1, (2, 30))
    d[0, 4] = d[0, 9] = np.nan
    indices = rng.integers(0, 30, (50, 30))
    found = resampled_means(counts(indices, 30), d)
    assert found == pytest.approx(np.array([[np.nanmean(row[i]) for i in indices] for row in d]))


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_a_mean_over_seeds_is_drawn_from_students_t(seeds):
    x = np.random.default_rng(seeds).normal(0, 2, (4, seeds))
    draws = Resamples(seeds, draws=8192).from_seeds(x)
    scaled = draws / (x.std(axis=1, ddof=1) / seeds**0.5)[:, None]
    for row in scaled:
        for p in (0.05, 0.25, 0.5, 0.9):
            assert stats.t.cdf(np.quantile(row, p), seeds - 1) == pytest.approx(p, abs=0.015)


def test_draws_of_several_contrasts_are_joint():
    """What is drawn for a sum is the sum of what is drawn for its parts."""
    x = np.random.default_rng(2).normal(0, 1, (2, 4))
    both = Resamples(4).from_seeds(np.vstack([x, x.sum(axis=0)]))
    assert both[2] == pytest.approx(both[0] + both[1])


def test_resampled_items_have_the_variance_that_items_add():
    """Not that of the rest, which the seeds' means hold already."""
    rng = np.random.default_rng(3)
    d = rng.normal(0, 0.3, (1, 1, 200)) + rng.normal(0, 0.6, (1, 3, 200))
    part = task_parts(d)
    draws = Resamples(3).from_items(0, d, part.item_variance)
    assert draws.var() == pytest.approx(float(part.item_variance[0]), rel=1e-3)
    assert float(part.item_variance[0]) < 0.7 * d.mean(axis=1).var() / 200


@pytest.mark.parametrize(("seeds", "seed_sd"), [(1, 0.0), (3, 0.0), (3, 0.03), (5, 0.03)])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds, seed_sd):
    """Of right and wrong answers, few of which differ: nothing like normal."""
    rng = np.random.default_rng(10 * seeds)
    held, runs, truth = 0, 400, 0.05
    for _ in range(runs):
        shift = truth + rng.normal(0, seed_sd, (seeds, 1))
        swing = rng.uniform(0.05, 0.3, (1, 120))
        u = rng.uniform(0, 1, (seeds, 120))
        # An item is won with p + shift/2, lost with p - shift/2.
        d = np.where(u < swing + shift / 2, 1.0, 0.0) - np.where(u > 1 - swing + shift / 2, 1.0, 0.0)
        low, high, _ = interval([d], seed=int(rng.integers(1 << 30)))
        held += low <= truth <= high
    assert 0.925 <= held / runs <= 0.99


def test_intervals_are_those_of_the_analysis_of_variance():
    rng = np.random.default_rng(4)
    tasks = [
        rng.normal(0, 0.02, (3, 1)) + rng.normal(0, 0.2, (1, n)) + rng.normal(0, 0.3, (3, n))
        for n in (100, 300)
    ]
    low, high, _ = interval(tasks)
    ends = make_test(combine([task_parts(d) for d in tasks])).interval(0.05)
    assert (low, high) == pytest.approx(ends, rel=0.08)


def test_the_same_seed_gives_the_same_draws():
    d = [np.random.default_rng(6).normal(0, 1, (3, 40))]
    assert (interval(d)[2] == interval(d)[2]).all()
