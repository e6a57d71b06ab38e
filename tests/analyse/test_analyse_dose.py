"""Dose and response against independent references, and by counting in simulations."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import statsmodels.api as sm
from ladder_fixture import DOSES, TASKS, made, peaked, study
from scipy import stats

from codestage.analyse.dose import (
    _best,
    _shape,
    dose_response,
    drawn_shares,
    fit,
    highest,
    monotone,
    stage_doses,
)
from codestage.analyse.profile import Profiles

X = np.array([0.0, 0.125, 0.25, 0.375, 0.5])


def profile(truth, *, seeds=3, key=0, items=120, sd=0.8, draws=256):
    """The profile of points with means `truth`, in points, with all the parts of chance that there are."""
    rng, k = np.random.default_rng(key), len(truth)
    scores = np.asarray(truth)[:, None, None] + rng.normal(0, 30, (1, 1, items))
    scores = scores + rng.normal(0, 1, (1, seeds, 1)) + rng.normal(0, 5, (k, 1, items))
    scores = scores + rng.normal(0, sd, (k, seeds, 1)) + rng.normal(0, 20, (k, seeds, items))
    return Profiles({"t": scores}, {"t": 0}, draws=draws, seed=key).of(["t"]), scores


def test_the_fit_is_generalised_least_squares():
    found, _ = profile([0, 3, 4, 3, 1])
    x = X[1:]
    design = np.column_stack([x, x**2])
    wanted = sm.GLS(found.estimates[1:], design, sigma=found.covariance).fit()
    got = fit(X, found)
    assert got.beta == pytest.approx(wanted.params, rel=1e-5)
    assert got.covariance == pytest.approx(wanted.normalized_cov_params, rel=1e-5)
    line = sm.GLS(found.estimates[1:], x[:, None], sigma=found.covariance).fit()
    assert got.linear == pytest.approx(line.params[0], rel=1e-5)


@pytest.mark.parametrize("rising", [True, False])
def test_monotone_steps_are_the_nearest_of_all(rising):
    """Every way to cut the points into steps with their means, tried one by one."""
    for key in range(20):
        y = np.random.default_rng(key).normal(0, 1, 6)
        best = None
        for cuts in product((0, 1), repeat=5):
            block = np.concatenate([[0], np.cumsum(cuts)])
            means = np.array([y[block == b].mean() for b in range(block[-1] + 1)])
            ordered = (np.diff(means) >= 0).all() if rising else (np.diff(means) <= 0).all()
            if ordered:
                steps = means[block]
                if best is None or ((steps - y) ** 2).sum() < ((best - y) ** 2).sum():
                    best = steps
        assert monotone(y, rising) == pytest.approx(best)


def test_the_highest_place_of_a_curve_is_found_within_its_ends():
    grid = np.linspace(0, 0.5, 100_001)
    rng = np.random.default_rng(0)
    beta = rng.normal(0, [[3.0], [5.0]], (2, 50))
    wanted = [grid[(b * grid + c * grid**2).argmax()] for b, c in beta.T]
    assert highest(beta, 0.5) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "p", "wanted"),
    [
        ({}, 0.06, "flat"),
        ({}, 0.01, "peak"),
        ({"beta": np.array([-4.0, 8.0])}, 0.01, "trough"),
        ({"p_bend": 0.2}, 0.01, "rising"),  # the turn lies between the doses, but no bend is shown
        ({"beta": np.array([4.0, -2.0])}, 0.01, "rising"),  # it turns beyond the last dose
        ({"p_bend": 0.2, "linear": -1.0}, 0.01, "falling"),
        ({"p_bend": 0.2, "p_misfit": 0.01}, 0.01, "irregular"),
    ],
)
def test_the_rule_that_names_a_shape(changes, p, wanted):
    found = fit(X, profile([0, 3, 4, 3, 1])[0])
    given = {"beta": np.array([4.0, -8.0]), "linear": 1.0, "p_bend": 0.01, "p_misfit": 0.5} | changes
    assert _shape(replace(found, **given), p) == wanted


def test_doses_are_those_drawn_and_count_domains_foreign_to_the_first_option():
    told = study()
    told["domains"] |= {"notebooks": "code-text", "novels": "text"}
    records = made(told, peaked)
    for run in records.runs:
        for stage in run["stages"]:
            if stage["name"] == "pretrain" and stage["option"] == "tenth":
                stage["tokens_realised"] = {"prose": 60, "novels": 25, "python": 10, "notebooks": 5}
                stage["tokens_planned"] = {"prose": 100}
    doses = stage_doses(records, "pretrain")
    assert [d.share for d in doses] == pytest.approx([0, 0.15, 0.25, 0.4, 0.5])
    assert drawn_shares(records, "pretrain")["tenth"]["novels"] == 0.25
    assert len(doses[0].arms) == 2  # averaged over what tuning did
    told["schedules"]["pretrain"]["half"] = "phases"
    assert [d.options for d in stage_doses(records, "pretrain")][-1] == ("most",)


def test_a_planted_peak_a_fall_and_nothing_are_told_apart():
    rows = dose_response(made(study(), peaked, key=1), draws=512)
    shape = {r["name"]: r for r in rows if r["metric"] == "acc" and r["level"] != "domain"}
    assert {n: shape[n]["shape"] for n in TASKS} == {
        "sums": "peak", "chains": "peak", "coins": "flat", "facts": "falling",
    }  # fmt: skip
    for task in ("sums", "chains"):
        best = shape[task]["best"]
        assert best["low"] <= 0.25 <= best["high"]
        assert best["high"] - best["low"] < 0.15
        assert best["gain_low"] < 15 < best["gain_high"]
    assert shape["facts"]["best"]["dose"] == 0
    assert shape["coins"]["best"] is None
    assert shape["coins"]["flat"] == "not resolved"
    bits = {r["name"]: r for r in rows if r["metric"] == "bpb"}
    assert bits["coins"]["flat"] == "shown"
    assert {r["stage"] for r in rows} == {"pretrain"}  # tuning has two doses only


def test_effects_at_each_dose_are_means_over_the_other_stages():
    records = made(study(), peaked)
    row = next(
        r for r in dose_response(records, draws=64) if r["name"] == "sums" and r["metric"] == "acc"
    )
    scores = records.scores["tune", "off", "sums", "acc"].mean(axis=(1, 2))
    means = {a["name"]: m for a, m in zip(records.study["arms"], scores, strict=True)}
    for point, option in zip(row["points"], DOSES, strict=True):
        wanted = np.mean([means[f"{option}/{t}"] - means[f"text/{t}"] for t in ("text", "code")])
        assert point["estimate"] == pytest.approx(100 * wanted, abs=1e-3)


def test_one_seed_still_gives_the_items_part():
    rows = dose_response(made(study(seeds=1), peaked), draws=64)
    row = next(r for r in rows if r["name"] == "sums" and r["metric"] == "acc")
    assert row["seeds"] == 1
    assert row["points"][1]["low"] < row["points"][1]["estimate"] < row["points"][1]["high"]


@pytest.mark.parametrize(("doses", "seeds"), [(3, 2), (3, 3), (5, 3), (5, 5)])
def test_a_flat_truth_is_rarely_called_anything_else(doses, seeds):
    """A false shape in 5 % of studies where it holds; the bound is 3 standard errors of the count above."""
    x, n = np.linspace(0, 0.5, doses), 300
    wrong = 0
    for key in range(n):
        found = fit(x, profile(np.zeros(doses), seeds=seeds, key=key, draws=8)[0])
        wrong += _shape(found, found.p) != "flat"
    assert wrong <= stats.binom.ppf(0.9985, n, 0.05)


@pytest.mark.parametrize(("doses", "seeds"), [(3, 3), (5, 2), (5, 3)])
def test_the_interval_of_the_best_dose_holds_the_true_one(doses, seeds):
    x, n = np.linspace(0, 0.5, doses), 200
    held = wide = 0
    for key in range(n):
        found = profile(80 * x - 160 * x**2, seeds=seeds, key=key)[0]
        fitted = fit(x, found)
        best = _best(_shape(fitted, 0.0), fitted, found)
        held += best["low"] <= 0.25 <= best["high"]
        wide += best["high"] - best["low"]
    assert stats.binom.ppf(0.0015, n, 0.95) <= held
    assert wide / n < 0.15  # and it says something


def test_a_dose_that_never_ran_is_left_out_and_the_others_are_fitted():
    records = made(study(), peaked)
    gone = records.arms.index("half/text")
    for scores in records.scores.values():
        scores[gone] = np.nan
    rows = dose_response(records, draws=16)
    assert rows
    assert all([p["dose"] for p in r["points"]] == [0, 0.1, 0.25, 0.4] for r in rows)


def test_scores_that_are_all_alike_are_flat_and_not_certain():
    """Nothing seen to vary: the rule of three, as wide as 80 items leave it; never a verdict from rounding."""
    records = made(study(), peaked)
    for (*_, metric), scores in records.scores.items():
        scores[:] = 1.0 if metric == "acc" else 0.1 + 0.2
    for row in dose_response(records, draws=64):
        assert (row["shape"], row["p"]) == ("flat", 1.0)
        if row["metric"] == "acc" and row["level"] == "task":
            share = 100 * (1 - 0.05 ** (1 / 80))
            assert row["points"][1]["high"] == pytest.approx(share, rel=1e-3)
            assert row["flat"] == "not resolved"
