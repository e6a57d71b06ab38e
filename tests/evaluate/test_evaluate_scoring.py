"""Reading answers and scoring them, against cases with a reason each, and against NumPy."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codestage.evaluate import scoring

CASES = json.loads((Path(__file__).parent / "cases.json").read_text(encoding="utf-8"))
NATS = st.lists(st.floats(-200, 0), min_size=2, max_size=6)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['output']!r} for {c['gold']!r}")
def test_an_answer_is_read_as_a_person_would(case):
    answer, status = scoring.read_output(case["output"], cot=case["cot"])
    right = answer is not None and scoring.same_answer(answer, case["gold"])
    verdict = status if status != "ok" else "right" if right else "wrong"
    assert verdict == case["expected"], case["why"]


def test_there_are_enough_cases_of_each_kind_and_none_twice():
    assert len(CASES) >= 60
    assert {c["expected"] for c in CASES} == {"right", "wrong", "unparsed", "empty"}
    assert len({(c["output"], c["gold"], c["cot"]) for c in CASES}) == len(CASES)


@given(st.text(max_size=30))
def test_whatever_is_written_can_be_compared_and_equals_itself(text):
    assert scoring.same_answer(text, text)
    answer, status = scoring.read_output(text, cot=False)
    assert (answer is None) == (status != "ok")


@given(st.integers(-(10**9), 10**9))
def test_every_way_to_write_a_whole_number_is_that_number(number):
    for way in (f"{number}", f"{number:,}", f"{number}.0", f" {number:,} apples.", f"{number:+}"):
        assert scoring.same_answer(way, str(number))
        assert not scoring.same_answer(way, str(number + 1))


@given(NATS, st.data())
def test_choice_scores_agree_with_numpy(nats, data):
    gold = data.draw(st.integers(0, len(nats) - 1))
    weights = np.exp(np.array(nats) - max(nats))
    assert scoring.choice_probability(nats, gold) == pytest.approx(weights[gold] / weights.sum())
    best = np.array(nats) == max(nats)
    assert scoring.choice_accuracy(nats, gold) == pytest.approx(best[gold] / best.sum())


def test_equal_choices_share_the_point():
    assert [scoring.choice_accuracy([-1.0, -1.0, -2.0], g) for g in range(3)] == [0.5, 0.5, 0.0]


def test_bits_per_byte_of_a_uniform_model_are_eight():
    assert scoring.bits_per_byte(-3 * math.log(256), "abc") == pytest.approx(8)
    assert scoring.bits_per_byte(-2 * math.log(256), "ä") == pytest.approx(8)  # two bytes
