"""Means of arms: intervals that admit what was not seen, and shared checkpoints that count once."""

import numpy as np
import pytest

from codestage.analyse.arms import arm_rows
from codestage.analyse.records import Records


def rows(scores, chance=0.25):
    """Of one task; `scores` are `[arms, seeds, items]`."""
    names = [f"a{i}" for i in range(len(scores))]
    study = {
        "stages": ["tune"],
        "tasks": [{"name": "t", "domain": "d", "chance": chance, "items": 1, "cot": ["off"]}],
        "arms": [{"name": name, "role": "grid"} for name in names],
    }
    held = {("tune", "off", "t", "acc"): np.asarray(scores, np.float32)}
    records = Records(study, [], names, list(range(scores.shape[1])), held)
    found = arm_rows(records, stage="tune", cot="off", metric="acc")
    return [row for row in found if row["level"] == "task"]


@pytest.mark.parametrize("shape", [(1, 2), (1, 3), (3, 2), (3, 20)])
@pytest.mark.parametrize("value", [0, 1])
def test_answers_that_are_all_alike_are_no_certainty(shape, value):
    (row,) = rows(np.full((1, *shape), value), chance=0.5)
    assert row["mean"] == value
    assert row["high"] - row["low"] > 0.05
    assert row["p_chance"] > 0


def test_few_right_answers_are_not_above_chance():
    (row,) = rows(np.ones((1, 1, 2)), chance=0.5)
    assert not row["above_chance"]


def test_arms_that_share_a_checkpoint_are_one_measurement():
    """Ten arms after a stage of two options say of each what two arms would."""
    rng = np.random.default_rng(3)
    two = (rng.random((2, 3, 200)) < 0.3 + rng.normal(0, 0.05, (2, 3, 1))).astype(float)
    alone, shared = rows(two), rows(np.repeat(two, 5, axis=0))
    told = ("mean", "low", "high", "p_chance", "above_chance")
    for i, row in enumerate(shared):
        assert {key: row[key] for key in told} == {key: alone[i // 5][key] for key in told}


def test_arms_that_happen_to_have_as_many_right_are_not_one_measurement():
    """Of forty arms that guess, equal counts are no shared checkpoint: each counts in the correction."""
    rng = np.random.default_rng(4)
    scores = (rng.random((40, 1, 25)) < 0.25).astype(float)
    scores[0] = np.arange(25) < 12
    by_hand = rows(scores[:1])[0]["p_chance"] * 40
    assert rows(scores)[0]["p_chance"] == pytest.approx(by_hand, rel=1e-4)


def test_intervals_hold_the_truth_as_often_as_they_say_after_a_shared_stage():
    rng = np.random.default_rng(1)
    held = total = 0
    for _ in range(300):
        two = (rng.random((2, 3, 400)) < 0.5 + rng.normal(0, 0.03, (2, 3, 1))).astype(float)
        for row in rows(np.repeat(two, 5, axis=0)):
            held, total = held + (row["low"] <= 0.5 <= row["high"]), total + 1
    assert 0.93 < held / total < 0.985
