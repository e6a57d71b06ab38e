"""Answers are taken from an earlier evaluation where the same would be answered again, and nowhere else."""

import errno
import json
from dataclasses import asdict, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codestage.engine import store as stores
from codestage.engine.earlier import take_over
from codestage.engine.store import Step, Store
from codestage.errors import RunError
from codestage.evaluate import records
from codestage.evaluate.documents import task_items
from codestage.evaluate.records import CHECKPOINT_SCHEMA, kept
from codestage.evaluate.run import Evaluation
from codestage.evaluate.tasks import load_tasks

TASKS = load_tasks(["coin_flip", "ordering"])
OPTIONS = {"cot": ["off", "supplied"], "samples": 2, "library": "0.22"}


class Silent:
    """A model that is asked nothing: whoever asks it fails."""


def items_step(store, *, n=150, more=None, change=None):
    """Frozen questions, as `make_items` leaves them."""
    config = {"tasks": [[t.name, t.version] for t in TASKS], "n": n, "change": change} | (more or {})
    step = Step("items", "evaluation items", config)
    if not store.has(step):
        frozen = {t.name: [asdict(i) for i in task_items(t, n=n, data=None)] for t in TASKS}
        if change:
            frozen[change][7]["instruction"] += " Really?"
        made = store.work(step) / "made"
        made.mkdir()
        (made / "items.json").write_text(json.dumps(frozen))
        store.commit(step, made, 0.0)
    return step


def evaluation(items, store, *, tasks=TASKS, tokenizer="words", checkpoint="c", **options):
    config = {"tasks": [[t.name, t.version] for t in tasks]} | OPTIONS | options
    inputs = {"checkpoint": checkpoint, "tokenizer": "t", "items": items.hash}
    holds = {"tokenizer": tokenizer}
    return Step("evaluate", "one", config, inputs, holds, payload=("bubblewrap", ()))


def rows(step, items, store):
    """A record for each question in each mode of a task, in the order of an evaluation."""
    frozen = json.loads((store.path("items", items.hash) / "items.json").read_text())
    return [
        {"task": t.name, "suite": t.suite, "item": item["id"], "cot": mode, "metric": "acc", "output": f"{n}"}
        for t in TASKS
        if [t.name, t.version] in step.config["tasks"]
        for mode in step.config["cot"]
        for n, item in enumerate(frozen[t.name])
    ]  # fmt: skip


def finish(step, items, store):
    made = store.work(step) / "made"
    made.mkdir()
    table = pa.Table.from_pylist(rows(step, items, store), CHECKPOINT_SCHEMA)
    pq.write_table(table, made / "items.parquet")
    store.commit(step, made, 0.0)
    return table


def taken(step, store):
    return {path.stem for path in store.work(step).glob("*.parquet")}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_what_is_taken_is_every_part_that_would_be_made_and_holds_the_same(store, monkeypatch):
    monkeypatch.setattr(records, "PART", 100)
    items = items_step(store)
    table = finish(evaluation(items, store), items, store)
    step = evaluation(items, store, cot=["off", "supplied", "generated"])
    assert take_over([step], store) == 8  # two tasks in two modes, a hundred questions and fifty
    frozen = {t: task_items(t, n=150, data=None) for t in TASKS}
    parts = list(Evaluation(Silent()).parts(frozen, OPTIONS["cot"]))
    assert taken(step, store) == {name for name, _ in parts}
    again = pa.concat_tables([kept(store.work(step), name, make) for name, make in parts])
    assert again == table
    assert take_over([step], store) == 0


def test_with_one_task_before_and_two_now_one_is_taken(store):
    items = items_step(store, n=50)
    finish(evaluation(items, store, tasks=[t for t in TASKS if t.name == "ordering"]), items, store)
    more = items_step(store, n=50, more={"training_splits": {}})
    step = evaluation(more, store)
    take_over([step], store)
    assert taken(step, store) == {f"ordering-{mode}-0" for mode in OPTIONS["cot"]}


OTHERS = {
    "another checkpoint": {"checkpoint": "d"},
    "another tokenizer": {"tokenizer": "others"},
    "other samples": {"samples": 3},
    "another version of what cuts prompts": {"library": "0.1"},
    "a chat template": {"chat_template": True},
    "another version of the tasks": {"tasks": [replace(t, version=t.version + 1) for t in TASKS]},
    "another mode": {"cot": ["generated"]},
}


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_is_taken_from_what_asked_otherwise(store, name):
    items = items_step(store, n=20)
    finish(evaluation(items, store, **OTHERS[name]), items, store)
    step = evaluation(items, store)
    assert take_over([step], store) == 0


def test_a_task_of_which_a_question_changed_is_asked_again(store):
    items, changed = items_step(store, n=20), items_step(store, n=20, change="ordering")
    finish(evaluation(items, store), items, store)
    step = evaluation(changed, store)
    take_over([step], store)
    assert taken(step, store) == {f"coin_flip-{mode}-0" for mode in OPTIONS["cot"]}


def test_a_task_of_ones_own_that_is_judged_otherwise_is_asked_again(store):
    told = [{"own": {"ordering": {"answer": how}}} for how in ("text", "number")]
    before, now = (items_step(store, n=20, more=more) for more in told)
    finish(evaluation(before, store), before, store)
    step = evaluation(now, store)
    take_over([step], store)
    assert taken(step, store) == {f"coin_flip-{mode}-0" for mode in OPTIONS["cot"]}


def test_of_another_version_of_codestage_or_without_its_questions_nothing_is_taken(store, monkeypatch):
    items = items_step(store, n=20)
    finish(evaluation(items, store), items, store)
    lost = items_step(store, n=21)
    finish(evaluation(lost, store, checkpoint="e"), lost, store)
    gone = store.path("items", lost.hash)
    gone.rename(gone.with_name("gone"))
    assert take_over([evaluation(items, store, checkpoint="e")], store) == 0
    monkeypatch.setitem(stores.VERSIONS, "evaluate", stores.VERSIONS["evaluate"] + 1)
    assert take_over([evaluation(items, store)], store) == 0


def test_damaged_answers_are_told_and_not_taken(store):
    items = items_step(store, n=20)
    step = evaluation(items, store)
    finish(step, items, store)
    path = store.path("evaluate", step.hash) / "items.parquet"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RunError, match="damaged"):
        take_over([evaluation(items, store, cot=["off"])], store)


def test_a_disk_that_is_full_when_answers_are_taken_is_one_message(store, monkeypatch):
    items = items_step(store)
    first = evaluation(items, store)
    finish(first, items, store)

    def full(self, step):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Store, "work", full)
    with pytest.raises(RunError, match="No space left on device"):
        take_over([evaluation(items, store, tasks=TASKS[:1])], store)
