"""A study asks questions of its own: they are frozen, searched for in the data, scored and told like any others."""

import json

import pyarrow.parquet as pq
import pytest
from shared_fixture import STUDY, run

from codestage.engine import run as runs
from codestage.engine.data_steps import data_steps
from codestage.engine.plan import plan
from codestage.errors import UserError
from codestage.study.load import load_study

ASKED = "evaluate: {suites: [coin_flip], cot: [off], items: 4, tasks: {%s}}\n"
OWN = "shelves: {domain: counting, path: shelves.jsonl}, sums: {domain: sums, path: sums.json, answer: number}"


def study(folder, own=OWN):
    shelves = [
        {
            "question": f"A shelf holds {i} books and gets two. How many?",
            "choices": [i + 2, i + 3],
            "answer": i + 2,
        }
        for i in range(6)
    ]
    (folder / "shelves.jsonl").write_text("\n".join(json.dumps(row) for row in shelves))
    sums = [{"question": f"{i} + 1?", "answer": i + 1} for i in range(3)]
    (folder / "sums.json").write_text(json.dumps(sums))
    path = folder / "small.yaml"
    path.write_text(STUDY[: STUDY.index("evaluate:")] + ASKED % own)
    return path


def test_own_questions_are_scored_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "rebuild", lambda folder: ({}, "files"))
    run(study(tmp_path))
    results = tmp_path / "small" / "results"
    rows = pq.read_table(results / "items.parquet").to_pylist()
    acc = {(r["task"], r["item"]) for r in rows if r["metric"] == "acc"}
    assert {item for task, item in acc if task == "shelves"} == {f"shelves-{i}" for i in range(4)}
    assert {item for task, item in acc if task == "sums"} == {f"sums-{i}" for i in range(3)}
    assert all(0 <= r["value"] <= 1 for r in rows if r["metric"] == "prob" and r["task"] == "shelves")
    told = {task["name"]: task for task in json.loads((results / "study.json").read_text())["tasks"]}
    assert (told["shelves"]["domain"], told["shelves"]["chance"]) == ("counting", 0.5)
    assert (told["sums"]["output_type"], told["sums"]["items"]) == ("generate_until", 3)
    assert {"shelves", "sums", "coin_flip"} == told.keys()


def test_what_a_question_says_is_identity_and_where_it_stands_is_not(tmp_path):
    def hash_of(path):
        return data_steps(load_study(path), path).items.hash

    path = study(tmp_path)
    first = hash_of(path)
    (tmp_path / "sums.json").rename(tmp_path / "other.json")
    path.write_text(path.read_text().replace("sums.json", "other.json"))
    assert hash_of(path) == first
    other = tmp_path / "other.json"
    other.write_text(other.read_text().replace('"0 + 1?"', '"1 + 0?"'))
    assert hash_of(path) != first
    path.write_text(path.read_text().replace(", answer: number", ""))
    other.write_text(other.read_text().replace('"1 + 0?"', '"0 + 1?"'))
    assert hash_of(path) != first


def test_plan_counts_them(tmp_path):
    rows = plan(study(tmp_path))["minimum_detectable_effect"]["rows"]
    items = {row["name"]: row["items"] for row in rows if row["level"] == "task"}
    assert (items["shelves"], items["sums"]) == (4, 3)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (
            "coin_flip: {domain: a, path: sums.json}",
            "small.yaml:22: 'coin_flip' is a task or suite that exists",
        ),
        ("sums: {domain: a, path: none.json}", "small.yaml:22: .*none.json: there is no such file"),
        ("sums: {domain: a}", "path"),
        ("", ""),
    ],
)
def test_what_cannot_be_asked_is_said_with_its_line(tmp_path, own, said):
    path = study(tmp_path, own)
    if not said:
        path.write_text(path.read_text().replace("suites: [coin_flip], ", ""))
        said = "nothing is asked"
    with pytest.raises(UserError, match=said):
        plan(path)
