"""Numeric scores, against NumPy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codestage.evaluate import scoring

NATS = st.lists(st.floats(-200, 0), min_size=2, max_size=6)


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
