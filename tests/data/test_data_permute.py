import numpy as np
import pytest
from codestage.data.permute import permute, unpermute
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare


@given(st.integers(1, 3000), st.integers(0, 2**62), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_every_entry_occurs_once_and_the_way_back_is_found(n, seed, epoch):
    k = np.arange(n)
    out = permute("code", seed, epoch, k, n)
    assert np.array_equal(np.sort(out), k)
    assert np.array_equal(unpermute("code", seed, epoch, out, n), k)


def test_an_entry_stands_alone():
    n = 10**12
    k = np.array([0, 1, 5, n - 1, n // 3])
    whole = permute("code", 3, 1, k, n)
    assert [int(permute("code", 3, 1, k[i : i + 1], n)[0]) for i in range(5)] == whole.tolist()
    assert whole.min() >= 0
    assert whole.max() < n


def test_name_seed_and_epoch_each_give_another_order():
    k = np.arange(1000)
    keys = [("a", 1, 0), ("b", 1, 0), ("a", 2, 0), ("a", 1, 1)]
    orders = {permute(*key, k, 1000).tobytes() for key in keys}
    assert len(orders) == len(keys)


@pytest.mark.parametrize("n", [2, 7, 16, 100, 1000])
def test_every_place_is_equally_likely_for_the_first_and_the_last_row(n):
    """Over 4,000 seeds, chi-squared in at most 20 bins; a fixed run, so no chance of a false alarm."""
    for k in (0, n - 1):
        out = [int(permute("s", seed, 0, np.array([k]), n)[0]) for seed in range(4000)]
        bins = min(n, 20)
        counts = np.histogram(out, bins=bins, range=(0, n))[0]
        expected = np.histogram(np.arange(n), bins=bins, range=(0, n))[0] * 4000 / n
        assert chisquare(counts, expected).pvalue > 1e-4
