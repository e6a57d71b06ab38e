"""Power laws and budgets: recovered where they were put, and intervals that hold the truth."""

import json

import numpy as np
import pytest
import statsmodels.api as sm
from ladder_fixture import made, peaked, study
from scipy import optimize, stats

from codestage.analyse import power_law
from codestage.analyse.bootstrap import Resamples
from codestage.analyse.scaling import _draws, _law, ladders, line_weights, scaling

TOKENS = np.array([1e6, 2e6, 4e6, 8e6])
BUDGETS = (1_000_000, 2_000_000, 4_000_000)


def test_a_law_with_offset_is_found_again():
    costs = 1.1 + 0.25 * (TOKENS / 8e6) ** -0.4
    law = power_law.fit(TOKENS, costs[None])
    assert law.exponent[0] == pytest.approx(0.4, rel=0.01)
    assert law.offset[0] == pytest.approx(1.1, rel=0.02)
    assert law.at(np.array([1.6e7]))[0, 0] == pytest.approx(1.1 + 0.25 * 2**-0.4, abs=1e-3)


def test_of_all_exponents_none_fits_better_by_much():
    rng = np.random.default_rng(0)
    for _ in range(10):
        costs = 1.0 + 0.3 * (TOKENS / 8e6) ** -rng.uniform(0.1, 1.5) + rng.normal(0, 0.01, 4)
        law = power_law.fit(TOKENS, costs[None])
        left = float(((law.at(TOKENS)[0] - costs) ** 2).sum())

        def miss(p, y=costs):
            return p[0] + p[1] * (TOKENS / 8e6) ** -p[2] - y

        found = optimize.least_squares(miss, [0.9, 0.4, 0.3], bounds=([0, 0, 0.01], [9, 9, 3]))
        assert left**0.5 <= (2 * found.cost) ** 0.5 * 1.01 + 3e-4  # in bits


def test_offset_and_scale_are_never_negative():
    rng = np.random.default_rng(1)
    law = power_law.fit(TOKENS, rng.uniform(0, 1, (200, 4)))
    assert (law.offset >= 0).all()
    assert (law.scale >= 0).all()


def test_three_budgets_give_a_straight_line_of_logarithms():
    costs = np.array([[1.3, 1.1, 1.0], [2.0, 1.9, 1.2]])
    law = power_law.fit(TOKENS[:3], costs)
    for i, row in enumerate(costs):
        wanted = stats.linregress(np.log(TOKENS[:3]), np.log(row))
        assert law.exponent[i] == pytest.approx(-wanted.slope)
        at = np.exp(wanted.intercept + wanted.slope * np.log(8e6))
        assert law.at(np.array([8e6]))[i, 0] == pytest.approx(at)
    assert (law.offset == 0).all()


def test_fewer_budgets_are_refused_with_a_reason():
    assert power_law.refusal(3) is None
    assert "needs 3" in power_law.refusal(2)
    rows = scaling(made(study(budgets=BUDGETS[2:]), peaked), draws=64)
    assert all(
        g["law"]["form"] is None and "2 budgets" in g["law"]["why"] for r in rows for g in r["groups"]
    )
    assert all(r["extrapolated"] is None for r in rows)
    assert scaling(made(study(), peaked), draws=64) == []


def test_trend_and_extrapolation_are_those_of_a_regression_on_doublings():
    y = np.array([1.0, 3.0, 2.0, 5.0])
    slope, further = line_weights([1, 2, 4, 8]) @ y
    fitted = sm.OLS(y, sm.add_constant(np.arange(4.0))).fit()
    assert slope == pytest.approx(fitted.params[1])
    assert further == pytest.approx(fitted.predict([[1, 4.0]])[0])


def test_the_effect_at_each_budget_is_code_less_text_and_its_trend_is_tested_by_seeds():
    records = made(study(budgets=BUDGETS, seeds=4), peaked)
    short, stage, rungs = ladders(records)[0]
    assert (short, stage, [r.tokens for r in rungs]) == ("pretrain", "pretrain", [*BUDGETS, 8_000_000])
    rows = scaling(records, draws=64)
    row = next(r for r in rows if r["name"] == "facts" and r["metric"] == "acc")
    scores = records.scores["tune", "off", "facts", "acc"].mean(axis=2, dtype=np.float64)
    effects = [100 * (scores[list(r.code)].mean(0) - scores[list(r.base)].mean(0)) for r in rungs]
    for told, effect in zip(row["budgets"], effects, strict=True):
        assert told["estimate"] == pytest.approx(effect.mean(), rel=1e-4)
    by_seed = line_weights([r.tokens for r in rungs])[0] @ np.array(effects)
    assert row["trend"]["estimate"] == pytest.approx(by_seed.mean(), abs=1e-4)
    # The interval is at least that of a t test on the seeds alone.
    half = stats.t.isf(0.025, 3) * by_seed.std(ddof=1) / 2
    assert row["trend"]["high"] - row["trend"]["low"] >= 2 * half * 0.999
    assert row["extrapolated"]["tokens"] == 16_000_000


def growing(metric, task, dose, tuned, tokens):
    """Code gains 2 points with each doubling."""
    return 0.4 + (0.02 * np.log2(tokens / 1e6) if dose else 0.0) if metric == "acc" else 1.0


def test_a_planted_growth_of_the_effect_is_found_and_goes_on():
    told = study(budgets=BUDGETS, seeds=5, items=300)
    (row,) = [
        r
        for r in scaling(made(told, growing, metrics=("acc",)), draws=64)
        if r["level"] == "overall" and r["contrast"] == "code@pretrain"
    ]
    assert row["trend"]["p_adjusted"] < 0.05
    assert row["trend"]["low"] < 2 < row["trend"]["high"]
    assert row["extrapolated"]["low"] < 8 < row["extrapolated"]["high"]
    none = [r for r in scaling(made(told, growing), draws=64) if r["contrast"] == "code@tune"]
    assert all(r["trend"]["p_adjusted"] > 0.01 for r in none)


def test_the_interval_of_the_next_budget_holds_the_truth():
    """Costs over seeds that share most of their luck, as branches of one run do."""
    truth = lambda n: 1.1 + 0.3 * (n / 8e6) ** -0.35  # noqa: E731
    held, n = 0, 120
    for key in range(n):
        rng = np.random.default_rng(key)
        luck = rng.normal(0, 0.01, 3) + rng.normal(0, 0.003, (4, 3))
        costs = _draws([(truth(TOKENS)[:, None] + luck, None)], Resamples(3, 256, key))
        law = _law([int(t) for t in TOKENS], costs)["next"]
        held += law["low"] <= truth(1.6e7) <= law["high"]
    assert stats.binom.ppf(0.0015, n, 0.95) <= held


def losses(told, truth):
    rng = np.random.default_rng(0)
    rows = []
    for arm in told["arms"]:
        for seed in told["seeds"]:
            luck = rng.normal(0, 0.01)
            whole = arm["tokens"]["pretrain"]
            for tokens in np.linspace(0, whole, 9).astype(int):
                code = arm["factors"]["pretrain"] != "text"
                loss = truth(code, tokens) + luck + rng.normal(0, 0.002)
                rows.append(
                    {
                        "arm": arm["name"], "seed": seed, "stage": "pretrain", "tokens": int(tokens),
                        "source": "python", "domain": "code", "loss": loss,
                    }
                )  # fmt: skip
    return rows


def falling(code, tokens):
    return (2.0 if code else 3.0) + 1.0 * (max(tokens, 1e5) / 8e6) ** -0.5


@pytest.mark.parametrize("budgets", [(), BUDGETS])
def test_held_out_losses_follow_the_law_they_were_made_of(budgets):
    told = study(budgets=budgets, items=4)
    found = scaling(made(told, peaked), losses(told, falling), draws=128)
    (row,) = [r for r in found if r["level"] == "source"]
    assert row["kind"] == ("held-out ladder" if budgets else "learning curve")
    assert (row["unit"], row["name"], row["domain"]) == ("nats", "python", "code")
    assert row["budgets"][-1]["estimate"] == pytest.approx(1.0, abs=0.05)  # less loss is better
    for group, offset in zip(row["groups"], (2.0, 3.0), strict=True):
        assert group["law"]["form"] == "offset"
        assert group["law"]["offset"]["low"] <= offset <= group["law"]["offset"]["high"]
        assert group["law"]["next"]["tokens"] == 16_000_000


def test_one_seed_tells_no_interval_of_a_loss():
    told = study(seeds=1, items=4)
    found = scaling(made(told, peaked), losses(told, falling), draws=16)
    (row,) = [r for r in found if r["level"] == "source"]
    assert row["trend"]["low"] is None
    assert row["groups"][0]["points"][0]["low"] is None


def test_seeds_that_an_arm_of_the_ladder_lacks_are_left_out():
    records = made(study(budgets=BUDGETS, seeds=4), peaked)
    for scores in records.scores.values():
        scores[-1, 0] = np.nan
    rows = scaling(records, draws=16)
    assert {r["seeds"] for r in rows} == {3}


def test_rows_are_json():
    rows = scaling(made(study(budgets=BUDGETS, items=20), peaked), draws=16)
    assert rows
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_where_no_item_differs_the_interval_is_that_of_none_in_so_many():
    """Of 24 items none is answered by any run: up to 1 - 0.05^(1/24) of them might still differ."""
    records = made(study(budgets=(2_000_000, 4_000_000), items=24), peaked, metrics=("acc",))
    for scores in records.scores.values():
        scores[:] = 0
    row = next(r for r in scaling(records, draws=64) if r["level"] == "task")
    assert row["budgets"][0]["high"] == pytest.approx(100 * (1 - 0.05 ** (1 / 24)), rel=1e-3)
