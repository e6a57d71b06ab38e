"""Schedules: exact counts, equal totals, nothing negative."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from codestage.study.schedule import largest_remainder, phases, shares

weights = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 9).map(Fraction), min_size=1).filter(
    lambda mix: any(mix.values())
)


@given(st.integers(1, 10**12), weights)
def test_largest_remainder_is_exact_and_within_one(tokens, mix):
    parts = largest_remainder(tokens, mix)
    total = sum(mix.values())
    assert sum(parts.values()) == tokens
    for name, weight in mix.items():
        assert abs(parts[name] - tokens * weight / total) < 1


def test_five_fifths_share_the_remainder_out():
    assert sorted(largest_remainder(1999, dict.fromkeys("abcde", Fraction(1, 5))).values()) == [
        399,
        400,
        400,
        400,
        400,
    ]


@given(st.integers(1, 10**9), st.lists(weights, min_size=1, max_size=6))
def test_phases_sum_to_the_stage_in_every_source(tokens, mixes):
    made = phases(tokens, [(Fraction(1), mix) for mix in mixes])
    assert sum(p.tokens for p in made) == tokens
    for phase, mix in zip(made, mixes, strict=True):
        assert sum(phase.by_source.values()) == phase.tokens
        assert all(count >= 0 for count in phase.by_source.values())
        assert abs(phase.tokens - tokens / len(mixes)) <= 2 * len(phase.by_source)
        for name, count in phase.by_source.items():
            ideal = Fraction(tokens, len(mixes)) * mix[name] / sum(mix.values())
            assert abs(count - ideal) < 2


@given(st.integers(1, 10**9), st.permutations(range(4)))
def test_the_papers_schedules_have_equal_totals_in_any_order(tokens, order):
    ratios = [(5, 5), (6, 4), (7, 3), (7, 3)]
    uniform = phases(tokens, [(Fraction(1), {"text": Fraction(5), "code": Fraction(3)})])
    mixes = [{"text": Fraction(ratios[i][0]), "code": Fraction(ratios[i][1])} for i in order]
    steps = phases(tokens, [(Fraction(1), mix) for mix in mixes])
    for name in ("text", "code"):
        assert sum(p.by_source[name] for p in steps) == uniform[0].by_source[name]


def test_shares_add_up_over_phases():
    mixes = [(Fraction(1), {"a": Fraction(1)}), (Fraction(1), {"a": Fraction(1), "b": Fraction(1)})]
    assert shares(mixes) == {"a": Fraction(3, 4), "b": Fraction(1, 4)}
