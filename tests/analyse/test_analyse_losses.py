"""Effects on held-out loss, against SciPy's paired t test and sums by hand."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from records_fixture import study
from scipy import stats

from codestage.analyse.contrasts import contrasts
from codestage.analyse.effects import holm
from codestage.analyse.losses import loss_rows, read_losses
from codestage.analyse.records import Records
from codestage.errors import UserError

SOURCES = (("prose", "text"), ("programs", "code"))


def measured(told, rng):
    """Losses of each run, some of them before a stage's end, in no order."""
    rows = [
        {
            "arm": arm["name"], "seed": seed, "stage": stage, "tokens": tokens, "source": source, "domain": domain,
            "loss": float(rng.normal(3, 0.2) + (tokens < 90)),
        }
        for arm in told["arms"]
        for seed in told["seeds"]
        for stage in told["stages"]
        for source, domain in SOURCES
        for tokens in (90, 30)
    ]  # fmt: skip
    return [rows[i] for i in rng.permutation(len(rows))]


def records(told):
    arms = [arm["name"] for arm in told["arms"]]
    return Records(told, [], arms, told["seeds"], {})


def found(told, rows):
    rows = loss_rows(records(told), contrasts(told), rows)
    return {(r["contrast"], r["stage"], r["source"]): r for r in rows}


def losses(rows, arm, stage, source):
    ends = {
        r["seed"]: r["loss"]
        for r in rows
        if (r["arm"], r["stage"], r["source"], r["tokens"]) == (arm, stage, source, 90)
    }
    return np.array([ends[seed] for seed in sorted(ends)])


def test_two_arms_are_compared_as_by_a_paired_t_test():
    told = study(seeds=4)
    rows = measured(told, np.random.default_rng(0))
    row = found(told, rows)["uniform@tune|text at pretrain", "tune", "prose"]
    with_code = losses(rows, "text/uniform", "tune", "prose")
    without = losses(rows, "text/text", "tune", "prose")
    theirs = stats.ttest_rel(without, with_code)  # less loss is better
    ends = theirs.confidence_interval()
    assert row["estimate"] == pytest.approx((without - with_code).mean(), rel=1e-5)
    assert (row["low"], row["high"]) == pytest.approx((ends.low, ends.high), rel=1e-5)
    assert row["p"] == pytest.approx(theirs.pvalue, rel=1e-5)
    assert (row["seeds"], row["unit"], row["domain"]) == (4, "nats", "text")


def test_a_main_effect_weighs_cells_alike_and_is_asked_after_its_own_stage_too():
    told = study(seeds=3)
    rows = measured(told, np.random.default_rng(1))
    effects = found(told, rows)
    for stage in ("pretrain", "tune"):
        means = {
            option: np.mean(
                [losses(rows, f"{option}/{t}", stage, "programs") for t in told["options"]["tune"]]
            )
            for option in told["options"]["pretrain"]
        }
        row = effects["code@pretrain", stage, "programs"]
        assert row["estimate"] == pytest.approx(means["text"] - means["text+code"], rel=1e-5)
    assert ("code@tune", "pretrain", "programs") not in effects


def test_p_is_adjusted_over_a_family_and_its_sources_stage_by_stage():
    told = study(seeds=3)
    effects = found(told, measured(told, np.random.default_rng(2)))
    for family, stage, tests in (
        ("pretrain", "pretrain", 2),
        ("pretrain", "tune", 2),
        ("simple", "tune", 6),
    ):
        group = [r for r in effects.values() if (r["family"], r["stage"]) == (family, stage)]
        assert len(group) == tests
        assert [r["p_adjusted"] for r in group] == pytest.approx(holm([r["p"] for r in group]), rel=1e-5)


def test_verdicts_need_the_corrected_test():
    told = study(seeds=5)
    rng = np.random.default_rng(3)
    rows = measured(told, rng)
    for r in rows:
        shift = {"prose": 0.2, "programs": -0.4}[r["source"]] * ("+code" in r["arm"])
        r["loss"] = 3 + shift + rng.normal(0, 0.01)
    effects = found(told, rows)
    assert effects["code@pretrain", "tune", "prose"]["verdict"] == "down"
    assert effects["code@pretrain", "tune", "programs"]["verdict"] == "up"
    assert effects["code@tune", "tune", "prose"]["verdict"] == "open"


def test_one_seed_gives_a_difference_and_no_more():
    told = study(seeds=1)
    row = found(told, measured(told, np.random.default_rng(4)))["code@tune", "tune", "prose"]
    assert row["estimate"] is not None
    assert [row[k] for k in ("low", "high", "p", "p_adjusted", "mde", "verdict")] == [None] * 5 + [
        "open"
    ]


def test_seeds_that_one_arm_lacks_are_left_out_and_unknown_runs_are_none():
    told = study(seeds=3)
    rows = measured(told, np.random.default_rng(5))
    kept = [r for r in rows if (r["arm"], r["seed"]) != ("text/text", 1)]
    kept.append({**rows[0], "arm": "another"})
    effects = found(told, kept)
    assert effects["uniform@tune|text at pretrain", "tune", "prose"]["seeds"] == 2
    assert effects["increase-uniform@tune", "tune", "prose"]["seeds"] == 3
    assert loss_rows(records(told), contrasts(told), []) == []


def test_losses_that_cannot_be_read_are_told_by_name(tmp_path):
    path = tmp_path / "validation.parquet"
    assert read_losses(path) == []
    pq.write_table(pa.table({"arm": ["a"]}), path)
    with pytest.raises(UserError, match=r"validation\.parquet"):
        read_losses(path)
    path.write_text("nothing")
    with pytest.raises(UserError, match=r"validation\.parquet"):
        read_losses(path)
