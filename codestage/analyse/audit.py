"""What published accuracies can bear: which of their differences exceed sampling error."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, stats

from codestage.analyse.effects import holm
from codestage.errors import UserError

PUBLISHED = Path(__file__).parent / "published"
"""Tables that come with the package; their README says where each is from and what in it is inferred."""
NEEDED = ("task", "value")
SAME = ("paper", "table", "stage", "size", "task", "metric")
"""Columns that two numbers must agree in to be compared (size only where both arms have it)."""
SHARES = ("acc", "accuracy", "EM", "exact_match")
"""Metrics that are shares of items."""
ARMS = ("paper", "table", "stage", "from", "to")
"""What tasks must agree in to be combined."""
MAX_N = 20_000
"""Largest number of items that is thought plausible where none is given."""
NOT_TESTED = "is no share of items, so that the number of items gives it no standard error"


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

    @property
    def metric(self) -> str:
        return self.row.get("metric") or "acc"

    @property
    def n_from(self) -> str:
        """Where n is from: as the table says, or given by it without a word."""
        return self.row.get("n_from") or "given"

    @property
    def test_set(self) -> tuple[str, str]:
        """Numbers that should be of the same items."""
        return self.row.get("paper", ""), self.row["task"]


def published_names() -> list[str]:
    """Names of the tables that come with the package."""
    return sorted(path.stem for path in PUBLISHED.glob("*.csv"))


def find(table: str | Path) -> Path:
    """The file meant by `table`: a path, or the name of a table that comes with the package.

    Raises:
        UserError: if it is neither.
    """
    path = Path(table)
    if path.exists() or path.suffix:
        return path
    if str(table) in published_names():
        return PUBLISHED / f"{table}.csv"
    known = ", ".join(published_names())
    raise UserError(
        f"{table}: no such file, and no table that comes with codestage ({known}); check the name"
    )


def audit(table: str | Path, *, alpha: float = 0.05) -> dict[str, Any]:
    """Every difference within a table row, against what sampling of items alone would give.

    Needs columns task and value; metric (`SHARES` are tested), n with n_from, and whatever of paper, table, stage,
    arm, model, size says what is compared. Tests are unpaired (published tables hold no items) and corrected over the
    whole file: by Holm for single claims, by Benjamini and Hochberg (1995) for how many of those found are false.
    Where n is not known nothing is claimed: a difference then has the range of n that the printed digits of its
    task allow, up to 20,000, and p at both ends. `combined` adds up the tasks of a table (Stouffer 1949).

    Raises:
        UserError: naming file, line and value of what cannot be read.
    """
    path = find(table)
    numbers = list(_read(path))
    tested = [n for n in numbers if n.metric in SHARES]
    sizes = {key: allowed_sizes(group) for key, group in _by_test_set(tested).items()}
    rows = [_compare(a, b, sizes[a.test_set]) for a, b in _pairs(tested)]
    known = [r for r in rows if r["p"] is not None]
    ps = [r["p"] for r in known]
    false = stats.false_discovery_control(ps) if ps else []
    for row, p, q in zip(known, holm(ps), false, strict=True):
        row |= {"p_adjusted": round(p, 5), "p_false_discovery": round(float(q), 5)}
        row["larger_than_sampling_error"] = p < alpha
    larger = [r for r in known if r["larger_than_sampling_error"]]
    others = {(n.row["task"], n.metric): n for n in numbers if n.metric not in SHARES}
    return {
        "file": path.name,
        "numbers": len(numbers),
        "differences": rows,
        "larger_than_sampling_error": len(larger),
        "larger_by_n_from": {key: sum(r["n_from"] == key for r in larger) for key in _origins(known)},
        "larger_by_false_discovery": sum(r["p_false_discovery"] < alpha for r in known),
        "without_n": len(rows) - len(known),
        "combined": _combined(rows),
        "not_tested": [{"task": t, "metric": m, "why": f"{m} {NOT_TESTED}"} for t, m in others],
        "sizes": [
            {"task": task, "values": len(group), "smallest_n_allowed": sizes[paper, task][:3]}
            for (paper, task), group in _by_test_set(tested).items()
        ],
    }


def _origins(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(r["n_from"]) for r in rows))


def _read(path: Path) -> Iterator[Number]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
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
    if None in row or None in row.values():
        raise UserError(
            f"{path}:{line}: not as many cells as the first line has columns; mend that line"
        )
    text = row["value"].strip()
    count = row.get("n", "").strip()
    try:
        value = float(text)
        if (row.get("metric") or "acc") in SHARES and not 0 <= value <= 100:
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


def _by_test_set(numbers: Sequence[Number]) -> dict[tuple[str, str], list[Number]]:
    groups: dict[tuple[str, str], list[Number]] = {}
    for number in numbers:
        groups.setdefault(number.test_set, []).append(number)
    return groups


def _pairs(numbers: Sequence[Number]) -> Iterator[tuple[Number, Number]]:
    """Numbers of one table and task, of one size where sizes are given."""
    groups: dict[tuple[str, ...], list[Number]] = {}
    for number in numbers:
        key = tuple(number.row.get(c, "") for c in SAME)
        groups.setdefault(key, []).append(number)
    for group in groups.values():
        yield from combinations(group, 2)


def _compare(a: Number, b: Number, allowed: Sequence[int]) -> dict[str, Any]:
    """b less a: in points, items, standard errors, and the n at which it could be told.

    `n` is the smaller one where the two differ. `allowed` are the n that the printed digits allow.
    """
    difference = b.value - a.value
    row: dict[str, Any] = {
        **{c: a.row.get(c) or None for c in ("paper", "table", "stage", "size")},
        "task": a.row["task"],
        "from": a.name,
        "to": b.name,
        "points": round(difference, 4),
        "n": None,
        "n_from": "digits" if allowed else None,
        "items": None,
        "low": None,
        "high": None,
        "z": None,
        "p": None,
        "p_adjusted": None,
        "p_false_discovery": None,
        "n_needed": _needed(a.value, b.value),
        "n_allowed": None,
        "p_at_smallest_n": None,
        "p_at_largest_n": None,
        "larger_than_sampling_error": None,
    }
    if a.n is None or b.n is None:
        if allowed:
            ends = (allowed[0], allowed[-1])
            row["n_allowed"] = list(ends)
            row["p_at_smallest_n"], row["p_at_largest_n"] = (_p(_z(a, b, n, n)) for n in ends)
        return row
    z = _z(a, b, a.n, b.n)
    low, high = _interval(a, b, a.n, b.n)
    return row | {
        "n": min(a.n, b.n),
        "n_from": a.n_from if a.n_from == b.n_from else f"{a.n_from}, {b.n_from}",
        "items": round(difference * a.n / 100) if a.n == b.n else None,
        "low": round(100 * low, 2),
        "high": round(100 * high, 2),
        "z": round(z, 2),
        "p": _p(z),
    }


REACH = float(stats.norm.isf(0.025))
LEAST_P = 1e-300
"""What a p is taken for that is too small to be written."""


def _z(a: Number, b: Number, n_a: int, n_b: int) -> float:
    """The score test of two unpaired shares: their difference by the error that it has if they are equal."""
    return -_score(0.0, a.value / 100, b.value / 100, n_a, n_b)


def _interval(a: Number, b: Number, n_a: int, n_b: int) -> tuple[float, float]:
    """Differences of the shares that the score test does not reject at 5 % (Mee 1984), so that interval and p agree.

    Wald's interval is far too narrow where items are few or shares near 0 or 1.
    """
    p, q = a.value / 100, b.value / 100

    def end(side: float) -> float:
        if math.isclose(q - p, side):
            return side
        return float(optimize.brentq(lambda d: _score(d, p, q, n_a, n_b) - side * REACH, q - p, side))

    return end(-1.0), end(1.0)


def _score(difference: float, p: float, q: float, n_a: int, n_b: int) -> float:
    """How many standard errors `difference` lies above q - p, by the likeliest shares with that difference.

    They are the root of a cubic: Farrington and Manning 1990, Statistics in Medicine 9, 1447.
    """
    if difference == q - p:
        return 0.0
    d, ratio = difference, n_a / n_b
    b = -(1 + ratio + q + ratio * p + d * (ratio + 2))
    c = d * d + d * (2 * q + ratio + 1) + q + ratio * p
    e = -q * d * (1 + d)
    a = 1 + ratio
    v = b**3 / (3 * a) ** 3 - b * c / (6 * a * a) + e / (2 * a)
    u = math.copysign(math.sqrt(max(b * b / (3 * a) ** 2 - c / (3 * a), 0.0)), v)
    turn = 0.0 if u == 0 else (math.pi + math.acos(min(max(v / u**3, -1.0), 1.0))) / 3
    q0 = min(max(2 * u * math.cos(turn) - b / (3 * a), 0.0), 1.0)
    p0 = min(max(q0 - d, 0.0), 1.0)
    se = math.sqrt(p0 * (1 - p0) / n_a + q0 * (1 - q0) / n_b)
    return (d - (q - p)) / se if se > 0 else math.copysign(math.inf, d - (q - p))


def _p(z: float) -> float:
    return float(2 * stats.norm.sf(abs(z)))


def _needed(a: float, b: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Items for each arm at which the score test would find the difference (Fleiss 1981, chapter 3)."""
    if a == b:
        return None
    p, q = a / 100, b / 100
    equal, apart = (p + q) * (2 - p - q) / 2, p * (1 - p) + q * (1 - q)
    z = stats.norm.isf(alpha / 2) * math.sqrt(equal) + stats.norm.isf(1 - power) * math.sqrt(apart)
    return math.ceil(z**2 / (p - q) ** 2)


def _combined(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All tasks of a table on which the same two arms are compared, as one z (Stouffer's method).

    Tasks count alike. Only those with a known n are in it; `without_n` counts the others.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[c] for c in ARMS), []).append(row)
    found = []
    for key, group in groups.items():
        tails = [(max(r["p"], LEAST_P), r["points"]) for r in group if r["p"] is not None]
        zs = [stats.norm.isf(p / 2) * np.sign(points) for p, points in tails]
        if len(zs) < 2:
            continue
        z = float(sum(zs)) / math.sqrt(len(zs))
        inferred = sum(r["n_from"] not in ("stated", "given") for r in group if r["p"] is not None)
        found.append(
            dict(zip(ARMS, key, strict=True))
            | {"tasks": len(zs), "without_n": len(group) - len(zs), "with_inferred_n": inferred}
            | {"z": round(z, 2), "p": _p(z)}
        )
    for row, p in zip(found, holm([r["p"] for r in found]), strict=True):
        row["p_adjusted"] = round(p, 5)
    return found


def allowed_sizes(numbers: Sequence[Number]) -> list[int]:
    """Every n up to 20,000 of which each value is a whole number of items, as printed.

    A value may be rounded or cut off in its last digit: tables do both.
    """
    sizes = np.arange(1, MAX_N + 1)
    fits = np.ones(MAX_N, dtype=bool)
    for number in numbers:
        step = 10.0**-number.digits
        near = np.round(number.value * sizes / 100)[:, None] + np.array([-1, 0, 1])
        off = 100 * near / sizes[:, None] - number.value
        fits &= ((-step / 2 - 1e-9 <= off) & (off < step - 1e-9)).any(axis=1)
    return [int(n) for n in sizes[fits]]


def table_rows(answer: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """The differences as people read them; n that is not stated is marked."""
    columns = ["task", "table", "from", "to", "points", "n", "items", "z", "p", "Holm", "BH", "n needed"]
    rows = []
    for r in answer["differences"]:
        n = f"{r['n']:,}" if r["n"] else "?"
        if r["n"] and r["n_from"] not in ("stated", "given"):
            n += f" ({r['n_from']})"
        p = _short(r["p"])
        if r["n_allowed"]:
            n = f"{r['n_allowed'][0]:,} to {r['n_allowed'][1]:,}?"
            p = f"{_short(r['p_at_smallest_n'])} to {_short(r['p_at_largest_n'])}"
        rows.append(
            [
                *(r[c] for c in ("task", "table", "from", "to", "points")),
                n,
                r["items"],
                r["z"],
                p,
                _short(r["p_adjusted"]),
                _short(r["p_false_discovery"]),
                r["n_needed"],
            ]
        )
    return columns, rows


def sentences(answer: Mapping[str, Any]) -> list[str]:
    """What the audit finds, in words."""
    tested = len(answer["differences"]) - answer["without_n"]
    split = ", ".join(f"{count} with n {key}" for key, count in answer["larger_by_n_from"].items())
    found = [
        f"{answer['larger_than_sampling_error']} of {tested} differences with a known n are larger than sampling error "
        f"(Holm, 5 %): {split or 'none'}; {answer['larger_by_false_discovery']} by Benjamini and Hochberg",
    ]
    if answer["without_n"]:
        found.append(
            f"{answer['without_n']} have no n: nothing is claimed of them; p is given for the smallest and the largest n "
            "that the printed digits allow"
        )
    for c in answer["combined"]:
        found.append(
            f"all tasks, {c['from']} to {c['to']} (table {c['table']}): z {c['z']:+.2f}, p {_short(c['p'])}, adjusted "
            f"{_short(c['p_adjusted'])}, {c['tasks']} tasks, n inferred for {c['with_inferred_n']}, without n {c['without_n']}"
        )
    found += [f"not tested: {row['task']}: {row['why']}" for row in answer["not_tested"]]
    return found


def _short(p: float | None) -> str:
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
