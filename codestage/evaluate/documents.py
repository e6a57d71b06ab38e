"""A task's items: from the package's own generators, the data set's published files, or the hub."""

import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from jinja2.sandbox import ImmutableSandboxedEnvironment

from codestage.data.worlds import eval_items
from codestage.errors import UserError
from codestage.evaluate.converters import CONVERTERS, Doc
from codestage.evaluate.items import Item
from codestage.evaluate.own import own_docs
from codestage.evaluate.rows import parse, text_of
from codestage.evaluate.tasks import Task
from codestage.study.seeds import child


def task_items(
    task: Task, *, seed: int = 0, n: int | None = None, data: Path | None = None
) -> tuple[Item, ...]:
    """The first `n` items of a task: the same for every arm and seed of a study.

    `seed` moves only what the package makes itself. Published data is read from the folder `data` if the
    task's files are there, else from the hub.

    Raises:
        UserError: the data is in neither place, or cannot be read.
    """
    if task.harness:
        from codestage.evaluate.harness import harness_items

        return harness_items(task, n)
    items = []
    for i, doc in enumerate(_docs(task, seed, data)):
        if n is not None and i >= n:
            break
        items.append(_item(task, i, doc))
    if not items:
        raise UserError(f"task {task.name!r}: its data holds no item that can be asked")
    return tuple(items)


def has_data(task: Task, data: Path | None) -> bool:
    """Whether a task's items can be had without the hub."""
    return "procedural" in task.data or "own" in task.data or bool(data and published_files(task, data))


def documents(**metadata: Any) -> dict[str, Any]:
    """For the harness's `custom_dataset`: the split `test` of a task, from its `metadata`.

    The folder of published files is `metadata`'s `folder` (on the harness's command line:
    `--metadata '{"folder": "…"}'`).
    """
    from datasets import Dataset

    from codestage.evaluate.tasks import all_tasks

    task = next(t for t in all_tasks() if dict(t.data) == metadata["data"])
    folder = metadata.get("folder")
    rows = [
        {
            "instruction": item.instruction,
            "choices": list(item.choices),
            "gold": item.gold,
            "answer": item.answer,
            "aliases": list(item.aliases),
            "kind": task.answer if task.answer == "code" or not item.choices else "text",
            "begun": item.code.get("prompt", ""),
            "code": json.dumps(dict(item.code)),
        }
        for item in task_items(task, data=Path(folder) if folder else None)
    ]
    return {"test": Dataset.from_list(rows)}


def _docs(task: Task, seed: int, data: Path | None) -> Iterator[Doc]:
    if "procedural" in task.data:
        yield from _procedural(task, seed)
        return
    if "own" in task.data:
        yield from own_docs(Path(task.data["own"]))
        return
    convert = CONVERTERS[task.data["convert"]]
    files = published_files(task, data) if data else []
    try:
        if files:
            yield from convert(row for file in files for row in parse(text_of(file), file.name))
            return
        hub = task.data.get("hub")
        if hub is None:
            raise UserError(_absent(task, data))
        yield from CONVERTERS[hub.get("convert", task.data["convert"])](_hub_rows(task, hub, data))
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, ParseError) as error:
        where = ", ".join(f.name for f in files) or f"the hub's {task.data['hub']['path']}"
        told = f"{type(error).__name__}: {error}"
        raise UserError(f"task {task.name!r}: {where} is not in the format expected ({told})") from None


def _procedural(task: Task, seed: int) -> Iterator[Doc]:
    skill, (low, high) = task.data["procedural"]["skill"], task.data["procedural"]["depth"]
    for episode in eval_items(skill, task.items or 0, seed=child(seed, "items"), depth=(low, high)):
        yield {
            "question": episode.instruction,
            "choices": list(episode.choices),
            "gold": episode.choices.index(episode.answer),
            "rationale": " ".join(episode.steps),
        }


def published_files(task: Task, folder: Path) -> list[Path]:
    """The task's published files, packed or not; all or none."""
    found = []
    for name in task.data.get("files", ()):
        path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
        if path is None:
            return []
        found.append(path)
    return found


def _hub_rows(task: Task, hub: dict[str, Any], data: Path | None) -> Iterable[Any]:
    from datasets import load_dataset

    try:
        return load_dataset(hub["path"], hub.get("name"), split=hub["split"])
    except Exception as error:  # the hub's client raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{_absent(task, data)} The hub's {hub['path']} gave: {reason}") from None


def _absent(task: Task, data: Path | None) -> str:
    files = " and ".join(task.data.get("files", ()))
    if not files:
        return (
            f"task {task.name!r} has no data here: it is read from the hub. Without one, name the tasks you "
            "have instead of the suite."
        )
    where = f"{data} has no {files}" if data else f"no folder with {files} was named"
    return (
        f"task {task.name!r} has no data: {where}. Name the folder of published files as `data` under "
        f"`evaluate` (`codestage eval --data FOLDER`); they come from {task.source}."
    )


def _item(task: Task, i: int, doc: Doc) -> Item:
    choices = tuple(str(choice) for choice in doc.get("choices", ()))
    answer = choices[doc["gold"]] if choices else str(doc["answer"])
    return Item(
        id=f"{task.name}-{i if doc.get('id') in (None, '') else doc['id']}",
        instruction=_instruction(task, doc),
        choices=choices,
        answer=answer,
        rationale=doc.get("rationale", ""),
        gold=doc["gold"] if choices else -1,
        aliases=tuple(doc.get("aliases", ())),
        channel=tuple(_channel(task, doc, choice) for choice in choices) if task.channel else (),
        lettered=task.letters,
        code=doc.get("code", {}),
    )


def _instruction(task: Task, doc: Doc) -> str:
    if task.instruction != "{{question}}":
        return _render(task.instruction, doc)
    parts = (doc.get("context", ""), doc["question"])
    return "\n".join(part for part in parts if part)


def _channel(task: Task, doc: Doc, choice: str) -> tuple[str, str]:
    """(what says that `choice` is right, the evidence after it), by the task's templates."""
    fields = doc | {"choice": choice}
    return _render(task.channel["label"], fields), _render(task.channel["evidence"], fields)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(keep_trailing_newline=True)


def _render(template: str, doc: Doc) -> str:
    return _environment().from_string(template).render(**doc)


def from_json(row: dict[str, Any]) -> Item:
    """An item as `items.json` holds it."""
    tuples = {key: tuple(row[key]) for key in ("choices", "aliases")}
    return Item(**row | tuples | {"channel": tuple((a, b) for a, b in row["channel"])})
