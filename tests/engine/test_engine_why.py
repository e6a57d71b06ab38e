"""Why a step runs again: the first cause is found through all that stands between, and what did not change is not told."""

import json

import pytest
from finished_fixture import MIXED, copy, finish, finished_study, own_text, write_prose

from codestage.engine import store as stores
from codestage.engine.store import Store
from codestage.engine.wanted import wanted
from codestage.engine.why import answer_lines, differences, why
from codestage.errors import UserError


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    folder = tmp_path_factory.mktemp("why")
    finished_study(folder)
    return folder


@pytest.fixture
def study(held, tmp_path):
    return copy(held, tmp_path)[0]


def change(study, old, new):
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new))


def ask(study, step=""):
    answer = why(study, study.with_suffix(""), step)
    json.dumps(answer, allow_nan=False)
    return answer, "\n".join(answer_lines(answer))


def test_nothing_runs_again_where_nothing_changed(study):
    answer, text = ask(study)
    assert answer["steps"] == answer["causes"] == answer["waits_for"] == []
    assert text == "every step is finished: nothing will run again"
    answer, text = ask(study, "text/text#0 tune")
    assert {s["state"] for s in answer["steps"]} == {"finished"}


def test_a_file_that_changed_is_named_with_both_its_hashes(study):
    write_prose(study.parent, first=1)
    answer, text = ask(study)
    (cause,) = answer["causes"]
    assert cause["field"] == "files: prose.jsonl"
    assert len(cause["was"]) == len(cause["now"]) == 32
    assert cause["was"] != cause["now"]
    assert cause["steps"] == ["documents of prose"]
    by_label = {s["label"]: s for s in answer["steps"]}
    tokenizer = by_label["tokenizer, 384 tokens"]
    assert [e["role"] for e in tokenizer["inputs"]] == ["prose"]
    assert tokenizer["inputs"][0]["why"]["label"] == "documents of prose"
    # rows of the other sources are cut by the tokenizer, which learnt from the text that changed
    assert by_label["programs, rows of 64"]["inputs"][0]["why"]["label"] == "tokenizer, 384 tokens"
    assert "documents of programs" not in by_label
    assert answer["waits_for"]
    assert f"prose.jsonl: {cause['was'][:8]} → {cause['now'][:8]}" in text


def test_a_file_that_came_or_went_is_named(study):
    write_prose(study.parent, "prose-2.jsonl", first=900)
    (cause,) = ask(study)[0]["causes"]
    assert (cause["field"], cause["was"]) == ("files: prose-2.jsonl", None)
    assert "prose-2.jsonl: none → " in ask(study)[1]


def test_a_changed_learning_rate_is_the_one_cause_of_all_that_follows(study):
    change(study, "    lr: {schedule: wsd", "    optimizer: {lr: 0.002}\n    lr: {schedule: wsd")
    answer, text = ask(study)
    assert {(c["field"], c["was"], c["now"]) for c in answer["causes"]} == {
        ("stage.optimizer.lr", 0.001, 0.002)
    }
    kinds = {s["kind"] for s in answer["steps"]}
    assert kinds == {"train", "evaluate"}
    assert all(s["state"] == "will run again" for s in answer["steps"])
    last = next(s for s in answer["steps"] if s["label"] == "text/text#0 after tune")
    chain = []
    while last.get("inputs"):
        chain.append(last["inputs"][0]["role"])
        last = last["inputs"][0]["why"]
    assert chain[:2] == ["checkpoint", "parent"]
    assert "stage.optimizer.lr: 0.001 → 0.002" in text


def test_a_changed_mixture_is_told_as_rows(study):
    change(study, "{prose: 2, programs: 1}", "{prose: 3, programs: 1}")
    answer, text = ask(study, "text+code/text#0 pretrain")
    assert {c["field"] for c in answer["causes"]} <= {"rows", "rates"}
    assert "rows drawn (by mixture" in text


def test_a_seed_that_is_new_never_ran(study):
    change(study, "seeds: 1", "seeds: 2")
    answer, _ = ask(study)
    assert {s["state"] for s in answer["steps"]} == {"never ran"}
    assert {(c["field"], c["was"], c["now"]) for c in answer["causes"]} == {("seed", 0, 1)}


def test_evaluation_that_asks_more_is_told_by_the_tasks(study):
    change(study, "items: 4", "items: 5")
    answer, _ = ask(study, "evaluation items")
    (step,) = answer["steps"]
    assert [(c["field"], c["was"], c["now"]) for c in step["changes"]] == [("n", 4, 5)]


def test_a_change_of_codestage_itself_is_told(study, monkeypatch):
    monkeypatch.setitem(stores.VERSIONS, "evaluate", stores.VERSIONS["evaluate"] + 1)
    answer, _ = ask(study)
    assert {s["kind"] for s in answer["steps"]} == {"evaluate"}
    assert {c["field"] for c in answer["causes"]} == {"codestage's own version of this kind of step"}


def test_steps_are_named_by_hash_too_and_unknown_names_are_refused(study):
    store = Store(study.with_suffix(""))
    step = next(s for s in wanted(study, store).steps.values() if s.kind == "tokenizer")
    answer, _ = ask(study, step.hash[:8])
    assert [s["hash"] for s in answer["steps"]] == [step.hash]
    with pytest.raises(UserError, match="no step is called"):
        ask(study, "no such step")


def test_finished_steps_of_other_arms_are_said_to_be_unwanted(study):
    change(study, MIXED, "")
    answer, _ = ask(study, "text/mixed#0 after tune")
    assert {s["state"] for s in answer["steps"]} == {"not wanted by the study"}


def test_before_anything_ran_all_wait_for_the_data(tmp_path):
    write_prose(tmp_path)
    (tmp_path / "own.yaml").write_text(own_text())
    answer, text = ask(tmp_path / "own.yaml")
    assert {s["state"] for s in answer["steps"]} == {"never ran"}
    assert "prose, rows of 64" in answer["waits_for"]
    assert "known once these are done" in text


def test_seeds_that_were_added_until_resolved_are_wanted(study):
    before = set(wanted(study, Store(study.with_suffix(""))).steps)
    path = study.with_suffix("") / "added-seeds.json"
    path.write_text('{"text/text": [0, 7], "no/arm": [9]}')
    labels = {
        s.label for h, s in wanted(study, Store(study.with_suffix(""))).steps.items() if h not in before
    }
    assert labels
    assert all(label.startswith("text/text#7 ") for label in labels)
    finish(study)
    assert ask(study)[0]["steps"] == []


def test_tasks_are_compared_by_name_wherever_they_stand():
    was, now = [["a", 1], ["b", 1], ["c", 2]], [["new", 0], ["a", 1], ["b", 3]]
    found = {(c["field"], c["was"], c["now"]) for c in differences({"tasks": was}, {"tasks": now}, {})}
    assert found == {("tasks.new", None, 0), ("tasks.b", 1, 3), ("tasks.c", 2, None)}
