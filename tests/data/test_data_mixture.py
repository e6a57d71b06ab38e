"""The plan of a stage: ranges, random order, permutation, interleaving, supply."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from codestage.data.mixture import MixturePlan, RowCounts, check_supply, interleave, permute
from codestage.errors import UserError


def doses(*parts):
    return [SimpleNamespace(tokens=sum(part.values()), by_source=part) for part in parts]


ROWS = {
    "prose": RowCounts(100, 8),
    "code": RowCounts(30, 8),
    "chat": RowCounts(50, 8, np.random.default_rng(1).integers(1, 9, 50)),
}
PHASES = doses({"prose": 300, "code": 101}, {"chat": 150, "code": 77}, {"prose": 5, "code": 250})


@pytest.mark.parametrize("order", ["even", "random"])
def test_any_range_is_a_part_of_the_whole(order):
    plan = MixturePlan(PHASES, order, ROWS, seed=3)
    whole = plan.rows(0, plan.n_rows)
    assert whole.tokens.sum() == sum(p.tokens for p in PHASES)
    for start, stop in [(0, 1), (5, 40), (49, 60), (plan.n_rows - 3, plan.n_rows + 9)]:
        part = plan.rows(start, stop)
        for name in ("source", "ordinal", "tokens"):
            assert np.array_equal(getattr(part, name), getattr(whole, name)[start:stop])


def test_random_order_moves_the_same_rows_about():
    even = MixturePlan(PHASES, "even", ROWS, seed=3)
    mixed = MixturePlan(PHASES, "random", ROWS, seed=3)
    tables = [plan.rows(0, plan.n_rows) for plan in (even, mixed)]
    one, other = (sorted(zip(t.source, t.ordinal, t.tokens, strict=True)) for t in tables)
    assert one == other
    assert not np.array_equal(tables[0].source, tables[1].source)
    places = [mixed.place(i) for i in range(mixed.n_rows)]
    assert sorted(places) == list(range(mixed.n_rows))
    assert np.array_equal(tables[1].ordinal, tables[0].ordinal[places])


def test_rows_used_are_the_skip_of_the_next_stage():
    plan = MixturePlan(PHASES, "even", ROWS, seed=3, skip={"prose": 7})
    table = plan.rows(0, plan.n_rows)
    for number, name in enumerate(plan.names):
        ordinals = np.sort(table.ordinal[table.source == number])
        first = 7 if name == "prose" else 0
        assert ordinals.tolist() == list(range(first, plan.used()[name]))


@given(st.integers(1, 3000), st.integers(0, 2**62))
@settings(max_examples=100, deadline=None)
def test_a_permutation_holds_every_entry_once(n, seed):
    k = np.arange(n)
    assert np.array_equal(np.sort(permute(seed, k, n)), k)


def test_an_entry_of_a_permutation_stands_alone():
    n = 10**12
    k = np.array([0, 1, 5, n - 1, n // 3])
    whole = permute(3, k, n)
    assert [int(permute(3, k[i : i + 1], n)[0]) for i in range(5)] == whole.tolist()
    assert whole.min() >= 0
    assert whole.max() < n


@pytest.mark.parametrize("n", [2, 7, 16, 100, 1000])
def test_every_place_is_equally_likely_for_the_first_and_the_last_row(n):
    """Over 4,000 seeds, chi-squared in at most 20 bins; a fixed run, so no chance of a false alarm."""
    for k in (0, n - 1):
        out = [int(permute(seed, np.array([k]), n)[0]) for seed in range(4000)]
        bins = min(n, 20)
        counts = np.histogram(out, bins=bins, range=(0, n))[0]
        expected = np.histogram(np.arange(n), bins=bins, range=(0, n))[0] * 4000 / n
        assert chisquare(counts, expected).pvalue > 1e-4


@given(st.lists(st.integers(0, 60), min_size=1, max_size=30).filter(any))
@settings(max_examples=200, deadline=None)
def test_interleaving_adds_one_row_at_a_time_and_keeps_every_share(counts):
    n = sum(counts)
    table = interleave(counts, np.arange(n + 1))
    assert (np.diff(table, axis=0) >= 0).all()
    assert (table.sum(axis=1) == np.arange(n + 1)).all()
    assert table[-1].tolist() == counts
    share = np.arange(n + 1)[:, None] * np.array(counts) / n
    assert np.abs(table - share).max() <= (1 if sum(c > 0 for c in counts) <= 3 else 1.5)


@given(st.integers(1, 10**5), st.integers(1, 10**5), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_parting_is_that_of_whole_numbers_without_end(n, m, seed):
    """Also for 4 * 10^11 rows, whose products do not fit 64 bits."""
    for scale in (1, 2 * 10**6):
        small, whole = sorted((n * scale, m * scale))[0], (n + m) * scale
        index = np.random.default_rng(seed).integers(0, whole + 1, 50)
        index[:2] = 0, whole
        taken = interleave([small, whole - small], index)[:, 0]
        assert taken.tolist() == [(2 * int(i) * small + whole) // (2 * whole) for i in index]


def test_a_stage_of_a_trillion_tokens_keeps_its_shares():
    """4 * 10^9 rows of 256 tokens."""
    tokens = 4 * 10**9 * 256
    rows = {"prose": RowCounts(10**10, 256), "code": RowCounts(10**10, 256)}
    plan = MixturePlan(doses({"prose": tokens // 2, "code": tokens // 2}), "even", rows, seed=0)
    last = plan.rows(plan.n_rows - 1000, plan.n_rows)
    assert np.bincount(last.source).tolist() == [500, 500]
    assert last.ordinal.max() == 2 * 10**9 - 1
    assert plan.tokens_before(plan.n_rows - 1000) == tokens - 1000 * 256


def test_too_little_data_is_refused_and_the_advice_works():
    used = {"code": 70}
    epochs = {"code": 2.0}
    with pytest.raises(UserError, match="source 'code' must give 70 rows") as refused:
        check_supply(used, ROWS, epochs)
    enough = float(str(refused.value).split("set its epochs to ")[1].split(" ")[0])
    check_supply(used, ROWS, {"code": enough})
    with pytest.raises(UserError):
        check_supply(used, ROWS, {"code": enough - 0.05})


@pytest.mark.parametrize(
    ("rows", "need"), [(100, 115), (50, 57), (85, 119), (175, 245), (3, 10), (7, 2_000_003)]
)
def test_the_epochs_that_are_proposed_do(rows, need):
    """Also where the product in floating point is a little less than the rows."""
    held = {"code": RowCounts(rows, 8)}
    with pytest.raises(UserError, match="set its epochs to") as refused:
        check_supply({"code": need}, held, {"code": 1.0})
    told = re.search(r"set its epochs to (\S+) or more", str(refused.value))[1]
    check_supply({"code": need}, held, {"code": float(told)})
