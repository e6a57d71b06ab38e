import numpy as np
import pytest
from codestage.data.interleave import FullRows, ListedRows, grouping
from hypothesis import given, settings
from hypothesis import strategies as st


def cut(tokens, seq_len):
    rest = [tokens % seq_len] if tokens % seq_len else []
    return np.array([seq_len] * (tokens // seq_len) + rest, np.int64)


budgets = st.lists(st.integers(0, 300), min_size=1, max_size=7).filter(any)


@given(budgets, st.integers(1, 20))
@settings(max_examples=150, deadline=None)
def test_the_closed_form_equals_the_list(tokens, seq_len):
    """The same order worked out place by place and by sorting all rows."""
    closed, listed = (
        FullRows(tokens, seq_len),
        ListedRows([cut(t, seq_len) for t in tokens], seq_len),
    )
    places = np.arange(closed.n_rows)
    one, other = closed.rows(places), listed.rows(places)
    assert np.array_equal(one.source, other.source)
    assert np.array_equal(one.ordinal, other.ordinal)
    assert np.array_equal(one.tokens, other.tokens)
    for found, expected in zip(closed.short(), listed.short(), strict=True):
        assert np.array_equal(found, expected)
    back = closed.rows(places[::-1])
    assert np.array_equal(back.source[::-1], one.source)


@given(st.lists(st.lists(st.integers(1, 9), max_size=40), min_size=1, max_size=8).filter(any))
@settings(max_examples=150, deadline=None)
def test_no_source_is_further_off_than_the_tree_allows(rows):
    phase = ListedRows([np.array(r, np.int64) for r in rows], 9)
    found = phase.rows(np.arange(phase.n_rows))
    done = np.cumsum(found.tokens)
    for number, row in enumerate(rows):
        held = np.cumsum(np.where(found.source == number, found.tokens, 0))
        assert np.abs(held - done * sum(row) / done[-1]).max() <= 9 * phase.most_off + 1e-9
        assert found.tokens[found.source == number].tolist() == row


@given(st.lists(st.floats(1e-4, 1), min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_up_to_five_sources_stay_within_a_row(weights):
    _, most_off = grouping([max(1, int(1e6 * w)) for w in weights])
    assert most_off <= 1 + 1e-9


@pytest.mark.parametrize(("sources", "rows"), [(8, 1.1), (20, 1.25)])
def test_many_sources_are_grouped_quickly_and_well(sources, rows):
    generator = np.random.default_rng(0)
    for _ in range(5):
        _, most_off = grouping((10 ** generator.uniform(2, 6, sources)).astype(int).tolist())
        assert most_off <= rows


def test_a_phase_of_a_trillion_tokens_needs_no_list():
    tokens = [600 * 10**9 + 1, 399 * 10**9, 10**9 - 1]
    phase = FullRows(tokens, 4096)
    places, lacks = phase.short()
    assert phase.n_rows * 4096 - lacks.sum() == sum(tokens)
    assert phase.rows(places).tokens.tolist() == (4096 - lacks).tolist()
    middle = phase.rows(np.arange(phase.n_rows // 2, phase.n_rows // 2 + 5000))
    share = np.bincount(middle.source, minlength=3) / 5000
    assert np.abs(share - np.array(tokens) / sum(tokens)).max() <= 2 / 5000
