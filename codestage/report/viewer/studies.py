"""The folders that the page shows: what each study says of itself, read again when its files change."""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from codestage.analyse.contrasts import contrasts
from codestage.errors import UserError

STUDY_KEYS = ("name", "seeds", "stages", "options", "code_options", "schedules", "arms", "tasks")
ARM_KEYS = ("name", "role", "control", "against", "factors", "tokens")
TASK_KEYS = ("name", "domain", "metric", "cot")


class Cache:
    """The last few answers, by what they depend on. An answer is worked out by one thread at a time,
    so that many requests at once need no more memory than one.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The answer under `key`; `make` works it out where it is not kept any more."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
            self._kept.move_to_end(key)
            while len(self._kept) > self._room:
                self._kept.popitem(last=False)
            return self._kept[key]


@dataclass(frozen=True)
class Folder:
    """One study's folder: `results/` may not be there yet, and may be written again at any time."""

    path: Path
    _read: Cache = field(default_factory=lambda: Cache(8), repr=False, compare=False)

    @property
    def items(self) -> Path:
        return self.path / "results" / "items.parquet"

    def stamp(self, name: str) -> tuple[int, int] | None:
        """What changes whenever the file `results/NAME` does; None while there is none."""
        try:
            told = (self.path / "results" / name).stat()
        except OSError:
            return None
        return told.st_mtime_ns, told.st_size

    @property
    def ready(self) -> bool:
        """Whether there are results to show."""
        return self.stamp("study.json") is not None and self.stamp("items.parquet") is not None

    def told(self) -> Mapping[str, Any]:
        """What `study.json` says.

        Raises:
            UserError: there is none yet, or it lacks what the page needs.
        """
        study = self._json("study.json")
        for name, keys in (("arms", ARM_KEYS), ("tasks", TASK_KEYS)):
            for i, entry in enumerate(study.get(name) or ()):
                _need(self._file("study.json"), f"{name}[{i}] ", entry, keys)
        _need(self._file("study.json"), "", study, STUDY_KEYS)
        return study

    def effects(self) -> Mapping[str, Any]:
        """What `effects.json` says.

        Raises:
            UserError: there is none yet, or it cannot be read.
        """
        told = self._json("effects.json")
        _need(self._file("effects.json"), "", told, ("effects", "alpha", "notes"))
        return told

    def pairs(self) -> dict[str, tuple[str, str]]:
        """Contrast -> two arms that show it: they differ in as few stages as any two on its sides do.

        A contrast of modes, and an interaction, is not one pair of arms.
        """
        study = self.told()
        arms = {str(arm["name"]): arm for arm in study["arms"]}
        found = {}
        for contrast in contrasts(study):
            if contrast.cot is not None or contrast.family == "interaction":
                continue
            less = [name for name in arms if contrast.weights.get(name, 0) < 0]
            more = [name for name in arms if contrast.weights.get(name, 0) > 0]
            both = [(a, b) for a in less for b in more]
            if both:
                found[contrast.name] = min(both, key=lambda p: _apart(arms[p[0]], arms[p[1]]))
        return found

    def frozen(self, task: str, item: str, gold: str | None) -> Mapping[str, Any] | None:
        """The frozen item as it was asked, from the store; None where it is not at hand.

        A store may hold the items of several versions of a study: the one whose answer is `gold`
        is taken, the newest first.
        """
        paths = sorted((self.path / "store" / "items").glob("*/items.json"), key=_age, reverse=True)
        for path in paths:
            key = (str(path), _age(path))
            found = self.kept(key, partial(_by_id, path)).get(task, {}).get(item)
            if found is not None and (gold is None or found.get("answer") == gold):
                return dict(found)
        return None

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` worked out under `key`, kept among the last few."""
        return self._read.get(key, make)

    def _file(self, name: str) -> Path:
        return self.path / "results" / name

    def _json(self, name: str) -> dict[str, Any]:
        stamp = self.stamp(name)
        if stamp is None:
            raise UserError(
                f"{self.path}: no results yet ({name} is not there); they come when the study is done"
            )
        answer: dict[str, Any] = self.kept((name, stamp), lambda: _object(self._file(name)))
        return answer


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); make it again with `codestage report DIR`"
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected an object, got {type(found).__name__}")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number; unknown is written null")


def _need(path: Path, where: str, entry: Any, keys: Sequence[str]) -> None:
    missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
    if missing:
        raise UserError(
            f"{path}: {where}lacks {', '.join(missing)}; run the study again to write it anew"
        )


def _apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    return sum(one["factors"].get(stage) != option for stage, option in other["factors"].items())


def _age(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _by_id(path: Path) -> dict[str, dict[str, Any]]:
    """Task -> item id -> item; a file that cannot be read holds none."""
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
        return {task: {str(item["id"]): item for item in items} for task, items in tasks.items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return {}
