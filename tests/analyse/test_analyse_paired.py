"""Item by item: McNemar's test, sign flips, and how often they raise a false alarm."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from codestage.analyse.effects import benjamini_hochberg
from codestage.analyse.paired import flips, item_p


def answers(rng, right, items):
    return (rng.uniform(0, 1, items) < right).astype(float)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.4])
def test_one_seed_of_right_and_wrong_is_mcnemars_exact_test(shift):
    rng = np.random.default_rng(0)
    a, b = answers(rng, 0.4, 150), answers(rng, 0.4 + shift, 150)
    table = [[np.sum((a == x) & (b == y)) for y in (0, 1)] for x in (0, 1)]
    d = (b - a)[None, None]
    assert item_p(d)[0] == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert [int(n[0]) for n in flips(d)] == [table[0][1], table[1][0]]


def test_several_seeds_are_scipys_permutation_test():
    rng = np.random.default_rng(1)
    d = rng.integers(-1, 2, (1, 3, 60)) + (rng.uniform(0, 1, (1, 3, 60)) < 0.1)
    theirs = stats.permutation_test(
        (d[0].mean(axis=0), np.zeros(60)), lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples", vectorized=True, n_resamples=20_000, rng=np.random.default_rng(2),
    )  # fmt: skip
    assert item_p(d)[0] == pytest.approx(theirs.pvalue, abs=0.015)


@pytest.mark.parametrize("seeds", [1, 3])
def test_false_alarms_are_no_more_than_one_in_twenty(seeds):
    rng = np.random.default_rng(3)
    easy = rng.uniform(0, 1, (2000, 1, 80))
    sides = [(rng.uniform(0, 1, (2000, seeds, 80)) < easy).astype(float) for _ in range(2)]
    alarms = np.mean(item_p(sides[0] - sides[1]) < 0.05)
    assert alarms <= 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5


def test_unknown_items_are_left_out():
    d = np.random.default_rng(4).integers(-1, 2, (1, 1, 30)).astype(float)
    hurt = np.concatenate([d, np.full((1, 1, 5), np.nan)], axis=2)
    assert item_p(hurt)[0] == item_p(d)[0]
    assert np.isnan(item_p(np.full((1, 1, 5), np.nan))[0])
    assert item_p(np.zeros((1, 1, 5)))[0] == 1.0


def test_the_rate_of_false_discoveries_is_that_of_statsmodels():
    ps = np.random.default_rng(5).uniform(0, 0.2, 30).tolist()
    assert benjamini_hochberg(ps) == pytest.approx(multipletests(ps, method="fdr_bh")[1])
    assert benjamini_hochberg([]) == []
