"""Mean, variance and quartiles over tasks: against SciPy, and by counting false alarms and planted differences."""

from itertools import permutations, product

import numpy as np
import pytest
from ladder_fixture import made, study
from scipy import stats

from codestage.analyse.contrasts import contrasts
from codestage.analyse.effects import holm
from codestage.analyse.over_tasks import (
    MOST,
    STATISTICS,
    dealt,
    over_tasks,
    statistics,
    swapped,
    swaps,
    two_sided,
)

MEAN, VARIANCE, LOWER, UPPER = range(4)
THEIRS = {
    "mean": np.mean,
    "variance": lambda x, axis: np.var(x, axis=axis, ddof=1),
    "lower quartile": lambda x, axis: np.quantile(x, 0.25, axis=axis),
    "upper quartile": lambda x, axis: np.quantile(x, 0.75, axis=axis),
}


def sides(pairs, tasks, *, seeds=3, run=0.0, own=0.0, stretch=0.0, key=0):
    """Two sides' scores `[pair, task]`, in points: `own` is what a recipe does to single tasks, with no tendency;
    `run` a training's luck on all tasks; `stretch` how much higher tasks gain."""
    rng = np.random.default_rng(key)
    hard = rng.normal(0, 8, (pairs, 1, 1, tasks))
    scores = hard + rng.normal(0, run, (pairs, 2, seeds, 1)) + rng.normal(0, 3, (pairs, 2, seeds, tasks))
    scores += rng.normal(0, own, (pairs, 1, 1, tasks)) * np.array([0.5, -0.5])[:, None, None]
    scores[:, 0] += stretch * hard[:, 0]
    means = scores.mean(axis=2)
    return means[:, 0], means[:, 1]


def alarms(pairs, tasks, **parts):
    return (swapped(*sides(pairs, tasks, **parts), swaps([f"t{i}" for i in range(tasks)])) < 0.05).mean(
        axis=0
    )


def allowed(pairs):
    return 0.05 + 3 * (0.05 * 0.95 / pairs) ** 0.5


@pytest.mark.parametrize(("tasks", "apart"), [(8, 1e-12), (14, 0.015)])
def test_p_is_that_of_scipys_permutation_test(tasks, apart):
    """All swaps of eight tasks; of fourteen, 9,999 drawn against SciPy's 16,384."""
    plus, minus = sides(1, tasks, stretch=0.3, key=2)
    ours = swapped(plus, minus, swaps([f"t{i}" for i in range(tasks)]))[0]
    for p, name in zip(ours, STATISTICS, strict=True):
        theirs = stats.permutation_test(
            (plus[0], minus[0]), lambda x, y, axis, of=THEIRS[name]: of(x, axis=axis) - of(y, axis=axis),
            permutation_type="samples", vectorized=True, n_resamples=np.inf,
        )  # fmt: skip
        assert p == pytest.approx(theirs.pvalue, abs=apart), name
    assert len(set(ours)) > 2


def test_the_sides_may_stand_either_way_round():
    plus, minus = sides(5, 9, stretch=0.2)
    ways = swaps("abcdefghi")
    assert np.array_equal(swapped(plus, minus, ways), swapped(minus, plus, ways))
    assert (swapped(plus, plus, ways) == 1).all()


@pytest.mark.parametrize(("seeds", "own"), [(1, 0.0), (3, 0.0), (3, 8.0)])
def test_false_alarms_are_no_more_than_one_in_twenty(seeds, own):
    """Also where the recipes differ on every task, one way or the other."""
    found = alarms(600, 9, seeds=seeds, own=own, key=seeds)
    assert (found <= allowed(600)).all()
    assert (found[[MEAN, VARIANCE]] > 0.02).all()


def test_lucky_trainings_raise_alarms_of_the_mean_and_not_of_the_variance():
    """Why the effects answer for the mean."""
    found = alarms(400, 9, run=3.0, key=5)
    assert found[MEAN] > 0.2
    assert found[VARIANCE] <= allowed(400)


def test_a_planted_spread_is_found_and_no_change_of_the_mean():
    found = alarms(200, 12, stretch=0.4, key=6)
    assert found[VARIANCE] > 0.6
    assert found[MEAN] < 0.2


def test_dealt_doses_are_all_deals():
    """Three doses and three seeds have 216 deals: as many as all of them say, within what drawing allows."""
    rng = np.random.default_rng(1)
    doses, of_runs = np.array([0.0, 0.2, 0.5]), rng.normal(0, 1, (3, 3, 4))
    of_runs += 2 * doses[:, None, None] * np.array([0, 1, 2, 4])
    slope, p = dealt(doses, of_runs)
    for v in range(4):
        lines = [
            np.mean([stats.linregress(np.array(d), of_runs[:, s, v]).slope for s, d in enumerate(deal)])
            for deal in product(permutations(doses), repeat=3)
        ]
        assert slope[v] == pytest.approx(lines[0])
        assert p[v] == pytest.approx(np.mean(np.abs(lines) >= abs(lines[0]) - 1e-9), abs=0.02)


def test_doses_that_do_nothing_are_found_one_time_in_twenty_whatever_the_luck_of_runs():
    rng = np.random.default_rng(3)
    doses = np.array([0.0, 0.1, 0.3, 0.5])
    scores = (
        rng.normal(0, 8, (200, 1, 1, 8))
        + rng.normal(0, 3, (200, 4, 3, 1))
        + rng.normal(0, 3, (200, 4, 3, 8))
    )
    found = np.mean([dealt(doses, statistics(one))[1] < 0.05 for one in scores], axis=0)
    assert (found <= allowed(200)).all()
    spread = scores * (1 + doses[:, None, None])
    assert np.mean([dealt(doses, statistics(one))[1][VARIANCE] < 0.05 for one in spread[:60]]) > 0.8


def levels(metric, task, dose, tuned, tokens):
    """Eight tasks; code at pre-training lifts the upper four."""
    at = int(task[-1])
    shift = 0.3 * dose if at > 3 else -0.3 * dose
    return 0.15 + 0.08 * at + shift if metric == "acc" else 1.5 - 0.1 * at


def invented(tasks=8, **options):
    told = study(items=60, **options)
    told["tasks"] = [
        {**told["tasks"][0], "name": f"t{i}", "domain": "code" if i == 7 else "x"} for i in range(tasks)
    ]
    for arm in [a for a in told["arms"] if a["name"] in ("half/text", "tenth/text")]:
        stage = arm["factors"]["pretrain"] + "@additive"
        told["arms"].append(
            arm | {"name": f"{stage}/text", "role": "control", "control": "additive", "against": "text/text",
                   "factors": {"pretrain": stage, "tune": "text"}}
        )  # fmt: skip
    plain = [
        {**a, "factors": {s: o.partition("@")[0] for s, o in a["factors"].items()}} for a in told["arms"]
    ]
    records = made(told | {"arms": plain}, levels)
    return records, told


@pytest.fixture(scope="module")
def found():
    records, told = invented()
    return records, over_tasks(records, contrasts(told))


def entry(rows, label, metric="acc"):
    return next(r for r in rows if r["label"].startswith(label) and r["metric"] == metric)


def test_both_sides_are_means_over_items_and_seeds_above_chance(found):
    records, rows = found
    told = entry(rows["pairs"], "half against text at pretrain, with text at tune")
    at = [records.arms.index(name) for name in ("half/text", "text/text")]
    scores = np.stack(
        [records.scores["tune", "off", f"t{i}", "acc"].mean(axis=2) for i in range(8)], axis=-1
    )
    plus, minus = 100 * (scores[at].mean(axis=1) - 0.1)
    for name, of in THEIRS.items():
        one = next(s for s in told["statistics"] if s["statistic"] == name)
        assert [one["plus"], one["minus"]] == pytest.approx([of(plus, -1), of(minus, -1)], rel=1e-4)
        assert one["difference"] == pytest.approx(of(plus, -1) - of(minus, -1), rel=1e-4)
        by_seed = of(scores[at[0]], -1) - of(scores[at[1]], -1)
        assert one["seeds_agree"] == (np.sign(by_seed) == np.sign(one["difference"])).sum()
    assert (told["tasks"], told["seeds"], told["smallest_p"]) == (8, 3, 2 / 2**8)


def test_every_pair_is_there_and_code_on_top_stands_against_code_in_place(found):
    records, rows = found
    pairs = {r["contrast"]: r for r in rows["pairs"]}
    asked = [c for c in contrasts(records.study) if c.family != "interaction" and c.cot is None]
    assert all(two_sided(c) and c.name in pairs for c in asked)
    assert not any(r["family"] == "interaction" for r in rows["pairs"])
    settings = [r["contrast"] for r in rows["pairs"] if (r["family"], r["metric"]) == ("setting", "acc")]
    assert settings == ["tenth@additive/text against tenth/text", "half@additive/text against half/text"]
    assert pairs["transfer-code@pretrain"]["tasks"] == 7


def test_p_is_corrected_over_a_familys_pairs_and_statistics(found):
    family = [r for r in found[1]["pairs"] if (r["family"], r["metric"]) == ("simple", "bpb")]
    told = [s for r in family for s in r["statistics"]]
    assert len(told) == 5 * 4
    assert [s["p_adjusted"] for s in told] == pytest.approx(holm([s["p"] for s in told]), rel=1e-4)


def test_the_spread_goes_with_the_dose(found):
    told = entry([r | {"label": r["varied"]} for r in found[1]["doses"]], "pretrain")
    assert told["doses"] == [0, 0.1, 0.25, 0.4, 0.5]
    variance = told["statistics"][VARIANCE]
    assert variance["slope"] > 0
    assert (
        variance["p_adjusted"]
        < 0.05
        < entry(found[1]["pairs"], "code at tune")["statistics"][VARIANCE]["p"]
    )
    assert variance["means"] == sorted(variance["means"])


def test_an_item_unknown_to_one_side_is_left_out_of_both():
    records, told = invented()
    hurt = {key: scores.copy() for key, scores in records.scores.items()}
    at = records.arms.index("half/text")
    for scores in hurt.values():
        scores[at, 1, :20] = np.nan
    cut = {key: scores[..., 20:] for key, scores in records.scores.items()}
    pair = [c for c in contrasts(told) if c.name == "half@pretrain|text at tune"]
    one, other = (
        over_tasks(type(records)(told, [], records.arms, records.seeds, scores), pair)["pairs"][0]
        for scores in (hurt, cut)
    )
    assert one["statistics"] == other["statistics"]


def test_few_tasks_and_thousands_of_pairs_are_not_tested():
    records, told = invented(tasks=5)
    assert over_tasks(records, contrasts(told)) == {"pairs": [], "doses": []}
    records, told = invented()
    many = [c for c in contrasts(told) if c.family == "simple"][:1] * (MOST + 1)
    assert {r["family"] for r in over_tasks(records, many)["pairs"]} == {"setting"}
