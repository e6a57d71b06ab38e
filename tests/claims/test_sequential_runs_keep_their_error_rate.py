"""Claim: looking after every seed, and stopping when one likes, errs no more often than is told."""

import numpy as np
import pytest
from scipy import stats

from codestage.analyse.sequential import e_value, half_width, intervals, looked

ALPHA, STUDIES = 0.05, 4000


def running(rng, sd, n, mean=0.0, studies=STUDIES):
    """Means and standard deviations after each seed `[study, seed]`, from the second on."""
    x = rng.normal(mean, sd, (studies, n))
    count = np.arange(1, n + 1)
    means = x.cumsum(axis=1) / count
    spread = (x**2).cumsum(axis=1) - count * means**2
    return means[:, 1:], np.sqrt(spread[:, 1:] / (count[1:] - 1))


@pytest.mark.parametrize("sd", [0.002, 0.05, 3.0])
@pytest.mark.parametrize("n", [6, 12, 30])
def test_false_findings_over_all_looks(sd, n):
    means, sds = running(np.random.default_rng(n), sd, n)
    counts = range(2, n + 1)
    found = np.array(
        [[e_value(t, k) for t, k in zip(row, counts, strict=True)] for row in t_values(means, sds)]
    )
    assert (found.max(axis=1) >= 1 / ALPHA).mean() <= ALPHA


def t_values(means, sds):
    return means / sds * np.sqrt(np.arange(2, means.shape[1] + 2))


def test_a_test_of_fixed_size_that_is_looked_at_after_every_seed_does_not():
    means, sds = running(np.random.default_rng(1), 1.0, 30)
    p = 2 * stats.t.sf(np.abs(t_values(means, sds)), np.arange(1, 30))
    assert (p.min(axis=1) < ALPHA).mean() > 3 * ALPHA


@pytest.mark.parametrize("mean", [0.0, 0.7, -4.0])
def test_the_confidence_sequence_holds_the_truth_at_all_times_at_once(mean):
    means, sds = running(np.random.default_rng(2), 1.5, 30, mean)
    reach = np.array([half_width(k, ALPHA) for k in range(2, 31)]) * sds
    held = (np.abs(means - mean) <= reach).all(axis=1).mean()
    assert 1 - ALPHA <= held < 1  # 1 would be an interval that is never wrong, and never of use


@pytest.mark.parametrize("seed_sd", [0.005, 0.02, 0.06])
@pytest.mark.parametrize("item_sd", [0.0, 0.1, 0.4])
def test_with_items_drawn_once_it_holds_the_truth_too(seed_sd, item_sd):
    """Seeds' and items' parts of all sizes beside each other; the truth is that of all items there are."""
    rng, truth, studies, items = np.random.default_rng(3), 0.03, 250, 80
    missed = called = 0
    for _ in range(studies):
        d = [
            truth
            + rng.normal(0, seed_sd, (10, 1))
            + rng.normal(0, item_sd, (1, items))
            + rng.normal(0, 0.3, (10, items))
            for _ in range(2)
        ]
        seen = looked(d)
        last = intervals(seen, ALPHA)[-1]
        called += min(look.p() for look in looked([x - truth for x in d])) < ALPHA
        missed += not last["low"] <= 100 * truth <= last["high"]
    assert missed / studies <= ALPHA + 0.01
    assert called / studies <= ALPHA + 0.01, "p knows of the items too"


def test_effects_of_three_standard_deviations_are_found_with_about_six_seeds():
    means, sds = running(np.random.default_rng(4), 1.0, 12, 3.0)
    reach = np.array([half_width(k, ALPHA * 0.8 / 3) for k in range(2, 13)]) * sds
    beyond = np.abs(means) > reach
    assert beyond[:, :5].any(axis=1).mean() > 0.65
    assert beyond.any(axis=1).mean() > 0.98
