"""Mixture laws: found again where they were put; proposals that lie where the optimum does."""

import json

import numpy as np
import pytest
import yaml
from ladder_fixture import made, peaked, study
from scipy import optimize, stats

from codestage.analyse import laws
from codestage.analyse.laws import LAWS, leave_out, log_linear, quadratic
from codestage.analyse.mixtures import (
    Features,
    Mixtures,
    _candidates,
    _Search,
    mix_line,
    mixture_laws,
    mixtures,
)


def mixed(n, parts=3, key=0):
    return np.random.default_rng(key).dirichlet(np.ones(parts), n)[:, 1:]


def ones(costs):
    return np.ones_like(costs)


def test_a_log_linear_truth_is_found_again():
    r, at = mixed(12), mixed(6, key=1)
    truth = lambda x: 0.9 + 0.4 * np.exp(x @ [-2.0, 1.0])  # noqa: E731
    costs = truth(r)[None]
    assert log_linear(r, costs, ones(costs), at)[0] == pytest.approx(truth(at), abs=1e-6)


def test_the_log_linear_fit_is_least_squares():
    r = mixed(12)
    rng = np.random.default_rng(3)
    costs = 0.9 + 0.4 * np.exp(r @ [-2.0, 1.0]) + rng.normal(0, 0.01, 12)
    weights = rng.uniform(0.2, 2, 12)

    def miss(p):
        return np.sqrt(weights) * (p[0] + p[1] * np.exp(r @ p[2:]) - costs)

    found = optimize.least_squares(miss, [0.9, 0.4, -2, 1], xtol=1e-12, ftol=1e-12)
    fitted = log_linear(r, costs[None], weights[None], r)[0]
    assert (weights * (fitted - costs) ** 2).sum() == pytest.approx(2 * found.cost, rel=1e-3)


def test_a_quadratic_truth_is_found_again():
    r, at = mixed(12), mixed(6, key=1)
    truth = lambda x: 1 + 0.5 * (x[:, 0] - 0.3) ** 2 + 0.3 * x[:, 0] * x[:, 1]  # noqa: E731
    costs = truth(r)[None]
    assert quadratic(r, costs, ones(costs), at)[0] == pytest.approx(truth(at), abs=2e-3)


@pytest.mark.parametrize("law", list(LAWS))
def test_weight_zero_leaves_an_arm_out_and_rows_do_not_mix(law):
    """A fit without the arm, and one with it at weight zero, predict the same; each row by itself."""
    r = mixed(10)
    costs = np.random.default_rng(0).normal(1, 0.1, 10) + r[:, 0]
    weights = np.ones(10)
    weights[4] = 0
    kept = weights > 0
    alone = LAWS[law](r[kept], costs[None, kept], np.ones((1, 9)), r)[0]
    spoiled = np.where(kept, costs, 99.0)
    both = np.stack([spoiled, spoiled])
    together = LAWS[law](r, both, np.stack([weights, weights]), r)
    if law == "log-linear":  # the ridge holds back by its own scale of the shares, which all arms give
        assert together[0] == pytest.approx(alone, abs=1e-3)
    assert together[0] == pytest.approx(together[1])


@pytest.mark.parametrize("law", list(LAWS))
def test_errors_on_arms_left_out_never_see_them(law):
    r = mixed(9)
    costs = 1 + 0.3 * r[:, 0] + np.random.default_rng(5).normal(0, 0.01, 9)
    before = leave_out(LAWS[law], r, costs)
    changed = costs.copy()
    changed[2] += 5
    assert leave_out(LAWS[law], r, changed).predicted[2] == pytest.approx(before.predicted[2])
    assert before.rank == pytest.approx(stats.spearmanr(before.predicted, costs).statistic)
    assert before.rmse == pytest.approx(np.sqrt(np.mean((before.predicted - costs) ** 2)))


def test_the_law_that_predicts_better_is_chosen():
    found = mixture_laws(made(study(), peaked, metrics=("bpb",)))
    row = next(r for r in found["rows"] if r["name"] == "arithmetic")
    assert row["chosen"] == "quadratic"  # a peak is not log-linear
    assert row["laws"]["quadratic"]["rmse"] < row["laws"]["log-linear"]["rmse"]
    assert row["laws"]["quadratic"]["rmse"] < row["mean_rmse"] / 3


def test_the_proposal_lies_at_the_planted_optimum_and_can_be_pasted():
    doses = {"text": 0.0, "some": 0.1, "half": 0.5, "more": 0.35, "most": 0.6}
    records = made(study(doses=doses), peaked, doses=doses, metrics=("bpb",), key=2)
    found = mixture_laws(records)
    assert found["refused"] is None
    assert len(found["mixtures"]) == 10
    row = next(r for r in found["rows"] if r["name"] == "arithmetic")
    share = next(s for s in row["best"]["shares"] if (s["stage"], s["source"]) == ("pretrain", "python"))
    assert share["low"] <= 0.25 <= share["high"]
    assert share["share"] == pytest.approx(0.25, abs=0.05)
    assert row["best"]["gain_low"] < row["best"]["gain"] < row["best"]["gain_high"]
    assert row["best"]["gain"] == pytest.approx(0.8 * 2.4 * 0.1**2, abs=0.02)  # over the dose of 0.35
    for part in ("best", "next"):
        for stage, line in row[part]["yaml"].items():
            (option,) = yaml.safe_load(line).values()
            total = sum(option["mix"].values())
            told = {s["source"]: s["share"] for s in row[part]["shares"] if s["stage"] == stage}
            assert {s: n / total for s, n in option["mix"].items()} == pytest.approx(
                {s: x for s, x in told.items() if x > 0.005}, abs=0.011
            )


def test_the_next_arm_is_new_and_says_why():
    records = made(study(), peaked, metrics=("bpb",))
    tried = mixtures(records)
    for row in mixture_laws(records)["rows"]:
        shares = np.array([s["share"] for s in row["next"]["shares"]])
        assert np.abs(tried.shares - shares).max(axis=1).min() >= 0.0499
        assert row["next"]["why"] in ("improvement", "disagreement")
        if row["next"]["why"] == "improvement":
            assert row["next"]["improvement"] > 0


@pytest.mark.slow
def test_intervals_of_the_best_share_hold_it():
    """Costs of a known bowl; the law chosen by its errors. Counted over studies."""
    doses = {"a": 0.0, "b": 0.15, "c": 0.3, "d": 0.45, "e": 0.6}

    def bowl(metric, task, dose, tuned, tokens):
        return 1.0 + 1.5 * (dose - 0.25) ** 2 + 0.1 * tuned

    held, n = 0, 40
    for key in range(n):
        told = study(doses=doses, items=40)
        told["tasks"] = told["tasks"][:1]
        records = made(told, bowl, doses=doses, metrics=("bpb",), key=key)
        row = mixture_laws(records, draws=64, seed=key)["rows"][0]
        share = next(
            s for s in row["best"]["shares"] if (s["stage"], s["source"]) == ("pretrain", "python")
        )
        held += share["low"] <= 0.25 <= share["high"]
    assert stats.binom.ppf(0.0015, n, 0.95) <= held


def test_too_few_mixtures_are_refused_with_the_number_needed():
    doses = {"text": 0.0, "half": 0.5}
    found = mixture_laws(made(study(doses=doses), peaked, doses=doses))
    assert found["rows"] == []
    assert "4 distinct mixtures" in found["refused"]
    assert "needs 6" in found["refused"]


def test_a_study_without_mixtures_has_no_laws():
    doses = {"text": 0.0}
    told = study(doses=doses)
    told["schedules"]["tune"]["code"] = "phases"
    assert mixture_laws(made(told, peaked, doses=doses)) is None


def test_accuracy_stands_in_where_there_are_no_bits():
    found = mixture_laws(made(study(), peaked, metrics=("acc",)))
    assert found["metric"] == "acc"
    assert {r["unit"] for r in found["rows"]} == {"points"}
    json.dumps(found, allow_nan=False)


def test_mixtures_are_written_in_whole_parts_and_names_stay_names():
    assert mix_line("next", {"prose": 0.75, "python": 0.25}) == "next: {mix: {prose: 3, python: 1}}"
    assert yaml.safe_load(mix_line("n", {"no": 1 / 3, "a: {b}": 1 / 3, 'q"': 1 / 3}))["n"]["mix"] == {
        "no": 34, "a: {b}": 33, 'q"': 33,
    }  # fmt: skip
    assert mix_line("n", {"a": 1.0, "b": 0.001}) == "n: {mix: {a: 1}}"


def test_arms_that_never_ran_are_no_mixtures():
    records = made(study(), peaked)
    for scores in records.scores.values():
        scores[records.arms.index("half/code")] = np.nan
    found = mixture_laws(records, draws=16)
    assert len(found["mixtures"]) == 9
    assert found["rows"]


def test_the_ridge_is_chosen_by_leaving_each_arm_out():
    """The closed form picks what fitting without each arm picks."""
    rng = np.random.default_rng(11)
    for noise in (0.001, 0.05, 0.5):
        r = rng.uniform(0, 1, (14, 2))
        y = 1 + (r[:, 0] - 0.4) ** 2 + noise * rng.normal(0, 1, 14)
        errors = []
        for ridge in laws.RIDGES:
            design, error = laws._squares(r, r), 0.0
            for i in range(14):
                kept = np.arange(14) != i
                hold = ridge * 13 * np.diag([0.0] + [1.0] * (design.shape[1] - 1))
                normal = design[kept].T @ design[kept] + hold
                error += (design[i] @ np.linalg.solve(normal, design[kept].T @ y[kept]) - y[i]) ** 2
            errors.append(error)
        assert laws._ridge(r, y) == laws.RIDGES[int(np.argmin(errors))]


def test_many_mixtures_are_fitted_with_fewer_draws_and_end():
    doses = {f"d{i}": i / 60 for i in range(60)}
    found = mixture_laws(made(study(doses=doses), peaked, doses=doses), draws=4096)
    assert found["rows"]


def test_the_next_arm_is_new_however_close_the_doses_lie():
    """Doses a tenth apart leave no room for one that is far from all: the one farthest from them is tried."""
    doses = np.array([[1 - d, d] for d in np.arange(6) / 10])
    tried = Mixtures(
        ("pretrain",), (("text", "code"),), (doses,), doses, tuple((i,) for i in range(len(doses)))
    )
    candidates = _candidates(tried)
    law = Features("source", (("pretrain", "code"),), np.array([[0.0], [1.0]]))
    search = _Search(tried, law, candidates, 64, 0)
    drawn = np.random.default_rng(0).normal(size=(64, len(doses) + len(candidates)))
    drawn[:, len(doses) + np.flatnonzero(candidates[:, 1] < 1e-9)] *= (
        9  # most is unknown of the first dose
    )
    told = search._next(drawn.mean(axis=0), drawn, 1.0, 0.05)
    share = np.array([row["share"] for row in told["shares"]])
    assert np.abs(doses - share).max(axis=1).min() > 0.04
