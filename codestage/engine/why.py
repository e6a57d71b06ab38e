"""Why a step will run again: it is set beside the finished step that is most like it, down to the first cause."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from codestage.engine.shared import open_store
from codestage.engine.store import VERSIONS, Step, Store, readable, stands_on
from codestage.engine.wanted import Wanted, wanted
from codestage.errors import UserError
from codestage.study.identity import plain

MOST = 20
"""Steps that are told at once."""
WORDS = {
    "rows": "rows drawn (by mixture, schedule, tokens and seed)",
    "rates": "learning rates",
    "start": "first batch",
    "stop": "batch after the last",
}
"""Fields of a train step that a study file has no word for."""
Change = dict[str, Any]
"""`field`, `was`, `now`; None: not there."""


def why(study_path: Path, folder: Path, asked: str = "") -> dict[str, Any]:
    """The steps that `asked` names, with what makes each of them run again.

    `asked` is the beginning of a hash or a part of a label; empty: every step that is not finished. Answers
    `{steps: [...], more, causes: [...], waits_for: [...]}`: `more` counts the steps beyond the first `MOST`;
    `waits_for` are labels of data steps that come before training can be laid out.

    Raises:
        UserError: no step of the study or of its store is called so.
    """
    store = open_store(folder)
    return Explanations(store, wanted(study_path, store)).answer(asked)


class Explanations:
    """Explains steps of one study by what its store holds."""

    def __init__(self, store: Store, now: Wanted) -> None:
        self._store, self._now = store, now
        self._held: dict[str, dict[str, dict[str, Any]]] = {}
        self._told: dict[tuple[str, str | None], dict[str, Any]] = {}

    def answer(self, asked: str) -> dict[str, Any]:
        """See `why`."""
        found = [s for s in self._now.steps.values() if _called(s.hash, s.label, asked)]
        if not asked:
            found = [s for s in found if not self._store.has(s)]
        told = [self.explain(step) for step in found[:MOST]]
        if asked and not found:
            told = self._unwanted(asked)
        waits = [step.label for step in self._now.missing]
        if asked and not told and not waits:
            raise UserError(
                f"no step is called {asked!r}; give the beginning of a hash or a part of a label, as "
                "`text/text#0 tune` or `documents of prose`"
            )
        if asked and not told:
            told = [self.explain(step) for step in self._now.missing[:MOST]]
        more = max(0, len(found) - MOST)
        return {"steps": told, "more": more, "causes": _gathered(told), "waits_for": waits}

    def explain(self, step: Step, beside: str | None = None) -> dict[str, Any]:
        """One step: its state, and where it will run, how it differs from a finished one.

        `beside` is the hash of the finished step to compare with; None: the one most like it.
        """
        key = (step.hash, beside)
        if key in self._told:
            return self._told[key]
        told: dict[str, Any] = {"kind": step.kind, "label": step.label, "hash": step.hash}
        finished = self._store.has(step)
        if finished and beside is None:
            return self._tell(key, told | {"state": "finished"})
        held = self._of_kind(step.kind)
        old = held.get(beside) if beside is not None else None
        old = old or _closest(step, list(held.values()))
        again = old is not None and _name(old["label"]) == _name(step.label)
        told["state"] = "finished" if finished else "will run again" if again else "never ran"
        if old is None or old["hash"] == step.hash:
            return self._tell(key, told | {"compared_with": None, "changes": [], "inputs": []})
        return self._tell(key, told | self._compared(step, old))

    def _tell(self, key: tuple[str, str | None], told: dict[str, Any]) -> dict[str, Any]:
        self._told[key] = told
        return told

    def _compared(self, step: Step, old: Mapping[str, Any]) -> dict[str, Any]:
        changes = list(differences(old["config"], plain(step.config), old.get("names", {}) | step.names))
        if old["version"] != VERSIONS[step.kind]:
            changes.insert(0, _change("codestage's own version of this kind of step", old["version"], VERSIONS[step.kind]))  # fmt: skip
        inputs = []
        for role in _other_inputs(old, step):
            was, now = old["inputs"].get(role), step.inputs.get(role)
            source = self._now.steps.get(now) if now else None
            reason = self.explain(source, was) if source and was else None
            inputs.append({"role": role, "was": was, "now": now, "why": reason})
        return {"compared_with": {"hash": old["hash"], "label": old["label"]}, "changes": changes, "inputs": inputs}  # fmt: skip

    def _of_kind(self, kind: str) -> dict[str, dict[str, Any]]:
        if kind not in self._held:
            self._held[kind] = {r["hash"]: r for r in self._store.finished(kind) if readable(r)}
        return self._held[kind]

    def _unwanted(self, asked: str) -> list[dict[str, Any]]:
        """Finished steps called so that the study does not want, or not any more."""
        state = (
            "not wanted by the study"
            if self._now.complete
            else "finished; whether it is wanted shows later"
        )
        return [
            {"kind": r["kind"], "label": r["label"], "hash": r["hash"], "state": state}
            for r in self._store.finished()
            if _called(str(r.get("hash")), str(r.get("label")), asked)
        ][:MOST]  # fmt: skip


def differences(was: Any, now: Any, names: Mapping[str, str], place: str = "") -> Iterator[Change]:
    """The leaves in which two plain values differ, by their place in them, as `stage.optimizer.lr`.

    Lists of hashes are compared as sets, by what `names` calls them.
    """
    if was == now:
        return
    if _by_name(was) and _by_name(now):  # tasks: where they stand in the list says nothing
        was, now = dict(was), dict(now)
    if isinstance(was, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*was, *now]):
            inside = f"{place}.{key}" if place else str(key)
            yield from differences(was.get(key), now.get(key), names, inside)
    elif isinstance(was, list) and isinstance(now, list) and {*map(str, (*was, *now))} & names.keys():
        gone = {names.get(h, h): h for h in was if h not in now}
        come = {names.get(h, h): h for h in now if h not in was}
        for name in dict.fromkeys([*gone, *come]):
            yield _change(f"{place}: {name}", gone.get(name), come.get(name))
        if not gone and not come:
            yield _change(f"{place}: their order", None, None)
    elif isinstance(was, list) and isinstance(now, list):
        for i, (a, b) in enumerate(zip_longest(was, now)):
            yield from differences(a, b, names, f"{place}[{i}]")
    else:
        yield _change(place, was, now)


def answer_lines(answer: Mapping[str, Any]) -> Iterator[str]:
    """The answer of `why` as people read it."""
    for step in answer["steps"]:
        yield from lines(step)
    if answer["more"]:
        yield f"and {answer['more']:,} more; give a part of a label to see others"
    if answer["waits_for"]:
        yield f"training and evaluation are known once these are done: {', '.join(answer['waits_for'])}"
    if not answer["steps"] and not answer["waits_for"]:
        yield "every step is finished: nothing will run again"
    if answer["causes"]:
        yield "where it begins:"
        for cause in answer["causes"][:MOST]:
            first, *others = cause["steps"]
            yield f"  {change_text(cause)}, in {first}" + (f" and {len(others)} more" if others else "")


def lines(told: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """An explanation as people read it, inputs indented under what stands on them."""
    before = "  " * depth
    beside = told.get("compared_with")
    if beside is None:
        yield f"{before}{told['label']}: {told['state']}"
        return
    other = "" if beside["label"] == told["label"] else f" ({beside['label']})"
    yield f"{before}{told['label']}: {told['state']}; beside {beside['hash'][:8]}{other}:"
    for change in told["changes"]:
        yield f"{before}  {change_text(change)}"
    for entry in told["inputs"]:
        yield f"{before}  input {entry['role']}: {_short(entry['was'])} → {_short(entry['now'])}"
        if entry["why"]:
            yield from lines(entry["why"], depth + 2)


def change_text(change: Mapping[str, Any]) -> str:
    """`field: was → now`."""
    field = WORDS.get(change["field"], change["field"])
    if change["was"] is None and change["now"] is None:
        return f"{field} differs"
    return f"{field}: {_short(change['was'])} → {_short(change['now'])}"


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = str(value)
    is_hash = len(text) == 32 and all(c in "0123456789abcdef" for c in text)
    return text[:8] if is_hash else text if len(text) <= 60 else f"{text[:57]}…"


def _change(field: str, was: Any, now: Any) -> Change:
    return {"field": field, "was": was, "now": now}


def _other_inputs(old: Mapping[str, Any], step: Step) -> list[str]:
    """Roles of inputs that are not the same, or do not hold the same, as those of a finished step."""
    was, now = stands_on(old["inputs"], old.get("holds", {})), stands_on(step.inputs, step.holds)
    return [role for role in dict.fromkeys([*was, *now]) if was.get(role) != now.get(role)]


def _called(hash_: str, label: str, asked: str) -> bool:
    by_hash = len(asked) >= 4 and hash_.startswith(asked.lower())
    return by_hash or asked.casefold() in label.casefold()


def _by_name(value: Any) -> bool:
    """Whether a list is one of (name, what it is) with each name once."""
    pairs = isinstance(value, list) and all(
        isinstance(v, list) and len(v) == 2 and isinstance(v[0], str) for v in value
    )
    return bool(pairs and value) and len(dict(value)) == len(value)


def _name(label: str, *, seed: bool = True) -> str:
    """A label without the batches that a segment reaches over; without its seed, too, if asked."""
    first, _, last = label.rpartition(" ")
    name = first if last.replace("-", "").isdigit() else label
    return name if seed else re.sub(r"#\d+ ", " ", name)


def _closest(step: Step, held: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The finished step that differs least; of the same name if there is one, or of another seed of it."""
    config = plain(step.config)
    same = [r for r in held if _name(r["label"]) == _name(step.label)]
    unseeded = _name(step.label, seed=False)
    same = same or [r for r in held if _name(r["label"], seed=False) == unseeded]

    def distance(record: dict[str, Any]) -> tuple[int, float]:
        here = sum(1 for _ in differences(record["config"], config, {}))
        here += len(_other_inputs(record, step))
        return here, -float(record.get("finished") or 0.0)

    return min(same or held, key=distance, default=None)


def _gathered(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Where the changes of all `steps` begin, each once, with the labels of the steps that have it."""
    found: dict[str, dict[str, Any]] = {}
    for step in steps:
        for label, change in _causes(step):
            entry = found.setdefault(repr(change), change | {"steps": []})
            if label not in entry["steps"]:
                entry["steps"].append(label)
    return list(found.values())


def _causes(told: Mapping[str, Any]) -> Iterator[tuple[str, Change]]:
    """(label, change) where changes begin. Which rows and rates a segment has, and where it is cut, follows from
    other changes where there are any.
    """
    changes, inputs = told.get("changes", []), told.get("inputs", [])
    own = [c for c in changes if c["field"] not in WORDS]
    if not own and all(entry["role"] in ("parent", "model") for entry in inputs):
        drawn = [c for c in changes if c["field"] in ("rows", "rates")]
        own = drawn or ([] if inputs else changes)
    yield from ((told["label"], change) for change in own)
    for entry in inputs:
        if entry["why"]:
            yield from _causes(entry["why"])
        else:
            yield told["label"], _change(f"input {entry['role']}", entry["was"], entry["now"])
