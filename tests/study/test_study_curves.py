"""Schedules as curves: their totals, their order, and what is refused."""

from fractions import Fraction

import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

from codestage.errors import UserError
from codestage.study.curves import CURVES, pieces
from codestage.study.expand import expand
from codestage.study.load import load_study
from codestage.study.schedule import phases, shares

TEXT, CODE = {"text": Fraction(1)}, {"code": Fraction(1)}


def code(curve, *, width=Fraction(1, 5), steps=20):
    """The share of code in each phase, in order."""
    made = pieces(curve, TEXT, CODE, width=width, steps=steps)
    assert sum(share for share, _ in made) == 1
    assert all(sum(mix.values()) == 1 for _, mix in made)
    return [float(mix["code"]) for _, mix in made]


@pytest.mark.parametrize(
    ("curve", "total"),
    [
        ("linear", 0.5),
        ("cosine", 0.5),
        ("warm-in", 0.9),
        ("u-shape", 0.5),
        ("early-only", 0.2),
        ("late-only", 0.2),
        ("cooldown-only", 0.2),
    ],
)
def test_totals_are_those_of_the_curve(curve, total):
    made = pieces(curve, TEXT, CODE, width=Fraction(1, 5), steps=20)
    assert float(shares(made)["code"]) == pytest.approx(total)
    assert set(CURVES) >= {curve}


def test_curves_have_their_shape():
    assert code("linear") == sorted(code("linear"))
    assert code("cosine") == sorted(code("cosine"))
    assert code("u-shape") == code("u-shape")[::-1]
    assert min(code("u-shape")) == code("u-shape")[10]
    assert code("warm-in")[4:] == [1.0] * 16
    assert code("early-only") == [1.0, 0.0]
    assert code("late-only") == code("cooldown-only") == [0.0, 1.0]


@given(st.integers(1, 10**9), st.sampled_from(CURVES), st.integers(2, 60))
def test_tokens_are_exact_whatever_the_curve(tokens, curve, steps):
    made = pieces(curve, TEXT, CODE, width=Fraction(1, 3), steps=steps)
    planned = phases(tokens, made)
    assert sum(p.tokens for p in planned) == tokens
    held = sum(p.by_source.get("code", 0) for p in planned)
    assert abs(held - tokens * shares(made)["code"]) < 1


def study_with(tiny, option):
    tiny.write_text(TINY.replace("{mix: {prose: 2, programs: 1}}", option))
    return load_study(tiny)


CURVE = "{curve: CURVE, from: {prose: 1}, to: {programs: 1}MORE}"


@pytest.mark.parametrize("curve", CURVES)
def test_every_curve_can_be_written_in_a_study(tiny, curve):
    more = ", width: 0.2" if curve in ("warm-in", "early-only", "late-only") else ""
    study = study_with(tiny, CURVE.replace("CURVE", curve).replace("MORE", more))
    arm = next(arm for arm in expand(study) if arm.name == "text+code/text")
    assert sum(phase.by_source.get("programs", 0) for phase in arm.stages[0].phases) > 0
    if curve == "cooldown-only":  # the study's cooldown is its last quarter
        assert [p.tokens for p in arm.stages[0].phases] == [3000, 1000]


def test_a_function_of_ones_own(tiny):
    (tiny.parent / "mine.py").write_text("def bump(t):\n    return 4 * t * (1 - t)\n")
    study = study_with(tiny, "{curve: 'mine.py:bump', from: {prose: 1}, to: {programs: 1}, steps: 4}")
    arm = next(arm for arm in expand(study) if arm.name == "text+code/text")
    # 4 t (1 - t) at 1/8, 3/8, 5/8, 7/8 is 7/16, 15/16, 15/16, 7/16.
    parts = [phase.by_source["programs"] for phase in arm.stages[0].phases]
    assert parts == pytest.approx([437.5, 937.5, 937.5, 437.5], abs=1.5)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("def f(t):\n    return 2", "is 2 at"),
        ("def f(t):\n    return t / 0", "ZeroDivisionError"),
        ("def f(t):\n    return {}[t]", "KeyError"),
        ("def g(t):\n    return t", "defines no 'f'"),
        ("import nothing_like_it", "ModuleNotFoundError"),
    ],
)
def test_a_function_that_does_not_work_is_told_with_its_line(tiny, function, told):
    (tiny.parent / "mine.py").write_text(function)
    with pytest.raises(UserError, match=rf"tiny\.yaml:\d+: curve 'mine.py:f'.*{told}"):
        study_with(tiny, "{curve: 'mine.py:f', from: {prose: 1}, to: {programs: 1}}")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("{curve: linaer, from: {prose: 1}, to: {programs: 1}}", "write one of linear"),
        ("{curve: linear, from: {prose: 1}}", "give from and to"),
        ("{curve: linear, from: {prose: 1}, to: {programs: 1}, width: 0.1}", "takes no width"),
        ("{curve: warm-in, from: {prose: 1}, to: {programs: 1}}", "needs width"),
        ("{curve: late-only, from: {prose: 1}, to: {programs: 1}, width: 1.5}", "not between 0 and 1"),
        ("{mix: {prose: 1}, from: {prose: 1}}", "go with a curve"),
        ("{phases: [{prose: 1}], lengths: [1, 2]}", "one number for each"),
        ("{curve: linear, from: {prose: 0}, to: {programs: 1}}", "all zero"),
    ],
)
def test_what_makes_no_curve_is_refused(tiny, option, told):
    with pytest.raises(UserError, match=told):
        study_with(tiny, option)


def test_cooldown_only_needs_a_cooldown(tiny):
    text = TINY.replace(
        "{mix: {prose: 2, programs: 1}}", CURVE.replace("CURVE", "cooldown-only").replace("MORE", "")
    )
    tiny.write_text(text.replace("schedule: wsd", "schedule: cosine"))
    with pytest.raises(UserError, match=r"needs lr: \{schedule: wsd\}"):
        load_study(tiny)


def test_lengths_of_phases(tiny):
    study = study_with(tiny, "{phases: [{prose: 1}, {programs: 1}], lengths: [3, 1]}")
    arm = next(arm for arm in expand(study) if arm.name == "text+code/text")
    assert [phase.tokens for phase in arm.stages[0].phases] == [3000, 1000]


def test_curves_of_unequal_totals_are_refused_beside_each_other(tiny):
    extra = "      late: {curve: late-only, from: {prose: 1}, to: {programs: 1}, width: 0.2}\n"
    text = TINY.replace(
        "{mix: {prose: 2, programs: 1}}", "{mix: {prose: 2, programs: 1}}\n" + extra.rstrip()
    )
    tiny.write_text(text)
    with pytest.raises(UserError, match="equal totals"):
        load_study(tiny)
    tiny.write_text(text.replace("width: 0.2", "width: 1/3"))
    assert load_study(tiny)


def test_the_papers_phases_are_those_written_out_by_hand_and_a_mix_of_five_to_three_has_their_totals():
    tokens, text, both = 384_000, {"chat": Fraction(1)}, {"code_chat": Fraction(1)}
    written = [(7, 3), (7, 3), (6, 4), (5, 5)]
    for curve, ratios in (("ma2024-increase", written), ("ma2024-decrease", written[::-1])):
        named = phases(tokens, pieces(curve, text, both, width=Fraction(1), steps=20))
        by_hand = phases(
            tokens, [(Fraction(1), {"chat": Fraction(a), "code_chat": Fraction(b)}) for a, b in ratios]
        )
        assert named == by_hand
        assert sum(p.by_source["code_chat"] for p in named) == tokens * 3 // 8
