"""Claim: a planted effect is found at its size; a planted null is not; errors are as rare as told."""

import numpy as np
import pytest
from records_fixture import write

from codestage.analyse.run import analyse

MAIN = ("code@pretrain", "code@tune", "pretrain×tune")


def overall(answer):
    return {e["contrast"]: e for e in answer["effects"] if e["level"] == "overall"}


def test_a_known_difference_is_found_and_a_null_is_not(tmp_path):
    found = overall(analyse(write(tmp_path, pretrain=0.10)))
    effect, null = found["code@pretrain"], found["code@tune"]
    assert effect["verdict"] == "up"
    assert effect["low"] <= 10 <= effect["high"]
    assert null["verdict"] in ("open", "equivalent")
    assert null["low"] <= 0 <= null["high"]


def test_harm_is_found_as_harm_and_an_interaction_as_one(tmp_path):
    found = overall(analyse(write(tmp_path, tune=-0.12, interaction=0.15)))
    assert found["pretrain×tune"]["verdict"] == "up"
    assert found["pretrain×tune"]["low"] <= 15 <= found["pretrain×tune"]["high"]
    # Code at tuning: -12 without code before it, +3 with it: -4.5 on average.
    assert found["code@tune"]["low"] <= -4.5 <= found["code@tune"]["high"]


def test_no_difference_is_shown_to_be_none_where_there_is_data_enough(tmp_path):
    found = overall(analyse(write(tmp_path, items=3000, seeds=6)))
    assert {found[name]["verdict"] for name in MAIN[:2]} <= {"equivalent", "open"}
    assert "equivalent" in {found[name]["verdict"] for name in MAIN}


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_they_should_be(tmp_path):
    """40 studies without any effect: intervals at 95 %, at most a few claims in all."""
    outside = claims = total = 0
    for seed in range(40):
        found = overall(analyse(write(tmp_path / str(seed), rng_seed=seed, items=60)))
        for name in MAIN:
            total += 1
            outside += not found[name]["low"] <= 0 <= found[name]["high"]
            claims += found[name]["verdict"] in ("up", "down")
    assert outside / total < 0.12
    assert claims <= 9  # 6 expected at 5 %, less for what Holm takes back


@pytest.mark.slow
def test_intervals_hold_the_planted_effect(tmp_path):
    held = []
    for seed in range(40):
        found = overall(analyse(write(tmp_path / str(seed), pretrain=0.08, rng_seed=seed, items=60)))
        held.append(found["code@pretrain"]["low"] <= 8 <= found["code@pretrain"]["high"])
    assert np.mean(held) >= 0.85
