"""Several finished studies of one design taken together: families and sizes of models as factors.

Each study's effects are those of its own `effects.json`. Their standard errors and degrees of freedom are read off
the interval and the detectable effect, which are one Student's t: nothing is estimated a second time.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from codestage.analyse.agreement import (
    DRAWS,
    PREDICTIONS,
    concordance,
    decisions_of,
    sign_agreement,
)
from codestage.analyse.effects import holm
from codestage.analyse.meta import regression, spread, together, welch
from codestage.analyse.profile import Profile, Profiles, lineage, point_scores
from codestage.analyse.records import Records, read_records
from codestage.analyse.scales import ALPHA, SCALE, levels, places, six
from codestage.errors import UserError

KEY = ("contrast", "stage", "cot", "metric", "level", "name")
LEFT_OUT = ("budget", "simple")
"""Families of contrasts that are not compared: they are asked within one study."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """One finished study: its records, its effects by key, and what its model is."""

    label: str
    records: Records
    effects: Mapping[tuple[str, ...], Row]

    @property
    def family(self) -> str | None:
        value = (self.records.study.get("model") or {}).get("family")
        return None if value is None else str(value)

    @property
    def parameters(self) -> int | None:
        value = (self.records.study.get("model") or {}).get("parameters")
        return int(value) if value else None


def compare(folders: Sequence[Path], *, draws: int = DRAWS, seed: int = 0) -> Row:
    """All that several studies say together; see docs/formats.md for the form.

    Raises:
        UserError: fewer than two studies, no effects in one, or no question or no task that all share.
    """
    if len(folders) < 2:
        raise UserError("compare needs two or more studies; name their folders")
    studies = _read(folders)
    tasks = _shared_tasks(studies)
    shared = [k for k in studies[0].effects if all(k in s.effects for s in studies[1:])]
    kept = [k for k in shared if _comparable(k, studies, tasks)]
    if not kept:
        asked = "; ".join(f"{s.label}: {', '.join(_questions(s)) or 'none'}" for s in studies)
        raise UserError(f"the studies share no question that was asked of the same tasks ({asked})")
    effects = [_effect(key, studies) for key in kept]
    _adjust(effects)
    return {
        "studies": [_told(s) for s in studies],
        "alpha": ALPHA,
        "tasks": tasks,
        "effects": effects,
        "orders": _orders(studies, tasks, draws, seed),
        "decisions": _decisions(studies, tasks, draws, seed),
        "notes": _notes(studies, tasks),
    }


def _read(folders: Sequence[Path]) -> list[Study]:
    read = [(folder, read_records(folder), _effects(folder)) for folder in folders]
    names = [_label(records.study, folder) for folder, records, _ in read]
    count = Counter(names)
    studies: list[Study] = []
    for i, (name, (folder, records, effects)) in enumerate(zip(names, read, strict=True), 1):
        label = f"{name} ({folder.name})" if count[name] > 1 else name
        if label in [s.label for s in studies]:
            label += f" {i}"
        studies.append(Study(label, records, effects))
    _refuse_copies(studies)
    return studies


def _refuse_copies(studies: Sequence[Study]) -> None:
    """One training under two names would count twice.

    Raises:
        UserError: two studies say the same to the last digit.
    """
    for a, b in combinations(studies, 2):
        found = [
            {k: (r["estimate"], r["low"], r["high"]) for k, r in s.effects.items() if r["estimate"]}
            for s in (a, b)
        ]
        if found[0] and found[0] == found[1]:
            raise UserError(
                f"{a.label} and {b.label} hold the same estimates to the last digit: one training under two names; leave "
                "one of them out, or give it a model or seeds of its own"
            )


def _label(study: Mapping[str, Any], folder: Path) -> str:
    """`llama 533k`; the study's name where the model is not told."""
    model = study.get("model") or {}
    parameters = model.get("parameters")
    if not model.get("family") or not parameters:
        return str(study.get("name") or folder.name)
    for letter, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if parameters >= size:
            return f"{model['family']} {parameters / size:.3g}{letter}"
    return f"{model['family']} {parameters}"


def _effects(folder: Path) -> dict[tuple[str, ...], Row]:
    path = folder / "results" / "effects.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["effects"]
        kept = [r for r in rows if r["family"] not in LEFT_OUT]
        return {tuple(str(r[k]) for k in KEY): r for r in kept}
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path}: no readable effects ({error}); `codestage report {folder}` makes them"
        raise UserError(message) from None


def _questions(study: Study) -> list[str]:
    return list(dict.fromkeys(key[0] for key in study.effects))[:6]


def _shared_tasks(studies: Sequence[Study]) -> list[str]:
    """Tasks that all studies asked, with as many items each."""
    told = [{str(t["name"]): t for t in s.records.study["tasks"]} for s in studies]
    both = [
        n for n in told[0] if all(n in t and t[n].get("items") == told[0][n].get("items") for t in told)
    ]
    if not both:
        asked = "; ".join(f"{s.label}: {', '.join(t)}" for s, t in zip(studies, told, strict=True))
        raise UserError(f"the studies share no task with the same number of items ({asked})")
    return both


def _comparable(key: tuple[str, ...], studies: Sequence[Study], tasks: Sequence[str]) -> bool:
    """Whether a level holds the same tasks in all studies."""
    _, _, _, _, level, name = key
    if level == "task":
        return name in tasks
    sets = []
    for study in studies:
        told = study.records.study["tasks"]
        sets.append({t["name"] for t in told if level == "overall" or t["domain"] == name})
    return all(s == sets[0] and s <= set(tasks) for s in sets)


def _effect(key: tuple[str, ...], studies: Sequence[Study]) -> Row:
    rows = [s.effects[key] for s in studies]
    first = rows[0]
    known = [i for i, r in enumerate(rows) if r["estimate"] is not None and spread(r) is not None]
    y = np.array([rows[i]["estimate"] for i in known], dtype=np.float64)
    widths = [spread(rows[i]) for i in known]
    se, df = (np.array([w[j] for w in widths if w is not None]) for j in (0, 1))
    told = {k: first[k] for k in (*KEY, "label", "family", "unit")}
    told["studies"] = [
        {"study": s.label} | {k: r[k] for k in ("estimate", "low", "high", "verdict")}
        for s, r in zip(studies, rows, strict=True)
    ]
    told["signs"] = sign_agreement([r["estimate"] for r in rows if r["estimate"] is not None])
    told["pooled"], told["differ"] = _pooled(y, se, df)
    told |= _factors([studies[i] for i in known], y, se, df)
    return told


def _pooled(y: np.ndarray, se: np.ndarray, df: np.ndarray) -> tuple[Row | None, Row | None]:
    if len(y) < 2:
        return None, None
    found = together(y, se, df, ALPHA)
    pooled = {"estimate": six(found.mean), "low": six(found.low), "high": six(found.high)}
    differ = {
        "q": six(found.q),
        "p": six(found.p),
        "i2": six(found.i2),
        "tau": six(found.tau),
        "tau_low": six(found.tau_low),
        "tau_high": six(found.tau_high),
    }
    return pooled, differ


def _factors(studies: Sequence[Study], y: np.ndarray, se: np.ndarray, df: np.ndarray) -> Row:
    """Size: change of the effect for each doubling of parameters. Family: whether families' means differ."""
    told: Row = {"size": None, "model_family": None}
    sizes, families = [s.parameters for s in studies], [s.family for s in studies]
    known = [float(n) for n in sizes if n is not None]
    if len(known) == len(y) >= 3 and len(set(known)) > 1:
        x = np.column_stack([np.ones(len(y)), np.log2(known)])
        found = regression(y, se, x)
        t = float(special.stdtrit(found.df, 1 - ALPHA / 2))
        slope, width = float(found.beta[1]), float(found.se[1])
        told["size"] = {
            "per_doubling": six(slope),
            "low": six(slope - t * width),
            "high": six(slope + t * width),
            "p": six(float(2 * special.stdtr(found.df, -abs(slope) / width))),
        }
    names = sorted({f for f in families if f is not None})
    if None not in families and len(names) > 1:
        means = [_family_mean(y, se, df, [f == n for f in families]) for n in names]
        told["model_family"] = {
            "families": [
                {"family": n, "studies": families.count(n), "mean": six(m[0])}
                for n, m in zip(names, means, strict=True)
            ],
            "p": six(welch(*(np.array([m[j] for m in means]) for j in range(3)))),
        }
    return told


def _family_mean(
    y: np.ndarray, se: np.ndarray, df: np.ndarray, chosen: Sequence[bool]
) -> tuple[float, float, float]:
    """(mean, standard error, degrees of freedom) of one family's effects over its studies."""
    at = np.flatnonzero(chosen)
    if len(at) == 1:
        return float(y[at[0]]), float(se[at[0]]), float(df[at[0]])
    found = regression(y[at], se[at], np.ones((len(at), 1)))
    return float(found.beta[0]), float(found.se[0]), float(found.df)


def _adjust(effects: Sequence[Row]) -> None:
    """Holm over the tests of difference between studies within a family of questions, level, metric and mode."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in effects:
        if row["differ"] is not None:
            key = tuple(str(row[k]) for k in ("family", "level", "metric", "cot", "stage"))
            groups.setdefault(key, []).append(row["differ"])
    for group in groups.values():
        for differ, p in zip(group, holm([d["p"] for d in group]), strict=True):
            differ["p_adjusted"] = six(p)


def _told(study: Study) -> Row:
    model = study.records.study.get("model") or {}
    return {
        "label": study.label,
        "name": study.records.study.get("name"),
        "family": study.family,
        "parameters": study.parameters,
        "hidden_size": model.get("hidden_size"),
        "layers": model.get("layers"),
        "seeds": len(study.records.seeds),
    }


def _notes(studies: Sequence[Study], tasks: Sequence[str]) -> list[str]:
    notes = []
    for study in studies:
        more = [str(t["name"]) for t in study.records.study["tasks"] if t["name"] not in tasks]
        if more:
            notes.append(
                f"{study.label}: not compared, for another study lacks them: {', '.join(more)}."
            )
    sizes = {s.parameters for s in studies}
    if None in sizes:
        notes.append("One study does not tell the size of its model: size is not analysed.")
    return notes


@dataclass(frozen=True)
class _Group:
    """What is put in order: the options of a stage, or all arms of the grid."""

    name: str
    members: tuple[str, ...]

    def points(self, records: Records) -> list[list[int]]:
        """Arms of each member."""
        place = {n: i for i, n in enumerate(records.arms)}
        grid = [a for a in records.study["arms"] if a["role"] == "grid"]
        if self.name == "arms":
            return [[place[m]] for m in self.members]
        return [[place[a["name"]] for a in grid if a["factors"][self.name] == m] for m in self.members]


def _groups(studies: Sequence[Study], fewest: int) -> list[_Group]:
    """Options of each stage that all studies have, and arms that all have; `fewest` or more."""
    found = []
    first = studies[0].records.study
    grids = [{a["name"] for a in s.records.study["arms"] if a["role"] == "grid"} for s in studies]
    arms = tuple(a["name"] for a in first["arms"] if all(a["name"] in g for g in grids))
    for stage in first["stages"]:
        tables = [s.records.study["options"].get(stage, ()) for s in studies]
        shared = tuple(o for o in first["options"][stage] if all(o in t for t in tables))
        if len(shared) >= fewest and set(shared) != set(arms):
            found.append(_Group(stage, shared))
    return [*found, _Group("arms", arms)] if len(arms) >= fewest else found


def _profiles(
    study: Study, group: _Group, cot: str, metric: str, tasks: Sequence[str], draws: int, seed: int
) -> Profiles:
    records = study.records
    last = records.study["stages"][-1]
    names = [t for t in records.tasks(last, cot, metric) if t in tasks]
    points = group.points(records)
    scores = {
        n: SCALE[metric] * point_scores(records.scores[last, cot, n, metric], points) for n in names
    }
    bound = None if metric == "bpb" else 100.0
    numbers = {n: i for i, n in enumerate(tasks)}
    return Profiles(
        scores,
        numbers,
        lineage=lineage(records.study["arms"], points),
        bound=bound,
        draws=draws,
        seed=seed,
    )


def _modes(studies: Sequence[Study]) -> list[str]:
    """Modes that all studies asked after their last stage."""
    found = []
    for study in studies:
        last = study.records.study["stages"][-1]
        found.append([c for m in SCALE for w, c in places(study.records, m) if w == last])
    return [c for c in dict.fromkeys(found[0]) if all(c in f for f in found)]


def _orders(studies: Sequence[Study], tasks: Sequence[str], draws: int, seed: int) -> list[Row]:
    """Agreement of the order of options, and of arms, over studies."""
    rows = []
    for group in _groups(studies, 3):
        for cot in _modes(studies):
            for metric in SCALE:
                # Other draws for each study: their runs have nothing to do with each other.
                by_study = [
                    _profiles(s, group, cot, metric, tasks, draws, seed + i)
                    for i, s in enumerate(studies)
                ]
                for level, name, found in _each(studies, by_study):
                    means = [
                        {"study": s.label, "against_first": [six(float(v)) for v in p.estimates]}
                        for s, p in zip(studies, found, strict=True)
                    ]
                    rows.append(
                        {
                            "of": group.name,
                            "members": list(group.members),
                            "cot": cot,
                            "metric": metric,
                            "level": level,
                            "name": name,
                            "studies": means,
                        }
                        | concordance(found)
                    )
    return rows


def _each(
    studies: Sequence[Study], by_study: Sequence[Profiles]
) -> list[tuple[str, str, list[Profile]]]:
    """(level, name, a profile of each study) where all have one."""
    shared = [t for t in by_study[0].tasks if all(t in p.tasks for p in by_study)]
    rows = []
    for level, name, members in levels(studies[0].records, shared):
        found = [p.of(members) for p in by_study]
        if all(p is not None for p in found):
            rows.append((level, name, [p for p in found if p is not None]))
    return rows


def _decisions(studies: Sequence[Study], tasks: Sequence[str], draws: int, seed: int) -> list[Row]:
    """How often each study picks the winner that the largest one picks."""
    sizes = [s.parameters or 0 for s in studies]
    top = int(np.argmax(sizes))
    if not all(sizes) or len(set(sizes)) == 1:
        return []
    rows = []
    for group in _groups(studies, 2):
        every = slice(0, len(group.members))
        for cot in _modes(studies):
            made = {
                (i, metric): _profiles(s, group, cot, metric, tasks, draws, seed + i)
                for i, s in enumerate(studies)
                for metric in SCALE
            }
            for metric, target in PREDICTIONS:
                for i, study in enumerate(studies):
                    if i == top:
                        continue
                    both = [made[i, metric], made[top, target]]
                    for level, name, (small, large) in _each([study, studies[top]], both):
                        told = {
                            "study": study.label,
                            "of": studies[top].label,
                            "deciding": group.name,
                            "cot": cot,
                            "metric": metric,
                            "target": target,
                            "level": level,
                            "name": name,
                        }
                        rows.append(told | decisions_of(small, large, every, every))
    return rows
