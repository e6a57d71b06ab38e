"""What published accuracies can bear: which of their differences exceed sampling error."""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from scipy import stats

from codestage.analyse.effects import holm
from codestage.errors import UserError

NEEDED = ("task", "value")
SAME = ("paper", "table", "stage", "size", "task", "metric")
"""Columns that two numbers must agree in to be compared (size only where both arms have it)."""
MAX_N = 20_000


@dataclass(frozen=True)
class Number:
    """One published accuracy, in percent."""

    line: int
    row: dict[str, str]
    value: float
    digits: int
    n: int | None

    @property
    def name(self) -> str:
        parts = [self.row.get(c, "") for c in ("arm", "model", "size")]
        return " ".join(p for p in parts if p)


def audit(path: Path, *, alpha: float = 0.05) -> dict[str, Any]:
    """Every difference within a table row, against what sampling of items alone would give.

    Needs columns task and value; metric (only acc is tested), n, and whatever of paper, table, stage,
    arm, model, size says what is compared. Tests are unpaired (published tables hold no items) and
    corrected by Holm over the whole file. Where n is unknown, `sizes` says which n a task's printed
    digits allow.

    Raises:
        UserError: naming file, line and value of what cannot be read.
    """
    numbers = list(_read(path))
    tested = [n for n in numbers if n.row.get("metric", "acc") == "acc"]
    rows = [r for pair in _pairs(tested) for r in [_compare(*pair)]]
    known = [r for r in rows if r["p"] is not None]
    for row, p in zip(known, holm([r["p"] for r in known]), strict=True):
        row["p_adjusted"] = round(p, 5)
        row["larger_than_sampling_error"] = p < alpha
    return {
        "file": path.name,
        "numbers": len(numbers),
        "differences": rows,
        "larger_than_sampling_error": sum(bool(r["larger_than_sampling_error"]) for r in rows),
        "without_n": len(rows) - len(known),
        "not_tested": len(numbers) - len(tested),
        "sizes": _sizes(tested),
    }


def _read(path: Path) -> Iterator[Number]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [c for c in NEEDED if c not in (reader.fieldnames or [])]
            if missing:
                has = ", ".join(reader.fieldnames or []) or "none"
                raise UserError(f"{path}:1: no column {missing[0]!r} (columns: {has}); add it")
            for row in reader:
                yield _number(path, reader.line_num, row)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the name") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a UTF-8 CSV file ({error})") from None


def _number(path: Path, line: int, row: dict[str, str]) -> Number:
    text = (row["value"] or "").strip()
    count = (row.get("n") or "").strip()
    try:
        value = float(text)
        if row.get("metric", "acc") == "acc" and not 0 <= value <= 100:
            raise ValueError
    except ValueError:
        message = f"{path}:{line}: value {text!r} is no percentage; write one from 0 to 100"
        raise UserError(message) from None
    try:
        n = int(count) if count else None
        if n is not None and n < 1:
            raise ValueError
    except ValueError:
        message = f"{path}:{line}: n {count!r} is no number of items; write one or leave it empty"
        raise UserError(message) from None
    return Number(line, row, value, len(text.partition(".")[2]), n)


def _pairs(numbers: Sequence[Number]) -> Iterator[tuple[Number, Number]]:
    """Numbers of one table and task, of one size where sizes are given."""
    groups: dict[tuple[str, ...], list[Number]] = {}
    for number in numbers:
        key = tuple(number.row.get(c, "") for c in SAME)
        groups.setdefault(key, []).append(number)
    for group in groups.values():
        yield from combinations(group, 2)


def _compare(a: Number, b: Number) -> dict[str, Any]:
    """b less a: in points, items, standard errors, and the n at which it could be told."""
    difference = b.value - a.value
    n = a.n if a.n == b.n else None
    row: dict[str, Any] = {
        "table": a.row.get("table"),
        "stage": a.row.get("stage"),
        "task": a.row["task"],
        "from": a.name,
        "to": b.name,
        "points": round(difference, 4),
        "n": n,
        "items": None,
        "low": None,
        "high": None,
        "z": None,
        "p": None,
        "p_adjusted": None,
        "n_needed": _needed(a.value, b.value),
        "larger_than_sampling_error": None,
    }
    if n is None:
        return row
    p1, p2 = a.value / 100, b.value / 100
    se = math.sqrt((p1 * (1 - p1) + p2 * (1 - p2)) / n)
    z = (p2 - p1) / se if se > 0 else 0.0
    row |= {
        "items": round(difference * n / 100),
        "low": round(difference - 196 * se, 2),
        "high": round(difference + 196 * se, 2),
        "z": round(z, 2),
        "p": float(2 * stats.norm.sf(abs(z))),
    }
    return row


def _needed(a: float, b: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Items for each arm at which the difference would be found (two proportions, unpaired)."""
    if a == b:
        return None
    p1, p2 = a / 100, b / 100
    z = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    return math.ceil(z**2 * (p1 * (1 - p1) + p2 * (1 - p2)) / (p1 - p2) ** 2)


def _sizes(numbers: Sequence[Number]) -> list[dict[str, Any]]:
    """For each task: the three smallest n that can give every value printed for it."""
    tasks: dict[str, list[Number]] = {}
    for number in numbers:
        tasks.setdefault(number.row["task"], []).append(number)
    return [
        {"task": task, "values": len(group), "smallest_n_allowed": allowed_sizes(group)[:3]}
        for task, group in tasks.items()
    ]


def allowed_sizes(numbers: Sequence[Number]) -> list[int]:
    """Every n up to 20,000 of which each value is a whole number of items, as printed.

    A value may be rounded or cut off in its last digit: tables do both.
    """
    return [n for n in range(1, MAX_N + 1) if all(_fits(x, n) for x in numbers)]


def _fits(number: Number, n: int) -> bool:
    step = 10.0**-number.digits
    k = round(number.value * n / 100)
    return any(-step / 2 - 1e-9 <= 100 * i / n - number.value < step - 1e-9 for i in (k - 1, k, k + 1))
