"""The always-valid test: against numeric integration, its own inversion, and invented records."""

import itertools
import json
import math

import numpy as np
import pytest
from records_fixture import study, write
from scipy import integrate, stats

from codestage.analyse.records import Records, read_records
from codestage.analyse.sequential import (
    deciding,
    e_value,
    half_width,
    intervals,
    looked,
    sequential,
    state_of,
)


def t_of(x, mu=0.0):
    return float((x.mean() - mu) / x.std(ddof=1) * math.sqrt(len(x)))


def integrated(x, g):
    """The likelihood ratio by quadrature: effects in sd from N(0, g), log sd uniform on both sides."""
    base = math.log(x.std())

    def log_likelihood(delta, log_sd):
        sd = math.exp(log_sd)
        return float(np.sum(stats.norm.logpdf(x, delta * sd, sd)))

    top = max(log_likelihood(d, base + s) for d in np.linspace(-9, 9, 91) for s in (-0.5, 0, 0.5))
    under, _ = integrate.quad(
        lambda s: math.exp(log_likelihood(0.0, s) - top),
        base - 4,
        base + 8,
        limit=400,
        points=[base + 1],
    )
    above, _ = integrate.dblquad(
        lambda d, s: math.exp(log_likelihood(d, s) - top) * stats.norm.pdf(d, 0, math.sqrt(g)),
        base - 4,
        base + 8,
        -14 * math.sqrt(g),
        14 * math.sqrt(g),
        epsabs=1e-10,
    )
    return above / under


@pytest.mark.parametrize(("n", "mean", "g"), [(3, 1.0, 9.0), (5, 0.2, 1.0), (6, -1.5, 4.0)])
def test_the_closed_form_is_the_marginal_likelihood_ratio(n, mean, g):
    x = np.random.default_rng(n).normal(mean, 1.0, n)
    assert e_value(t_of(x), n, g) == pytest.approx(integrated(x, g), rel=1e-3)


@pytest.mark.parametrize("n", [4, 5, 8, 30])
@pytest.mark.parametrize("alpha", [0.05, 0.0133])
def test_at_the_ends_of_the_interval_the_evidence_is_just_one_in_alpha(n, alpha):
    x = np.random.default_rng(n).normal(0.4, 1.3, n)
    reach = half_width(n, alpha) * x.std(ddof=1)
    for end in (x.mean() - reach, x.mean() + reach):
        assert e_value(t_of(x, end), n) == pytest.approx(1 / alpha)
        assert e_value(t_of(x, end + 1e-3 * (end - x.mean())), n) > 1 / alpha


def test_few_seeds_bound_nothing_and_say_so():
    assert [math.isinf(half_width(n, 0.0133)) for n in (1, 2, 3, 4)] == [True, True, True, False]
    assert e_value(math.inf, 2) < 1 / 0.0133  # two seeds that agree to the last bit
    assert e_value(123.0, 1) == 1.0


def test_more_seeds_narrow_the_interval():
    widths = [half_width(n, 0.0133) for n in range(4, 200)]
    assert all(a > b for a, b in itertools.pairwise(widths))


def simulated(rng, seeds, *, mean=0.0, seed_sd=0.02, item_sd=0.2, items=100, tasks=2):
    shape = (seeds, items)
    return [
        mean
        + rng.normal(0, seed_sd, (seeds, 1))
        + rng.normal(0, item_sd, (1, items))
        + rng.normal(0, 0.2, shape)
        for _ in range(tasks)
    ]


def test_looks_never_widen_and_do_not_know_what_comes_after_them():
    d = simulated(np.random.default_rng(1), 12, mean=0.05)
    looks = intervals(looked(d), 0.05)
    known = [look for look in looks if look["low"] is not None]
    assert [look["seeds"] for look in looks] == list(range(2, 13))
    for earlier, later in itertools.pairwise(known):
        assert earlier["low"] <= later["low"] <= later["high"] <= earlier["high"]
    assert intervals(looked([x[:7] for x in d]), 0.05) == looks[:6]


def test_a_seed_that_falls_out_of_line_takes_back_nothing():
    """The interval of nine seeds and an outlier is wide; what eight and nine seeds excluded stays excluded."""
    d = simulated(np.random.default_rng(3), 10, mean=0.3, item_sd=0.01)
    d = [np.concatenate([x[:9], x[9:] - 2.0]) for x in d]
    before, after = intervals(looked(d), 0.05)[-2:]
    assert after["estimate"] < before["estimate"] - 15
    assert (after["low"], after["high"]) == (before["low"], pytest.approx(before["high"], abs=1e-9))
    assert before["low"] > 0


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [
        (0.1, 9.0, "up"),
        (-9.0, -0.1, "down"),
        (0.1, 1.0, "up"),
        (-1.9, 1.9, "equivalent"),
        (-1.9, 2.1, "open"),
        (-2.1, 1.9, "open"),
        (None, None, "open"),
    ],
)
def test_states(low, high, state):
    assert state_of({"low": low, "high": high}, 2.0) == state


def test_the_items_widen_what_seeds_alone_would_tell():
    """Without seeds' variance all that is left is the items' interval, which no seed shrinks."""
    rng = np.random.default_rng(2)
    item = rng.normal(0, 0.3, (1, 100))
    looks = intervals(looked([np.repeat(item, 10, axis=0)]), 0.05)
    half = (looks[-1]["high"] - looks[-1]["low"]) / 2
    assert half == pytest.approx(stats.t.isf(0.005, 99) * 100 * item.std(ddof=1) / 10, rel=1e-4)


def test_p_is_the_rate_at_which_the_interval_first_leaves_out_zero():
    rng = np.random.default_rng(8)
    for mean, item_sd in ((0.06, 0.2), (0.1, 0.4), (0.02, 0.0)):
        seen = looked(simulated(rng, 8, mean=mean, item_sd=item_sd))
        p = min(look.p() for look in seen)
        assert 0 < p < 1
        below, above = intervals(seen, p * 0.999)[-1], intervals(seen, p * 1.001)[-1]
        assert (below["low"] or -1) <= 0 <= (below["high"] or 1)
        assert above["low"] > 0


def row(answer, name):
    return next(c for c in answer["contrasts"] if c["contrast"] == name)


def test_planted_effects_settle_and_open_ones_stay_open(tmp_path):
    records = read_records(write(tmp_path, pretrain=0.15, seeds=8))
    answer = sequential(records, alpha=0.05, margin=2.0)
    assert [c["contrast"] for c in answer["contrasts"]] == [c.name for c in deciding(study())]
    effect, null = row(answer, "code@pretrain"), row(answer, "code@tune")
    assert effect["state"] == "up"
    assert effect["low"] <= 15 <= effect["high"]
    assert effect["settled_after"] <= 6
    assert effect["e"] > 75
    assert effect["p"] < 0.0133
    assert null["state"] in ("open", "equivalent")
    assert null["low"] <= 0 <= null["high"]
    json.dumps(answer, allow_nan=False)


def test_harm_is_down_and_no_difference_on_many_items_is_equivalent():
    records = invented({"a": 0.6, "b": 0.5})
    assert row(sequential(records, alpha=0.05, margin=2.0), "code@tune")["state"] == "down"
    records = invented({"a": 0.5, "b": 0.5})
    alike = row(sequential(records, alpha=0.05, margin=2.0), "code@tune")
    assert (alike["state"], alike["e"] < 1) == ("equivalent", True)


def invented(levels, *, seeds=8, items=1000):
    """Records of two arms whose items differ by next to nothing but their level."""
    rng = np.random.default_rng(4)
    scores = np.stack(
        [np.full((seeds, items), v) + rng.normal(0, 0.001, (seeds, items)) for v in levels.values()]
    )
    told = {
        "stages": ["tune"],
        "options": {"tune": list(levels)},
        "code_options": {"tune": list(levels)[1:]},
        "schedules": {"tune": dict.fromkeys(levels, "mix")},
        "arms": [
            {"name": n, "role": "grid", "control": None, "against": None, "factors": {"tune": n},
             "tokens": {"tune": 1}}
            for n in levels
        ],
        "tasks": [{"name": "t", "domain": "d", "chance": 0.25, "metric": "acc", "cot": ["off"]}],
    }  # fmt: skip
    return Records(told, [], list(levels), list(range(seeds)), {("tune", "off", "t", "acc"): scores})


def test_a_contrast_uses_the_seeds_that_all_its_arms_have():
    whole = invented({"a": 0.6, "b": 0.5})
    scores = whole.scores["tune", "off", "t", "acc"].copy()
    scores[1, 5] = np.nan  # arm b lacks seed 5
    scores[0, 2, 7] = np.nan  # an unknown item is not a missing seed
    key = ("tune", "off", "t", "acc")
    gap = Records(whole.study, [], whole.arms, whole.seeds, {key: scores})
    found = row(sequential(gap, alpha=0.05, margin=2.0), "code@tune")
    assert found["seeds"] == [0, 1, 2, 3, 4, 6, 7]
    kept = np.delete(np.delete(scores, 5, axis=1), 7, axis=2)
    fewer = Records(whole.study, [], whole.arms, found["seeds"], {key: kept})
    again = row(sequential(fewer, alpha=0.05, margin=2.0), "code@tune")
    assert found["looks"][2:] == again["looks"][2:]


def test_arms_without_scores_are_open_with_nothing_made_up():
    whole = invented({"a": 0.6, "b": 0.5})
    none = Records(whole.study, [], whole.arms, whole.seeds, {})
    found = row(sequential(none, alpha=0.05, margin=2.0), "code@tune")
    assert (found["state"], found["seeds"], found["estimate"], found["p"]) == ("open", [], None, 1.0)
