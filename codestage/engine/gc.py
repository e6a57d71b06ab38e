"""What no study needs any more: shown first, deleted when asked.

Kept: the steps that the records in `results/` rest on, what the study wants now and what other studies named
want, all that these stand on, and the unfinished work of any of them.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from codestage.engine.progress import only_one
from codestage.engine.shared import DOWNLOAD, SharedStore, open_store
from codestage.engine.store import Store, content, disk_message
from codestage.engine.wanted import wanted
from codestage.errors import RunError, UserError

LATER = ("train", "evaluate")
"""Kinds that cannot be told to be wanted before the data are prepared."""
GONE = ".gone-"
"""Begins the name, in `work/`, of a folder that is being deleted."""


def collect(
    folder: Path,
    studies: Sequence[Path],
    *,
    keep: Sequence[Path] = (),
    cached: bool = False,
    delete: bool = False,
) -> dict[str, Any]:
    """What could go from `folder`'s store and work, and with `delete` its deletion.

    `studies` are the files of the study whose folder it is (none, if there is no such file any more), `keep`
    those of others that use the same folder. With `cached`, steps go as well that its remote store has; they come
    back when they are needed. In the remote store nothing is deleted (`codestage.engine.gc_remote` does that). Answers `{folder, deleted, steps: [{kind, hash, label, bytes}],
    work: [{name, bytes}], bytes, kept: {steps, bytes}, notes}`.

    Raises:
        UserError: nothing was run there; a study cannot be read; with `delete`, a run is going on there; with
            `cached`, it has no remote store.
        RunError: something cannot be deleted.
    """
    if not (folder / "store").is_dir():
        raise UserError(f"{folder}: no study was run here, so there is nothing to delete")
    if not delete:
        return _plan(folder, [*studies, *keep], cached)[0]
    with only_one(folder):
        answer, places = _plan(folder, [*studies, *keep], cached)
        _remove(places, folder / "work")
    return answer | {"deleted": True}


def _plan(folder: Path, studies: Sequence[Path], cached: bool) -> tuple[dict[str, Any], list[Path]]:
    """The answer of `collect`, and the folders that would go."""
    store = open_store(folder)
    held = {str(record["hash"]): record for record in Store(folder).finished()}
    needed, notes = needs(store, studies, held)
    if cached:
        needed -= _cached(store, held)
    gone: list[tuple[Path, dict[str, Any]]] = []
    kept, bytes_kept = 0, 0
    for path in sorted(p for p in (folder / "store").glob("*/*") if p.is_dir()):
        size = _bytes(path)
        if path.name in needed:
            kept, bytes_kept = kept + 1, bytes_kept + size
            continue
        label = str(held.get(path.name, {}).get("label", "not readable"))
        gone.append((path, {"kind": path.parent.name, "hash": path.name, "label": label, "bytes": size}))
    unfinished = [
        (path, {"name": path.name, "bytes": _bytes(path)})
        for path in sorted((folder / "work").glob("*"))
        if path.is_dir() and path.name.rpartition("-")[2] not in needed
    ]
    answer = {
        "folder": str(folder),
        "deleted": False,
        "steps": [told for _, told in gone],
        "work": [told for _, told in unfinished],
        "bytes": sum(told["bytes"] for _, told in (*gone, *unfinished)),
        "kept": {"steps": kept, "bytes": bytes_kept},
        "notes": notes,
    }
    return answer, [path for path, _ in (*gone, *unfinished)]


def _cached(store: Store, held: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Steps that the remote store has for certain. Evaluation items stay: the viewer shows them."""
    if not isinstance(store, SharedStore):
        raise UserError(
            f"{store.root}: has no remote store; --cached is for one that was run with --store"
        )
    kinds = {str(record["kind"]) for record in held.values()} - {"items"}
    return {str(record["hash"]) for kind in kinds for record in store.remote.records(kind)}


def needs(
    store: Store, studies: Sequence[Path], held: dict[str, dict[str, Any]]
) -> tuple[set[str], list[str]]:
    """Hashes of steps that are needed, finished or not, and what a reader should know of how that was found."""
    recorded = _recorded(store.root)
    found, judged, open_, notes = set(recorded), set(), set(), []
    work = [path.name.removeprefix(DOWNLOAD) for path in (store.root / "work").glob("*-*")]
    begun = [name.partition("-") for name in work]
    for study in studies:
        now = wanted(study, store)
        found |= now.steps.keys()
        asked = [step for step in now.steps.values() if step.kind == "evaluate"]
        judged |= {step.inputs["checkpoint"] for step in asked}
        # till they are done, earlier ones are what answers are taken from
        open_ |= {step.inputs["checkpoint"] for step in asked if step.hash not in held}
        if not now.complete:
            labels = ", ".join(step.label for step in now.missing)
            notes.append(
                f"{study}: not prepared yet: {labels}; so all that was trained and evaluated is kept"
            )
            found |= {hash_ for hash_, record in held.items() if record.get("kind") in LATER}
            found |= {hash_ for kind, _, hash_ in begun if kind in LATER}
    if not studies:
        notes.append("no study file was found, so all evaluations that the records may rest on, and all unfinished work, are kept")  # fmt: skip
        found |= {hash_ for _, _, hash_ in begun}
    for hash_, record in held.items():  # the records do not name their evaluations
        if record.get("kind") == "evaluate":
            checkpoint = record.get("inputs", {}).get("checkpoint")
            if checkpoint in open_ or (checkpoint in recorded and checkpoint not in judged):
                found.add(hash_)
    return _with_inputs(found, held), notes


def _recorded(folder: Path) -> set[str]:
    """Hashes of the segments that the records in `results/` rest on."""
    try:
        entries = json.loads((folder / "results" / "runs.json").read_text())
        return {str(h) for entry in entries for stage in entry["stages"] for h in stage["steps"]}
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder / 'results' / 'runs.json'}: not readable ({error}), so what the results rest on cannot be told; "
            "run the study again or remove the file, then nothing is kept for its sake"
        ) from None


def _with_inputs(found: Iterable[str], held: dict[str, dict[str, Any]]) -> set[str]:
    """`found` and all that they stand on; an input is not kept where another in `found` holds the same."""
    needed: set[str] = set()
    stack = list(found)
    there = {content(held[hash_]) for hash_ in stack if hash_ in held}
    while stack:
        hash_ = stack.pop()
        if hash_ not in needed:
            needed.add(hash_)
            record = held.get(hash_, {})
            holds = record.get("holds", {})
            inputs = record.get("inputs", {}).items()
            stack += [str(h) for role, h in inputs if holds.get(role) not in there]
    return needed


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _remove(places: Sequence[Path], work: Path) -> None:
    """Each folder goes out of sight in one move and is deleted then: nobody sees half a step."""
    for path in places:
        try:
            hidden = work / f"{GONE}{path.name}"
            if path.name.startswith(GONE):
                hidden = path
            else:
                shutil.rmtree(hidden, ignore_errors=True)
                path.rename(hidden)
            shutil.rmtree(hidden)
        except OSError as error:
            raise RunError(disk_message(path, error)) from None


def answer_lines(answer: Mapping[str, Any]) -> Iterator[str]:
    """The answer of `collect` as people read it."""
    yield from answer["notes"]
    for told in answer["steps"]:
        yield f"{_size(told['bytes']):>9}  {told['kind']} {told['hash'][:8]}  {told['label']}"
    for told in answer["work"]:
        yield f"{_size(told['bytes']):>9}  unfinished  {told['name']}"
    count, kept = len(answer["steps"]) + len(answer["work"]), answer["kept"]
    done = "deleted" if answer["deleted"] else "would be deleted with --delete"
    yield f"{count:,} folders, {_size(answer['bytes'])}: {done}" if count else "nothing to delete"
    yield f"kept: {kept['steps']:,} steps, {_size(kept['bytes'])}"


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
