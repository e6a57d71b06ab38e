"""The records that a report is made of, read once and checked.

Everything on the page comes from here: `effects.json`, `study.json`, `runs.json`, `items.parquet`
and, where they exist, `curves.parquet` and `validation.parquet`. A value that nobody knows is None, never 0.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codestage.errors import UserError

LEVELS = ("overall", "domain", "task")
VERDICTS = ("up", "down", "equivalent", "not_worse", "open")
OWN = ("study", "seeds", "alpha", "margins", "arms", "effects", "notes")
"""Parts of effects.json that have a field of their own here."""
STATUSES = ("ok", "unparsed", "empty", "missing", "cut")
MEND = "Make the records again with `codestage run STUDY` (what is finished is not done again)."


@dataclass(frozen=True)
class Effect:
    """One difference between arms. `points` are percentage points; positive: code scores higher."""

    contrast: str
    label: str
    family: str
    level: str
    name: str
    metric: str
    stage: str
    cot: str
    estimate: float | None
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None
    n_items: int | None
    seeds: int | None
    mde: float | None
    unit: str
    verdict: str
    q: float | None
    """p adjusted for the rate of false discoveries."""
    bootstrap: tuple[float, float] | None
    """Interval of the hierarchical bootstrap."""
    mixed: tuple[float, float, float, float] | None
    """Estimate, low, high and p of the mixed model of the grid."""
    shrunk: tuple[float, float, float] | None
    """Mean, low and high of a task's effect given the other tasks'."""
    items: Mapping[str, Any] | None
    """Of a task: items `gained` and `lost` (of two arms), and `p` of these very runs."""


@dataclass(frozen=True)
class Mean:
    """The score of one arm: mean and interval as a share (acc, exact_match, prob) or in bits."""

    arm: str
    stage: str
    cot: str
    level: str
    name: str
    metric: str
    mean: float | None
    low: float | None
    high: float | None
    n_items: int | None
    seeds: int | None
    chance: float | None
    above_chance: bool | None


@dataclass(frozen=True)
class Curve:
    """Training loss of one run's stage: `tokens` and `loss` are `[points]`, tokens within it."""

    arm: str
    seed: int
    stage: str
    tokens: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True)
class HeldOut:
    """Loss in nats a token on what one source holds out, `tokens` into a stage of one run."""

    arm: str
    seed: int
    stage: str
    tokens: int
    source: str
    domain: str
    loss: float


@dataclass(frozen=True)
class Records:
    """All that a report may know. `study` and `runs` stay as written; the helpers read them."""

    study: Mapping[str, Any]
    alpha: float
    effects: tuple[Effect, ...]
    means: tuple[Mean, ...]
    notes: tuple[str, ...]
    margins: Mapping[str, float]
    """Metric -> the largest difference that counts as none."""
    runs: tuple[Mapping[str, Any], ...]
    curves: tuple[Curve, ...]
    held_out: tuple[HeldOut, ...]
    statuses: Mapping[tuple[str, str], Mapping[str, int]]
    """(task, cot) -> how many answers were ok, unparsed, empty, missing."""
    sections: Mapping[str, Any] = field(default_factory=dict)
    """What else effects.json holds, by name, as written: the section that shows it reads it."""

    @property
    def stages(self) -> list[str]:
        return list(self.study["stages"])

    @property
    def tasks(self) -> list[Mapping[str, Any]]:
        return list(self.study["tasks"])

    @property
    def domains(self) -> list[str]:
        """Domains of the tasks, in the order of the study."""
        return list(dict.fromkeys(str(task["domain"]) for task in self.tasks))

    @property
    def confidence(self) -> str:
        return f"{100 * (1 - self.alpha):g} %"

    def arms(self, role: str) -> list[Mapping[str, Any]]:
        return [arm for arm in self.study["arms"] if arm["role"] == role]


def read(folder: Path) -> Records:
    """Read a results folder: the one with `effects.json`, or the study's folder around it.

    Raises:
        UserError: a file is missing, unreadable, or lacks what the interface promises.
    """
    folder = folder / "results" if (folder / "results").is_dir() else folder
    if not folder.is_dir():
        raise UserError(f"{folder}: no such results folder. {MEND}")
    effects = _object(folder / "effects.json", ("alpha", "arms", "effects", "notes"))
    study = _object(folder / "study.json", ("name", "seeds", "stages", "options", "arms", "tasks"))
    runs = _json(folder / "runs.json")
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        raise UserError(f"{folder / 'runs.json'}: expected a list of runs. {MEND}")
    _check_study(folder / "study.json", study)
    alpha = effects["alpha"]
    if not isinstance(alpha, int | float) or not 0 < alpha < 1:
        raise UserError(f"{folder / 'effects.json'}: alpha must be in (0, 1), got {alpha!r}. {MEND}")
    return Records(
        study=study,
        alpha=float(alpha),
        effects=_rows(folder / "effects.json", "effects", effects["effects"], Effect),
        means=_rows(folder / "effects.json", "arms", effects["arms"], Mean),
        notes=tuple(str(note) for note in effects["notes"]),
        margins=effects.get("margins") or {},
        runs=tuple(runs),
        curves=_curves(folder / "curves.parquet"),
        held_out=_held_out(folder / "validation.parquet"),
        statuses=_statuses(folder / "items.parquet"),
        sections={name: part for name, part in effects.items() if name not in OWN},
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise UserError(f"{path}: missing. {MEND}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}). {MEND}") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}). {MEND}") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number; unknown is written null")


def _object(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    value = _json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected an object, got {type(value).__name__}. {MEND}")
    missing = [key for key in keys if key not in value]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}. {MEND}")
    return value


def _check_study(path: Path, study: Mapping[str, Any]) -> None:
    """The few things that every section relies on."""
    wanted = {"arms": ("name", "role", "factors"), "tasks": ("name", "domain", "metric")}
    for part, keys in wanted.items():
        if not isinstance(study[part], list):
            raise UserError(f"{path}: {part} must be a list. {MEND}")
        for i, entry in enumerate(study[part]):
            missing = [k for k in keys if not isinstance(entry, dict) or k not in entry]
            if missing:
                raise UserError(f"{path}: {part}[{i}] lacks {', '.join(missing)}. {MEND}")
    if not study["stages"] or not study["arms"]:
        raise UserError(f"{path}: a study has at least one stage and one arm. {MEND}")


Row = TypeVar("Row", Effect, Mean)
NUMBERS = frozenset("estimate mean low high p p_adjusted n_items seeds mde chance q".split())
ALLOWED = {"level": LEVELS, "verdict": VERDICTS}
SEVERAL = {"bootstrap": 2, "mixed": 4, "shrunk": 3}
"""Fields of several numbers, or null."""


def _rows(path: Path, part: str, entries: Any, kind: type[Row]) -> tuple[Row, ...]:
    if not isinstance(entries, list):
        raise UserError(f"{path}: {part} must be a list. {MEND}")
    names = [f.name for f in fields(kind)]
    return tuple(_row(path, f"{part}[{i}]", entry, kind, names) for i, entry in enumerate(entries))


def _row(path: Path, where: str, entry: Any, kind: type[Row], names: Sequence[str]) -> Row:
    missing = [name for name in names if not isinstance(entry, dict) or name not in entry]
    if missing:
        raise UserError(f"{path}: {where} lacks {', '.join(missing)}. {MEND}")
    for name in names:
        value = entry[name]
        if value is None:
            continue
        if name in NUMBERS and not _finite(value):
            raise UserError(f"{path}: {where}.{name} must be a number or null, got {value!r}. {MEND}")
        if (n := SEVERAL.get(name)) and not (isinstance(value, list) and len(value) == n):
            raise UserError(f"{path}: {where}.{name} must be {n} numbers or null, got {value!r}. {MEND}")
    for name, allowed in ALLOWED.items():
        if name in names and entry[name] not in allowed:
            raise UserError(
                f"{path}: {where}.{name} must be one of {', '.join(allowed)}, got {entry[name]!r}. {MEND}"
            )
    return kind(**{name: entry[name] for name in names})


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _table(path: Path, columns: Sequence[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=list(columns))
    except FileNotFoundError:
        raise UserError(f"{path}: missing. {MEND}") from None
    except (OSError, pa.ArrowException, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({error}). {MEND}") from None


def _curves(path: Path) -> tuple[Curve, ...]:
    """Loss curves in file order; a study kept without them has none, which the page says."""
    if not path.exists():
        return ()
    table = _table(path, ["arm", "seed", "stage", "tokens", "loss"])
    keys = list(zip(*(table.column(name).to_pylist() for name in ("arm", "seed", "stage")), strict=True))
    places: dict[tuple[str, int, str], list[int]] = {}
    for i, key in enumerate(keys):
        places.setdefault(key, []).append(i)
    tokens = table.column("tokens").to_numpy().astype(float)
    loss = table.column("loss").to_numpy().astype(float)
    return tuple(Curve(*key, tokens[at], loss[at]) for key, at in places.items())


def _held_out(path: Path) -> tuple[HeldOut, ...]:
    """Held-out losses in file order; most studies ask for none."""
    if not path.exists():
        return ()
    table = _table(path, [f.name for f in fields(HeldOut)])
    return tuple(HeldOut(**row) for row in table.to_pylist())


def _statuses(path: Path) -> dict[tuple[str, str], dict[str, int]]:
    """Counted a batch at a time: a large study has tens of millions of answers."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    keys = ["task", "cot", "status"]
    try:
        with pq.ParquetFile(path, read_dictionary=keys) as file:
            for batch in file.iter_batches(1 << 20, columns=keys):
                counted = pa.table(batch).group_by(keys).aggregate([([], "count_all")])
                for row in counted.to_pylist():
                    of_task = found.setdefault((row["task"], row["cot"]), dict.fromkeys(STATUSES, 0))
                    of_task[row["status"]] += row["count_all"]
    except FileNotFoundError:
        raise UserError(f"{path}: missing. {MEND}") from None
    except (OSError, pa.ArrowException, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({error}). {MEND}") from None
    return found
