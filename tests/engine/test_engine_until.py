"""Runs until resolved: who gets another seed, when it stops, and a real study that is killed on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TINY

from codestage.engine.results import code_options
from codestage.engine.store import Store
from codestage.engine.until import Until, added, asked, check, forget, settle
from codestage.engine.wanted import wanted
from codestage.errors import UserError
from codestage.evaluate.records import SCHEMA
from codestage.study.load import load_study

PRETRAIN, TUNE = ("text", "other", "code"), ("text", "code")
ARMS = [f"{a}/{b}" for a in PRETRAIN for b in TUNE]
PER_RUN = 1000


@dataclass
class Invented:
    """A study of six arms whose training is a coin: scores of every arm and seed, tokens of every run.

    Code at tuning adds 30 points; code at pre-training and the interaction add nothing, but vary from seed to
    seed, so that no number of seeds used here settles them. `other` is no code: only code at tuning rests on its arms.
    """

    folder: object
    noise: float = 0.05
    seeds: tuple = (0, 1, 2)
    laid: int = 0

    def study(self):
        return SimpleNamespace(seeds=self.seeds)

    def lay_out(self, more):
        self.laid += 1
        runs = [(arm, s) for arm in ARMS for s in (*self.seeds, *more.get(arm, ()))]
        return {
            f"{arm}#{s}": [
                SimpleNamespace(run=(arm, s), segments=[SimpleNamespace(hash=(arm, s), cost=PER_RUN)])
            ]
            for arm, s in runs
        }

    def finish(self, works):
        runs = [stages[0].run for stages in works.values()]
        rows = []
        for arm, seed in runs:
            rng = np.random.default_rng([seed, ARMS.index(arm)])
            luck = rng.normal(0, self.noise) if arm.startswith("code") else 0.0
            level = 0.4 + 0.3 * arm.endswith("/code") + luck
            rows += [
                {"run": f"{arm}#{seed}", "arm": arm, "seed": seed, "stage": "tune", "tokens": 1, "task": "t",
                 "suite": "x", "domain": "d", "item": f"{i:03}", "cot": "off", "metric": "acc",
                 "value": float(level + rng.normal(0, 0.001)), "status": "ok", "output": ""}
                for i in range(40)
            ]  # fmt: skip
        results = self.folder / "results"
        results.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), results / "items.parquet")
        (results / "runs.json").write_text("[]")
        (results / "study.json").write_text(json.dumps(self.told(runs)))
        return {}

    def told(self, runs):
        return {
            "stages": ["pretrain", "tune"],
            "seeds": sorted({s for _, s in runs}),
            "options": {"pretrain": PRETRAIN, "tune": TUNE},
            "code_options": {"pretrain": ["code"], "tune": ["code"]},
            "schedules": {"pretrain": dict.fromkeys(PRETRAIN, "mix"), "tune": dict.fromkeys(TUNE, "mix")},
            "arms": [
                {"name": arm, "role": "grid", "control": None, "against": None,
                 "factors": dict(zip(("pretrain", "tune"), arm.split("/"), strict=True)),
                 "tokens": {"pretrain": 1, "tune": 1}}
                for arm in ARMS
            ],
            "tasks": [{"name": "t", "domain": "d", "chance": 0.2, "metric": "acc", "cot": ["off"]}],
        }  # fmt: skip

    def settle(self, **limits):
        works, _ = settle(Until(**limits), self.study(), self.folder, self.lay_out, self.finish)
        return works, json.loads((self.folder / "results" / "study.json").read_text())["until"]


def seeds_of(works):
    found = {}
    for stages in works.values():
        arm, seed = stages[0].run
        found.setdefault(arm, []).append(seed)
    return found


def test_only_arms_of_open_contrasts_get_more_seeds(tmp_path):
    """Code at tuning is settled after 4 or 5 seeds; from then on `other`, which nothing open rests on, gets none."""
    works, told = Invented(tmp_path).settle(max_seeds=9)
    assert told["stopped"] == "max-seeds"
    settled = next(i for i, r in enumerate(told["rounds"]) if "code@tune" not in r["open"])
    assert 0 < settled < 4
    for i, entry in enumerate(told["rounds"][:-1]):
        assert "code@pretrain" in entry["open"]
        wanted = ARMS if i < settled else [a for a in ARMS if not a.startswith("other")]
        assert (entry["seed"], entry["arms"]) == (3 + i, wanted)
    found = seeds_of(works)
    assert found["code/text"] == list(range(9))
    assert found["other/text"] == list(range(3 + settled))
    assert (told["rounds"][-1]["seed"], told["rounds"][-1]["arms"]) == (None, [])


def test_seeds_of_later_rounds_are_remembered_by_a_run_that_begins_again(tmp_path):
    study = Invented(tmp_path)
    study.settle(max_seeds=5)
    before = added(tmp_path)
    assert before["code/text"] == [3, 4]
    study.settle(max_seeds=4)
    assert added(tmp_path) == before
    forget(tmp_path)
    assert added(tmp_path) == {}
    (tmp_path / "added-seeds.json").write_text("[1")
    assert added(tmp_path) == {}


def test_it_stops_where_everything_is_settled(tmp_path):
    works, told = Invented(tmp_path, noise=0.0).settle(max_seeds=12)
    assert told["stopped"] == "resolved"
    assert told["rounds"][-1]["open"] == []
    assert max(seeds_of(works)["text/text"]) < 7


@pytest.mark.parametrize(
    ("budget", "rounds"), [(18 * PER_RUN, 0), (24 * PER_RUN - 1, 0), (24 * PER_RUN, 1)]
)
def test_the_budget_is_never_passed_and_is_used_where_it_reaches(tmp_path, budget, rounds):
    works, told = Invented(tmp_path).settle(max_seeds=12, budget=budget)
    assert told["stopped"] == "budget"
    assert len(told["rounds"]) == 1 + rounds
    assert told["rounds"][-1]["tokens"] == PER_RUN * len(works) <= budget


def test_a_budget_below_the_own_seeds_is_refused_before_anything_is_done(tmp_path):
    study = Invented(tmp_path)
    with pytest.raises(UserError, match=r"own 3 seeds take 18,000 tokens; give at least that"):
        study.settle(budget=17_999)
    assert not list(tmp_path.iterdir())


def test_asked_again_it_decides_the_same(tmp_path):
    once, twice = Invented(tmp_path / "a"), Invented(tmp_path / "b")
    first = once.settle(max_seeds=8)
    assert first[1] == once.settle(max_seeds=8)[1] == twice.settle(max_seeds=8)[1]


def test_options_that_say_nothing_or_no_count_are_refused():
    assert asked(None, None, None) is None
    assert asked("resolved", 5, "1.5M") == Until(5, 1_500_000)
    with pytest.raises(UserError, match=r"--budget .*give --until resolved as well"):
        asked(None, None, "5M")
    with pytest.raises(UserError, match=r"--max-seeds .*give --until resolved as well"):
        asked(None, 5, None)
    with pytest.raises(UserError, match="--budget '5 bananas'"):
        asked("resolved", None, "5 bananas")


@pytest.mark.parametrize(
    ("old", "new", "limits", "told"),
    [
        ("seeds: 2", "seeds: 1", {}, r"tiny\.yaml:4: seeds: .* write seeds: 2 or more"),
        ("seeds: 2", "seeds: 4", {"max_seeds": 3}, r"tiny\.yaml:4: .*4 seeds.*--max-seeds 3"),
        ("cot: [off]", "cot: [supplied]", {}, r"tiny\.yaml:\d+: .*add off to cot"),
    ],
)
def test_what_cannot_be_settled_is_told_before_anything_is_trained(tiny, old, new, limits, told):
    tiny.write_text(TINY.replace(old, new))
    study = load_study(tiny)
    with pytest.raises(UserError, match=told):
        check(Until(**limits), study, tiny, code_options(study))


def test_a_study_without_code_has_nothing_to_settle(tiny, tiny_study):
    with pytest.raises(UserError, match=r"tiny\.yaml:\d+: no stage has an option with code"):
        check(Until(), tiny_study, tiny, {"pretrain": [], "tune": []})


def start(study, *more):
    command = [sys.executable, "-m", "codestage.cli", "run", str(study), "--until", "resolved", *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def run(study, *more):
    process = start(study, *more)
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, out + err
    results = study.parent / "tiny" / "results"
    told = json.loads((results / "study.json").read_text())
    items = pq.read_table(results / "items.parquet").drop(["seconds"]).to_pylist()
    return told, items, json.loads((results / "effects.json").read_text())


def write(folder):
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(TINY.replace("[token-matched, additive]", "[token-matched]"))
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small study that was run until three seeds, without a disturbance."""
    study = write(tmp_path_factory.mktemp("until"))
    return study.parent, run(study, "--max-seeds", "3")


@pytest.mark.slow
def test_a_real_study_gets_seeds_for_its_grid_and_none_for_its_controls(finished):
    _, (told, items, effects) = finished
    assert told["seeds"] == effects["seeds"] == [0, 1, 2]
    assert told["until"]["stopped"] == "max-seeds"
    roles = {arm["name"]: arm["role"] for arm in told["arms"]}
    seeds = {arm: {r["seed"] for r in items if r["arm"] == arm} for arm in roles}
    assert {len(seeds[arm]) for arm, role in roles.items() if role == "grid"} == {3}
    assert {len(seeds[arm]) for arm, role in roles.items() if role == "control"} == {2}
    assert told["cost"]["tokens_trained"] == told["until"]["rounds"][-1]["tokens"]
    used = {e["contrast"]: e["seeds"] for e in effects["effects"] if e["level"] == "overall"}
    assert used["code@tune"] == 3
    assert {used[name] for name in used if "@token-matched" in name} == {2}


@pytest.mark.slow
def test_a_real_study_stops_at_its_budget(finished, tmp_path):
    folder, (told, _, _) = finished
    rounds = told["until"]["rounds"]
    study = write(tmp_path)
    shutil.copytree(folder / "tiny" / "store", tmp_path / "tiny" / "store")
    before = set((tmp_path / "tiny" / "store" / "train").iterdir())
    told, _, _ = run(study, "--budget", str(rounds[1]["tokens"] - 1))
    assert told["until"]["stopped"] == "budget"
    assert [r["tokens"] for r in told["until"]["rounds"]] == [rounds[0]["tokens"]]
    assert told["seeds"] == [0, 1]
    assert not set((tmp_path / "tiny" / "store" / "train").iterdir()) - before


@pytest.mark.slow
def test_killed_in_a_later_round_it_ends_with_the_same_bits(finished, tmp_path):
    folder, (told, items, effects) = finished
    study = write(tmp_path)
    store = tmp_path / "tiny" / "store"
    shutil.copytree(folder / "tiny" / "store", store)
    lost = forget_seed(store, 2)  # as if killed after the study's own seeds
    process = start(study, "--max-seeds", "3")
    deadline = time.monotonic() + 200
    while not any((store / "train" / name).exists() for name in lost):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not all((store / "train" / name).exists() for name in lost)
    kept = set(wanted(study, Store(store.parent)).steps)
    assert lost <= kept, "while its records know the study's own seeds alone"
    again = run(study, "--max-seeds", "3")
    assert again[1:] == (items, effects)
    assert again[0]["until"] == told["until"]
    for path in (folder / "tiny" / "store" / "train").glob("*/model.safetensors"):
        assert (store / "train" / path.parent.name / path.name).read_bytes() == path.read_bytes()


def forget_seed(store, seed):
    """Remove all that was trained with a seed, and its scores; returns the names of the trainings."""
    made = {path: json.loads((path / "step.json").read_text()) for path in store.glob("*/*")}
    lost = {p.name for p, s in made.items() if s["kind"] == "train" and s["config"]["seed"] == seed}
    for path, step in made.items():
        if path.name in lost or step["inputs"].get("checkpoint") in lost:
            shutil.rmtree(path)
    assert lost
    return lost
