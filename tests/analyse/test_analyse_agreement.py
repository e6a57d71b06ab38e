"""Agreement against SciPy, statsmodels and brute force; decision accuracy and its interval by counting."""

import json
from itertools import permutations, product

import numpy as np
import pytest
import statsmodels.api as sm
from ladder_fixture import WHOLE, made, peaked, study, write
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.oneway import anova_generic

from codestage.analyse import meta
from codestage.analyse.across import compare
from codestage.analyse.agreement import (
    accuracy,
    decisions,
    decisions_of,
    kendall_p,
    kendall_w,
    sign_agreement,
)
from codestage.analyse.contrasts import contrasts
from codestage.analyse.profile import Profiles
from codestage.analyse.rows import effect_rows
from codestage.analyse.scales import MARGINS, places
from codestage.errors import UserError


def test_w_is_friedmans_statistic_over_its_largest():
    rng = np.random.default_rng(0)
    for ties in (False, True):
        scores = rng.normal(0, 1, (4, 6)) if not ties else rng.integers(0, 4, (4, 6)).astype(float)
        wanted = stats.friedmanchisquare(*scores.T).statistic / (4 * 5)
        assert kendall_w(scores) == pytest.approx(wanted)
    assert kendall_w(np.tile(np.arange(4.0), (3, 1))) == 1
    assert np.isnan(kendall_w(np.ones((3, 4))))


def test_p_of_w_counts_all_orders():
    scores = np.random.default_rng(1).normal(0, 1, (3, 4))
    ranks = stats.rankdata(scores, axis=1)
    seen = kendall_w(scores)
    orders = list(permutations(range(4)))
    found = [
        kendall_w(np.array([ranks[0], ranks[1][list(a)], ranks[2][list(b)]]))
        for a, b in product(orders, orders)
    ]
    assert kendall_p(scores) == pytest.approx(np.mean(np.array(found) >= seen - 1e-9))


def test_p_of_many_orders_is_near_friedmans_and_never_zero():
    scores = np.random.default_rng(2).normal(0, 1, (8, 7)) + np.arange(7) * 0.25
    assert kendall_p(scores) == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue, abs=0.02)
    assert 0 < kendall_p(np.tile(np.arange(9.0), (9, 1))) < 2e-4


def test_p_of_w_is_right_where_orders_are_random():
    rng = np.random.default_rng(3)
    ps = np.array([kendall_p(rng.normal(0, 1, (3, 4))) for _ in range(400)])
    assert (ps <= 0.05).mean() <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


def test_signs_are_counted_with_wilsons_interval():
    found = sign_agreement([1, 2, -1, 3, 0.5, 0])
    assert (found["positive"], found["signed"]) == (4, 5)
    low, high = sm.stats.proportion_confint(4, 5, method="wilson")
    assert (found["low"], found["high"]) == (pytest.approx(low, rel=1e-4), pytest.approx(high, rel=1e-4))
    assert found["p"] == pytest.approx(2 * 6 / 32)
    assert sign_agreement([0.0])["share"] is None


def test_accuracy_counts_pairs_with_the_same_winner():
    rng = np.random.default_rng(4)
    small, large = rng.integers(0, 4, (5, 3)).astype(float), rng.normal(0, 1, (5, 3))
    pairs = np.array([(i, j) for i in range(5) for j in range(i)])
    for draw in range(3):
        hits = []
        for i, j in pairs:
            a, b = small[i, draw] - small[j, draw], large[i, draw] - large[j, draw]
            hits.append(0.5 if a == 0 else float((a > 0) == (b > 0)))
        assert accuracy(small, large, pairs)[draw] == pytest.approx(np.mean(hits))


def both(small, large, *, key, sd=0.5):
    """Profiles of the same arms at two sizes around true means."""
    rng = np.random.default_rng(key)
    found = []
    for i, truth in enumerate((small, large)):
        n = len(truth)
        scores = truth[:, None, None] + rng.normal(0, 2, (1, 3, 1)) + rng.normal(0, sd, (n, 3, 1))
        scores = scores + rng.normal(0, 1, (n, 1, 60)) + rng.normal(0, 5, (n, 3, 60))
        found.append(Profiles({"t": scores}, {"t": 0}, draws=256, seed=2 * key + i).of(["t"]))
    return found


@pytest.mark.parametrize("gap", [3.0, 1.0])
def test_the_interval_of_decision_accuracy_holds_the_true_share(gap):
    """Of the true means at both sizes, of which two pairs are the other way round."""
    large = np.arange(6) * gap
    small = large[[1, 0, 2, 3, 5, 4]]
    held, n = 0, 150
    for key in range(n):
        found = decisions_of(*both(small, large, key=key), slice(0, 6), slice(0, 6))["accuracy"]
        held += found["low"] - 1e-5 <= 13 / 15 <= found["high"] + 1e-5
    assert stats.binom.ppf(0.0015, n, 0.95) <= held


def test_pairs_that_the_large_runs_cannot_resolve_are_told_apart():
    large = np.array([0.0, 0.0, 10.0])
    found = decisions_of(*both(np.array([5.0, 0.0, 10.0]), large, key=1), slice(0, 3), slice(0, 3))
    assert found["pairs"] == 3
    assert found["resolved"] == {"pairs": 2, "estimate": 1.0, "low": 1.0, "high": 1.0}


def test_decisions_of_a_ladder_are_told_for_every_budget_and_prediction():
    records = made(study(budgets=(1_000_000, 4_000_000)), peaked)
    rows = decisions(records, draws=64)
    assert {r["tokens"] for r in rows} == {1_000_000, 4_000_000}
    assert {(r["metric"], r["target"]) for r in rows} == {("acc", "acc"), ("bpb", "bpb"), ("bpb", "acc")}
    row = next(r for r in rows if r["name"] == "sums" and r["target"] == "acc" and r["metric"] == "bpb")
    assert (row["points"], row["accuracy"]["pairs"]) == (10, 45)
    means = {
        m: records.scores["tune", "off", "sums", m].mean(axis=(1, 2), dtype=np.float64)
        for m in ("acc", "bpb")
    }
    arms = records.study["arms"]
    at = {a["name"]: i for i, a in enumerate(arms)}
    grid = [a for a in arms if a["role"] == "grid"]
    small = {
        tuple(a["factors"].values()): at[a["name"]]
        for a in arms
        if a["tokens"] == WHOLE | {"pretrain": row["tokens"]}
    }
    hits = []
    for i, a in enumerate(grid):
        for b in grid[:i]:
            x = -(means["bpb"][small[tuple(a["factors"].values())]])
            y = -(means["bpb"][small[tuple(b["factors"].values())]])
            hits.append((x > y) == (means["acc"][at[a["name"]]] > means["acc"][at[b["name"]]]))
    assert row["accuracy"]["estimate"] == pytest.approx(np.mean(hits), abs=0.012)
    assert decisions(made(study(), peaked)) == []


def test_the_meta_analysis_is_that_of_statsmodels():
    rng = np.random.default_rng(5)
    y, se = rng.normal(0, 2, 6), rng.uniform(0.5, 1.5, 6)
    wanted = combine_effects(y, se**2, method_re="iterated")
    found = meta.together(y, se, np.full(6, 1e9))
    assert found.q == pytest.approx(wanted.q)
    assert found.tau**2 == pytest.approx(wanted.tau2, rel=1e-4)
    assert found.mean == pytest.approx(wanted.mean_effect_re, rel=1e-4)
    assert found.i2 == pytest.approx(max(0, wanted.i2))
    low, high = wanted.conf_int(use_t=True)[3]
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-3), pytest.approx(high, rel=1e-3))


def test_studies_that_differ_are_tested_as_welch_does():
    rng = np.random.default_rng(6)
    groups = [rng.normal(0, s, n) for s, n in ((1, 4), (3, 6), (2, 5))]
    y = np.array([g.mean() for g in groups])
    se = np.array([g.std(ddof=1) / len(g) ** 0.5 for g in groups])
    n = np.array([len(g) for g in groups])
    wanted = anova_generic(y, se**2 * n, n, use_var="unequal")
    assert meta.welch(y, se, n - 1.0) == pytest.approx(wanted.pvalue)


def test_tau_s_interval_and_the_error_rates_hold():
    rng, n = np.random.default_rng(7), 400
    held = wrong = covered = 0
    for _ in range(n):
        se = rng.uniform(0.5, 1.5, 6)
        y = rng.normal(1, 1.0, 6) + rng.normal(0, 1, 6) * se
        found = meta.together(y, se, np.full(6, 1e9))
        held += found.tau_low <= 1.0 <= found.tau_high
        covered += found.low <= 1 <= found.high
        means = rng.normal(0, 1, (6, 3))
        wrong += meta.welch(means.mean(1), means.std(1, ddof=1) / 3**0.5, np.full(6, 2.0)) < 0.05
    slack = 3 * (0.05 * 0.95 / n) ** 0.5
    assert held / n > 0.95 - slack
    assert covered / n > 0.95 - slack
    assert wrong / n < 0.05 + 2 * slack  # Welch's test is some points liberal with 2 degrees of freedom


def test_the_regression_on_size_is_weighted_least_squares():
    rng = np.random.default_rng(8)
    x = np.column_stack([np.ones(7), np.arange(7.0)])
    se = rng.uniform(0.2, 0.6, 7)
    y = x @ [1.0, 0.5] + rng.normal(0, 1, 7)
    found = meta.regression(y, se, x)
    wanted = sm.WLS(y, x, weights=1 / (se**2 + found.tau**2)).fit()
    assert found.beta == pytest.approx(wanted.params)
    assert found.se == pytest.approx(wanted.bse, rel=1e-3)  # tau makes the factor one
    assert found.q == pytest.approx(5, rel=1e-4)


def tuned_alone(metric, task, dose, tuned, tokens):
    return 1.0 - 0.03 * (tuned > 0)


def test_what_tuning_does_is_resolved_however_lucky_the_pre_trainings_were():
    """Arms of one checkpoint differ by their tuning's luck alone; those of several, by theirs too."""
    told = study(budgets=(1_000_000,), items=40)
    records = made(told, tuned_alone, run_sd=0.004, trained_sd=0.1, key=3, metrics=("bpb",))
    (row,) = [r for r in decisions(records, draws=256) if r["level"] == "overall"]
    # Five pairs of one checkpoint; without luck's strata hardly any pair is resolved.
    assert row["resolved"]["pairs"] >= 5
    assert row["resolved"]["estimate"] == 1


def test_an_effects_standard_error_and_freedom_are_read_off_its_row():
    for df in (2.0, 4.5, 300.0):
        half, found = stats.t.isf(0.025, df) * 1.7, stats.t.isf(0.025, df) + stats.t.ppf(0.8, df)
        se, freedom = meta.spread({"low": 3 - half, "high": 3 + half, "mde": 1.7 * found})
        assert se == pytest.approx(1.7, rel=1e-6)
        assert freedom == pytest.approx(df, rel=1e-4)
    assert meta.spread({"low": None, "high": 1.0, "mde": 1.0}) is None
    # of seeds added until something was resolved: the interval of a fixed number of them, five, is told beside
    half, found = (float(stats.t.isf(tail, 4)) for tail in (0.025, 0.2))
    row = {"low": -8.0, "high": 8.0, "mde": half + found, "fixed": [-half, half]}
    assert meta.spread(row) == pytest.approx((1.0, 4.0), rel=1e-6)


def finished(
    folder, *, family="llama", parameters=500_000, key=0, truth=peaked, odd="", luck=None, **options
):
    told = study(items=60, odd=odd, model={"family": family, "parameters": parameters}, **options)
    records = made(told, truth, key=key, odd=odd, **(luck or {}))
    write(folder, records)
    rows = [
        row
        for metric in MARGINS
        for stage, cot in places(records, metric)
        for row in effect_rows(records, contrasts(told), stage=stage, cot=cot, metric=metric)
    ]
    (folder / "results" / "effects.json").write_text(json.dumps({"effects": rows}, allow_nan=False))
    return folder


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    root = tmp_path_factory.mktemp("studies")
    sizes = [("llama", 500_000), ("llama", 2_000_000), ("qwen", 2_000_000), ("qwen", 8_000_000)]
    return [finished(root / str(i), family=f, parameters=n, key=i) for i, (f, n) in enumerate(sizes)]


def test_studies_are_compared_by_question_order_and_decision(four):
    found = compare(four, draws=128)
    assert [s["label"] for s in found["studies"]] == ["llama 500k", "llama 2M", "qwen 2M", "qwen 8M"]
    row = next(
        e
        for e in found["effects"]
        if (e["contrast"], e["name"], e["metric"]) == ("code@pretrain", "facts", "acc")
    )
    own = [json.loads((f / "results" / "effects.json").read_text())["effects"] for f in four]
    for told, effects in zip(row["studies"], own, strict=True):
        (same,) = [
            e
            for e in effects
            if (e["contrast"], e["name"], e["metric"]) == ("code@pretrain", "facts", "acc")
        ]
        assert told["estimate"] == same["estimate"]
    assert row["signs"]["positive"] == 0
    assert row["pooled"]["low"] < -7 < row["pooled"]["high"]
    assert row["size"]["low"] < 0 < row["size"]["high"]
    assert [f["family"] for f in row["model_family"]["families"]] == ["llama", "qwen"]
    order = next(
        o for o in found["orders"] if (o["of"], o["name"], o["metric"]) == ("pretrain", "facts", "bpb")
    )
    assert order["w"] > 0.9
    assert order["p"] < 0.001
    decided = [d for d in found["decisions"] if d["deciding"] == "arms" and d["level"] == "overall"]
    assert {d["of"] for d in decided} == {"qwen 8M"}
    assert {d["study"] for d in decided} == {"llama 500k", "llama 2M", "qwen 2M"}
    json.dumps(found, allow_nan=False)


def test_compared_studies_know_which_arms_share_a_checkpoint(tmp_path):
    lucky = {"run_sd": 0.004, "trained_sd": 0.1}
    folders = [
        finished(tmp_path / str(n), parameters=n, key=n + 1, truth=tuned_alone, luck=lucky)
        for n in (500_000, 2_000_000)
    ]
    found = compare(folders, draws=256)
    (row,) = [
        d
        for d in found["decisions"]
        if (d["deciding"], d["level"], d["metric"], d["target"]) == ("arms", "overall", "bpb", "bpb")
    ]
    assert row["resolved"]["pairs"] >= 5


def test_a_family_that_is_different_is_found(tmp_path):
    def without(metric, task, dose, tuned, tokens):
        return peaked(metric, task, 0.0, tuned, tokens)

    folders = [finished(tmp_path / str(i), family="llama", key=i) for i in range(2)]
    folders += [finished(tmp_path / str(i), family="qwen", key=i, truth=without) for i in range(2, 4)]
    found = compare(folders, draws=16)
    row = next(
        e
        for e in found["effects"]
        if (e["contrast"], e["name"], e["metric"]) == ("code@pretrain", "facts", "bpb")
    )
    assert row["differ"]["p_adjusted"] < 0.05
    assert row["differ"]["tau_low"] > 0
    assert row["size"] is None  # all of one size
    assert found["decisions"] == []


def test_studies_that_share_nothing_are_refused(tmp_path, four):
    with pytest.raises(UserError, match="two or more"):
        compare(four[:1])
    strange = finished(tmp_path / "strange", odd="x")
    with pytest.raises(UserError, match="share no task"):
        compare([four[0], strange])
    other = finished(tmp_path / "other", doses={"text": 0.0})
    effects = other / "results" / "effects.json"
    told = json.loads(effects.read_text())
    told["effects"] = [e for e in told["effects"] if e["family"] == "simple"]
    effects.write_text(json.dumps(told))
    with pytest.raises(UserError, match="share no question"):
        compare([four[0], other])
    effects.unlink()
    with pytest.raises(UserError, match=r"effects\.json"):
        compare([four[0], other])


def test_one_training_under_two_names_is_not_counted_twice(tmp_path, four):
    again = finished(tmp_path / "again", family="mistral", parameters=500_000, key=0)
    with pytest.raises(
        UserError, match="llama 500k and mistral 500k hold the same estimates to the last digit"
    ):
        compare([*four, again], draws=16)


def test_levels_that_hold_other_tasks_are_not_compared(tmp_path, four):
    other = finished(tmp_path / "other", key=9)
    path = other / "results" / "study.json"
    told = json.loads(path.read_text())
    told["tasks"][-1]["items"] = 7
    path.write_text(json.dumps(told))
    found = compare([four[0], other], draws=16)
    assert {(e["level"], e["name"]) for e in found["effects"]} == {
        ("domain", "arithmetic"), ("domain", "symbolic"),
        ("task", "sums"), ("task", "chains"), ("task", "coins"),
    }  # fmt: skip
    assert any("facts" in note for note in found["notes"])
