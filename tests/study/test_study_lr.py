"""Learning rates at named places."""

import pytest

from codestage.study.lr import lr_at
from codestage.study.schema import LRSpec


def test_wsd_trunk_does_not_know_its_length():
    spec = LRSpec(schedule="wsd", warmup_tokens="1k", decay=0.2)
    short = [lr_at(spec, 1.0, t, 10_000) for t in range(0, 8000, 100)]
    long = [lr_at(spec, 1.0, t, 50_000) for t in range(0, 8000, 100)]
    assert short == long
    assert lr_at(spec, 1.0, 5000, 10_000) == 1.0
    assert lr_at(spec, 1.0, 9000, 10_000) == pytest.approx(0.5)


def test_cosine_linear_and_constant_in_the_middle_and_at_the_end():
    assert lr_at(LRSpec(schedule="cosine"), 2.0, 500, 1000) == pytest.approx(1.0)
    assert lr_at(LRSpec(schedule="linear", final=0.1), 2.0, 1000, 1000) == pytest.approx(0.2)
    assert lr_at(LRSpec(schedule="constant"), 2.0, 999, 1000) == 2.0


def test_warmup_rises():
    spec = LRSpec(schedule="constant", warmup_tokens="1k")
    rates = [lr_at(spec, 1.0, t, 5000) for t in range(0, 1200, 100)]
    assert rates == sorted(rates)
    assert 0 < rates[0] < 0.01
    assert rates[-1] == 1.0
