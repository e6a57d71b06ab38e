"""What could be detected: planted effects of that size are found four times in five by the analysis' own test."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from records_fixture import TASKS, study, write
from scipy import stats

from codestage.analyse import power
from codestage.analyse.effects import make_test, parts
from codestage.analyse.power import (
    ASSUMED,
    LADDER,
    PLAUSIBLE,
    Level,
    Pilot,
    Spread,
    minimum_detectable,
    read_pilot,
)
from codestage.errors import UserError
from codestage.evaluate.records import SCHEMA

ITEMS_ALONE, SEEDS_ALONE = Spread(0.0, 0.2, 0.05), Spread(0.003, 0.0, 0.2)


def simulated(rng, spread, studies, effect, *, seeds, items):
    """D `[study, seed, item]` of one task."""
    return (
        effect
        + rng.normal(0, spread.seed**0.5, (studies, seeds, 1))
        + rng.normal(0, spread.item**0.5, (studies, 1, items))
        + rng.normal(0, spread.rest**0.5, (studies, seeds, items))
    )


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize(("items", "tasks"), [(30, 1), (150, 4), (1500, 1)])
@pytest.mark.parametrize("spread", [ASSUMED, ITEMS_ALONE, SEEDS_ALONE], ids=["both", "items", "seeds"])
def test_an_effect_of_that_size_is_found_four_times_in_five(seeds, items, tasks, spread):
    rng = np.random.default_rng([seeds, items, tasks])
    studies = 600 if items < 1000 else 300
    mde = Level(spread.seed / tasks, ((spread, items),) * tasks).points(seeds) / 100
    d = [simulated(rng, spread, studies, mde, seeds=seeds, items=items) for _ in range(tasks)]
    found = (make_test(parts(d)).p < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.05 if studies == 600 else 0.07)


@pytest.mark.parametrize("items", [40, 400])
def test_with_one_seed_it_is_that_of_the_paired_t_test(items):
    """Solved with the noncentral t distribution, which the one-sample t test has."""
    variance = ASSUMED.item + ASSUMED.rest
    mde = Level(ASSUMED.seed, ((ASSUMED, items),)).points(1) / 100
    shift = mde / (variance / items) ** 0.5
    reach = stats.t.isf(0.025, items - 1)
    assert stats.nct.sf(reach, items - 1, shift) == pytest.approx(0.8, abs=0.02)


def test_more_seeds_and_more_items_are_never_worse_and_the_floor_is_not_passed():
    for spread in (ASSUMED, ITEMS_ALONE, SEEDS_ALONE):
        level = Level(spread.seed, ((spread, 150),))
        by_seeds = [level.points(n) for n in (2, 3, 4, 5, 8, 12, 30, 1000)]
        assert by_seeds == sorted(by_seeds, reverse=True)
        assert level.floor <= 1.002 * by_seeds[-1]  # one is drawn, one is not
        assert by_seeds[-1] == pytest.approx(level.floor, rel=0.05, abs=0.7)
        by_items = [Level(spread.seed, ((spread, n),)).points(3) for n in (20, 50, 200, 1000, 10_000)]
        assert by_items == sorted(by_items, reverse=True)


def tasks_of(*items):
    return [
        {"name": f"t{i}", "domain": "even" if i % 2 == 0 else "odd", "items": n}
        for i, n in enumerate(items)
    ]


def test_rows_for_all_tasks_each_domain_and_each_task():
    answer = minimum_detectable(tasks_of(100, 200, 400), seeds=3)
    assert [(r["level"], r["name"], r["items"]) for r in answer["rows"]] == [
        ("overall", "all tasks", 700),
        ("domain", "even", 500),
        ("domain", "odd", 200),
        ("task", "t0", 100),
        ("task", "t1", 200),
        ("task", "t2", 400),
    ]
    for row in answer["rows"]:
        assert row["from"] == "assumed"
        assert row["by_seeds"]["3"] == row["points"]
        assert list(row["by_seeds"]) == [str(n) for n in LADDER]
        assert row["points_one_seed_more"] < row["points"]
        assert row["floor"] < row["by_seeds"]["8"]


def test_tasks_that_cannot_resolve_anything_are_named_and_the_advice_works():
    answer = minimum_detectable(tasks_of(20, 150, 20_000), seeds=3)
    named = {t["name"]: t for t in answer["unresolvable"]}
    assert set(named) == {"t0", "t1"}
    assert named["t0"]["seeds_needed"] is None  # twenty items do not do, whatever the seeds
    enough = [named["t0"]["items_needed"], named["t1"]["items_needed"], 20_000]
    assert not minimum_detectable(tasks_of(*enough), seeds=3)["unresolvable"]
    again = minimum_detectable(tasks_of(20, 150, 20_000), seeds=named["t1"]["seeds_needed"])
    assert [t["name"] for t in again["unresolvable"]] == ["t0"]
    one_less = minimum_detectable(tasks_of(20, 150, 20_000), seeds=named["t1"]["seeds_needed"] - 1)
    assert len(one_less["unresolvable"]) == 2
    assert "items or " in named["t1"]["mend"]


def test_where_neither_would_do_it_is_said():
    huge = Level(0.2**2, ((Spread(0.2**2, 0.3, 0.1), 20),))
    told = power._unresolvable({"name": "t", "points": 99.0, "items": 20}, huge, 2, False)
    assert (told["items_needed"], told["seeds_needed"]) == (None, None)
    assert told["mend"] == "neither more items nor more seeds"
    assert huge.points(2) > huge.points(30) > PLAUSIBLE


def told_tasks(names=TASKS, items=200):
    return [{"name": n, "domain": TASKS.get(n, "new"), "items": items} for n in names]


def pilot_scores(folder):
    """`[arm, seed, item]` of each task, from the records themselves."""
    rows = pq.read_table(folder / "results" / "items.parquet").to_pylist()
    arms, found = [a["name"] for a in study()["arms"]], {}
    for task in TASKS:
        of_task = {(r["arm"], r["seed"], r["item"]): r["value"] for r in rows if r["task"] == task}
        seeds, items = (sorted({k[i] for k in of_task}) for i in (1, 2))
        found[task] = np.array([[[of_task[a, s, i] for i in items] for s in seeds] for a in arms])
    return found


def test_a_pilot_gives_the_variances_of_all_pairs_of_its_arms(tmp_path):
    write(tmp_path, items=60)
    pilot, scores = read_pilot(tmp_path), pilot_scores(tmp_path)
    assert set(pilot.spreads) == set(TASKS)
    for task, x in scores.items():
        seed, item, rest = [], [], []
        for a, b in combinations(x, 2):
            d = a - b
            within = d - d.mean(axis=0) - d.mean(axis=1, keepdims=True) + d.mean()
            rest.append((within**2).sum() / (2 * 59))
            seed.append(d.mean(axis=1).var(ddof=1) - rest[-1] / 60)
            item.append(d.mean(axis=0).var(ddof=1) - rest[-1] / 3)
        spread = pilot.spreads[task]
        assert spread.rest == pytest.approx(np.mean(rest))
        assert spread.seed == pytest.approx(max(0, np.mean(seed)))
        assert spread.item == pytest.approx(max(0, np.mean(item)))


def test_tasks_that_the_pilot_lacks_are_assumed_and_said_to_be(tmp_path):
    pilot = read_pilot(write(tmp_path, items=60))
    answer = minimum_detectable(told_tasks([*TASKS, "other"]), seeds=3, pilot=pilot)
    origin = {r["name"]: r["from"] for r in answer["rows"]}
    assert origin == {
        "all tasks": "both", "symbolic": "pilot", "arithmetic": "pilot", "code": "pilot", "new": "assumed",
        **dict.fromkeys(TASKS, "pilot"), "other": "assumed",
    }  # fmt: skip
    assert answer["pilot"] == "invented"
    alone = minimum_detectable(told_tasks(["other"]), seeds=3)["rows"][-1]
    assert next(r for r in answer["rows"] if r["name"] == "other")["points"] == alone["points"]


def shared_luck(folder, *, shared, seeds=6, items=80):
    """A pilot whose arms differ by seed: by the same on all tasks, or on each task by its own."""
    rng, told, rows = np.random.default_rng(5), study(seeds), []
    luck = {a["name"]: rng.normal(0, 0.1, (seeds, len(TASKS))) for a in told["arms"]}
    for arm in told["arms"]:
        for seed in range(seeds):
            for t, (task, domain) in enumerate(TASKS.items()):
                level = 0.6 + luck[arm["name"]][seed, 0 if shared else t]
                rows += [
                    {"run": f"{arm['name']}#{seed}", "arm": arm["name"], "seed": seed, "stage": "tune",
                     "tokens": 1, "task": task, "suite": "x", "domain": domain, "item": f"{i:03}",
                     "cot": "off", "metric": "acc", "value": level, "status": "ok", "output": ""}
                    for i in range(items)
                ]  # fmt: skip
    write(folder, seeds=seeds, items=2)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "results" / "items.parquet")
    return read_pilot(folder)


@pytest.mark.parametrize("shared", [0.0, 0.05])
def test_the_pilots_variance_over_tasks_is_that_of_differences_between_arms(shared):
    """Brute force over all pairs; what a seed does to all arms alike is in no difference."""
    rng = np.random.default_rng(6)
    means = {t: rng.normal(0.4, 0.02, (4, 6)) + rng.normal(0, shared, (1, 6)) for t in "ab"}
    pilot = Pilot("p", means, {}, {}, frozenset())
    over = (means["a"] + means["b"]) / 2
    wanted = np.mean([(over[i] - over[j]).var(ddof=1) for i, j in combinations(range(4), 2)])
    assert pilot.seed_variance(["a", "b"]) == pytest.approx(wanted)


def test_luck_that_tasks_share_does_not_average_out(tmp_path):
    found = {}
    for shared in (True, False):
        pilot = shared_luck(tmp_path / str(shared), shared=shared)
        rows = minimum_detectable(told_tasks(), seeds=3, pilot=pilot)["rows"]
        found[shared] = rows[0]["points"] / np.mean([r["points"] for r in rows if r["level"] == "task"])
    assert found[True] == pytest.approx(1, abs=0.02)
    assert found[False] == pytest.approx(0.5, abs=0.1)  # four tasks


def test_tasks_at_chance_in_every_arm_of_the_pilot_are_named(tmp_path):
    pilot = read_pilot(write(tmp_path, items=80, base=0.25))
    answer = minimum_detectable(told_tasks(items=100_000), seeds=30, pilot=pilot)
    assert {t["name"] for t in answer["unresolvable"]} == pilot.at_chance == set(TASKS)
    assert all(t["at_chance"] and t["items_needed"] is None for t in answer["unresolvable"])
    able = read_pilot(write(tmp_path / "able", items=80, base=0.6))
    assert not able.at_chance


def test_a_pilot_of_one_seed_is_refused(tmp_path):
    with pytest.raises(UserError, match="takes two arms and two seeds"):
        read_pilot(write(tmp_path, seeds=1, items=20))
    with pytest.raises(UserError, match="no readable records"):
        read_pilot(tmp_path / "none")
