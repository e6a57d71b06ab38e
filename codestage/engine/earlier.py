"""Answers that an earlier evaluation of the same checkpoint has: with a task more, that task alone is asked."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from codestage.engine.store import VERSIONS, Step, Store, disk_message, readable, stands_on
from codestage.errors import RunError
from codestage.evaluate.documents import from_json
from codestage.evaluate.items import Cot
from codestage.evaluate.items import Item as Question
from codestage.evaluate.records import keep, named_parts
from codestage.evaluate.tasks import Task, modes, tasks_of
from codestage.study.identity import plain

Record = Mapping[str, Any]
Frozen = Mapping[str, list[dict[str, Any]]]


def take_over(steps: Iterable[Step], store: Store) -> int:
    """Put what finished evaluations in this folder have answered where `steps` keep their parts; how many parts.

    Taken is what would be answered again: the same questions of a task, asked in the same way of the same
    checkpoint with the same tokenizer.

    Raises:
        RunError: what is finished is damaged; the disk is full.
    """
    waiting = [step for step in steps if not store.has(step)]
    here = Store(store.root)  # what only a remote store has is not worth being brought
    finished: dict[str, list[dict[str, Any]]] = {}
    for record in here.finished("evaluate") if waiting else ():
        if readable(record) and record["version"] == VERSIONS["evaluate"]:
            finished.setdefault(record["inputs"]["checkpoint"], []).append(record)
    asked = _Asked(here)
    taken = 0
    for step in waiting:
        for record in sorted(finished.get(step.inputs["checkpoint"], ()), key=_age):
            for name, part in _parts(step, record, asked):
                taken += _put(store, step, name, part)
    return taken


def _put(store: Store, step: Step, name: str, part: pa.Table) -> bool:
    """Whether the part was not there yet."""
    path = store.work_path(step) / f"{name}.parquet"
    try:
        store.work(step)
        if path.exists():
            return False
        keep(path, part)
    except OSError as error:
        raise RunError(disk_message(path, error)) from None
    return True


def _age(record: Record) -> float:
    return -float(record["finished"])


class _Asked:
    """What finished steps asked, read once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._held: dict[str, tuple[Mapping[str, Any], Frozen] | None] = {}

    def of(self, hash_: str) -> tuple[Mapping[str, Any], Frozen] | None:
        """The config of an items step and its questions by task; None where they are not here any more."""
        if hash_ not in self._held:
            self._held[hash_] = None  # let go since
            if (self.store.path("items", hash_) / "step.json").exists():
                folder = self.store.read("items", hash_)
                config = json.loads((folder / "step.json").read_text())["config"]
                self._held[hash_] = config, json.loads((folder / "items.json").read_text())
        return self._held[hash_]


def _parts(step: Step, record: Record, asked: _Asked) -> Iterator[tuple[str, pa.Table]]:
    """The parts of `step`, by name, that a finished evaluation answered."""
    now, old = asked.of(step.inputs["items"]), asked.of(record["inputs"]["items"])
    if (
        not now
        or not old
        or _way(plain(step.config), stands_on(step.inputs, step.holds))
        != _way(record["config"], stands_on(record["inputs"], record.get("holds", {})))
    ):
        return
    same = [
        t for t in tasks_of(step.config["tasks"], step.payload[1]) if _same(t, step, record, now, old)
    ]
    if not same:
        return
    table = pq.read_table(asked.store.read("evaluate", record["hash"]) / "items.parquet")
    both = [mode for mode in step.config["cot"] if mode in record["config"]["cot"]]
    for task in same:
        items = [from_json(row) for row in now[1][task.name]]
        for mode in modes(task, both):
            yield from _cut(table, task, mode, items)


def _way(config: Mapping[str, Any], inputs: Mapping[str, str]) -> tuple[Any, str]:
    """How a model is asked, whatever the questions: the options of its evaluation, and the tokenizer."""
    options = {key: value for key, value in config.items() if key not in ("tasks", "cot")}
    return options, inputs["tokenizer"]


def _same(task: Task, step: Step, record: Record, now: Any, old: Any) -> bool:
    """Whether both ask the same questions of a task, and judge the answers in the same way."""
    versions = [dict(map(tuple, plain(config["tasks"]))) for config in (step.config, record["config"])]
    settings = [
        (c.get("own", {}).get(task.name), task.harness and c.get("lm_eval")) for c, _ in (now, old)
    ]
    rows = [frozen.get(task.name) for _, frozen in (now, old)]
    return all(a == b for a, b in (settings, rows, [v.get(task.name) for v in versions]))


def _cut(
    table: pa.Table, task: Task, mode: Cot, items: Sequence[Question]
) -> Iterator[tuple[str, pa.Table]]:
    """The records of a task in a mode, in the parts in which they are made."""
    of_task = table.filter((pc.field("task") == task.name) & (pc.field("cot") == mode))
    if not of_task or set(of_task["suite"].unique().to_pylist()) != {task.suite}:
        return
    for name, some in named_parts(task, mode, items):
        ids = pa.array([item.id for item in some])
        yield name, of_task if task.harness else of_task.filter(pc.field("item").isin(ids))
