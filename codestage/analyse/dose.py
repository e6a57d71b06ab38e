"""Dose and response: how the score follows the share of code that a stage's options drew.

Options are taken at the dose that was drawn, not asked for. Three shapes are fitted to the differences from the
lowest dose by generalised least squares (Aitken 1936): flat, monotone (a slope; and the best monotone steps, Barlow
et al. 1972) and quadratic. The rule that picks one is stated in `_shape`; "flat" is an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize

from codestage.analyse.bootstrap import DRAWS
from codestage.analyse.effects import holm
from codestage.analyse.profile import Profile, Profiles, lineage, point_scores
from codestage.analyse.records import Records
from codestage.analyse.scales import ALPHA, MARGINS, SCALE, UNITS, levels, places, six

FEWEST = 3
"""Different doses from which a curve is fitted."""
ALIKE = 0.002
"""Shares that differ by no more are one dose: the last rows of a stage are cut."""
STEPS = 40
"""Pieces in which a fitted curve is told."""

Row = dict[str, Any]


def dose_response(records: Records, *, draws: int = DRAWS, seed: int = 0) -> list[Row]:
    """A row for each stage with three or more doses, mode, metric, level and name; see docs/formats.md.

    Measured after the last stage. Options are averaged over what the other stages did; a dose is left out where there is
    no seed that all its arms have.
    """
    rows: list[Row] = []
    last = records.study["stages"][-1]
    ran = records.ran(last)
    for stage in records.study["stages"]:
        doses = [d for d in stage_doses(records, stage) if ran[list(d.arms)].all(axis=0).any()]
        if len(doses) < FEWEST:
            continue
        for metric in MARGINS:
            for where, cot in places(records, metric):
                if where == last:
                    rows += _rows(records, stage, doses, cot, metric, draws, seed)
    return rows


@dataclass(frozen=True)
class Dose:
    """One dose: the share of code, and the options and arms that had it."""

    share: float
    options: tuple[str, ...]
    arms: tuple[int, ...]


def drawn_shares(records: Records, stage: str) -> dict[str, dict[str, float]]:
    """Option -> source -> share of the stage's tokens, as the grid's runs drew them."""
    drawn: dict[str, dict[str, int]] = {}
    for run in records.runs:
        if run.get("role") != "grid":
            continue
        for part in run["stages"]:
            if part["name"] == stage:
                into = drawn.setdefault(str(part["option"]), {})
                for source, tokens in (part["tokens_realised"] or {}).items():
                    into[source] = into.get(source, 0) + tokens
    total = {option: sum(by.values()) for option, by in drawn.items()}
    return {o: {s: n / total[o] for s, n in by.items()} for o, by in drawn.items() if total[o] > 0}


def stage_doses(records: Records, stage: str) -> list[Dose]:
    """The doses of a stage's plain mixtures, lowest first; [] where nothing foreign was drawn or known.

    The dose is the share of tokens from domains that the stage's first option did not draw on.
    """
    study = records.study
    shares = drawn_shares(records, stage)
    options = [o for o in study["options"][stage] if study["schedules"][stage].get(o) == "mix"]
    base = study["options"][stage][0]
    if base not in shares:
        return []
    domain = study.get("domains") or {}
    home = {domain.get(s, s) for s, share in shares[base].items() if share > 0}
    found: list[tuple[float, str]] = []
    for option in options:
        if option in shares:
            foreign = sum(x for s, x in shares[option].items() if domain.get(s, s) not in home)
            found.append((foreign, option))
    groups: list[list[tuple[float, str]]] = []
    for share, option in sorted(found, key=lambda pair: pair[0]):
        if groups and share - groups[-1][0][0] <= ALIKE:
            groups[-1].append((share, option))
        else:
            groups.append([(share, option)])
    arms = [a for a in study["arms"] if a["role"] == "grid"]
    place = {name: i for i, name in enumerate(records.arms)}
    return [
        Dose(
            float(np.mean([share for share, _ in group])),
            tuple(o for _, o in group),
            tuple(place[a["name"]] for a in arms if a["factors"][stage] in {o for _, o in group}),
        )
        for group in groups
    ]


def _rows(
    records: Records, stage: str, doses: Sequence[Dose], cot: str, metric: str, draws: int, seed: int
) -> list[Row]:
    last = records.study["stages"][-1]
    names = records.tasks(last, cot, metric)
    numbers = {str(t["name"]): i for i, t in enumerate(records.study["tasks"])}
    scores = {
        n: SCALE[metric] * point_scores(records.scores[last, cot, n, metric], [d.arms for d in doses])
        for n in names
    }
    bound = None if metric == "bpb" else 100.0
    shared_by = lineage(records.study["arms"], [d.arms for d in doses])
    profiles = Profiles(scores, numbers, lineage=shared_by, bound=bound, draws=draws, seed=seed)
    found = []
    for level, name, members in levels(records, names):
        profile = profiles.of(members)
        if profile is not None:
            found.append((level, name, profile, fit(np.array([d.share for d in doses]), profile)))
    rows = []
    for group in ("overall", "domain", "task"):
        here = [f for f in found if f[0] == group]
        for (level, name, profile, fitted), p in zip(here, holm([f[3].p for f in here]), strict=True):
            row = {
                "stage": stage,
                "measured": last,
                "cot": cot,
                "metric": metric,
                "unit": UNITS[metric],
                "level": level,
                "name": name,
            }
            rows.append(row | _told(doses, profile, fitted, p, MARGINS[metric]))
    return rows


@dataclass(frozen=True)
class Fit:
    """Slope and bend of y = slope x + bend x² with x the dose above the lowest, fitted to a profile."""

    x: np.ndarray
    """`[point]` doses above the lowest."""
    linear: float
    """Slope of the straight line alone, per unit of dose."""
    linear_se: float
    beta: np.ndarray
    """`[2]`: slope and bend of the quadratic."""
    covariance: np.ndarray
    """`[2, 2]` of beta."""
    p: float
    """Of no dependence: the quadratic against the flat line, F with 2 terms."""
    p_bend: float
    p_misfit: float | None
    """Of the quadratic against the points as they are; None with three doses, which it meets exactly."""
    weights: np.ndarray
    """`[2, point - 1]`: beta from differences."""


def fit(doses: np.ndarray, profile: Profile) -> Fit:
    """Generalised least squares of differences from the lowest dose; `doses` `[point]` ascending, 3 or more."""
    x = doses - doses[0]
    y = profile.estimates[1:]
    v = profile.covariance
    floor = 1e-9 * float(np.trace(v)) / len(v) or 1e-18
    inverse = np.linalg.inv(v + floor * np.eye(len(v)))
    line, curve = x[1:, None], np.column_stack([x[1:], x[1:] ** 2])
    own = float(1 / (line.T @ inverse @ line)[0, 0])
    slope = own * float((line.T @ inverse @ y)[0])
    covariance = np.linalg.inv(curve.T @ inverse @ curve)
    weights = covariance @ curve.T @ inverse
    beta = weights @ y
    left = [_distance(r, inverse) for r in (y, y - slope * x[1:], y - curve @ beta)]
    more = len(y) - 2
    return Fit(
        x,
        slope,
        own**0.5,
        beta,
        covariance,
        profile.p_f((left[0] - left[2]) / 2, 2),
        profile.p_f(left[1] - left[2], 1),
        profile.p_f(left[2] / more, more) if more else None,
        weights,
    )


def _distance(residual: np.ndarray, inverse: np.ndarray) -> float:
    return float(residual @ inverse @ residual)


def _shape(found: Fit, p_adjusted: float) -> str:
    """The rule, in this order: flat, peak or trough, irregular, rising or falling.

    Flat unless the dependence is shown after Holm; then bent if the bend is shown and the turn lies between the doses
    tried; irregular if the points are shown to leave the quadratic; else the sign of the slope.
    """
    if not p_adjusted < ALPHA:
        return "flat"
    turn = -found.beta[0] / (2 * found.beta[1]) if found.beta[1] else np.inf
    if found.p_bend < ALPHA and 0 < turn < found.x[-1]:
        return "peak" if found.beta[1] < 0 else "trough"
    if found.p_misfit is not None and found.p_misfit < ALPHA:
        return "irregular"
    return "rising" if found.linear > 0 else "falling"


def highest(beta: np.ndarray, end: float) -> np.ndarray:
    """Where slope x + bend x² is largest on [0, end]: `[draw]` from `[2, draw]`."""
    slope, bend = beta
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = np.clip(-slope / (2 * bend), 0, end)
    at_end = slope * end + bend * end**2 > 0
    return np.where(bend < 0, turn, np.where(at_end, end, 0.0))


def monotone(y: np.ndarray, rising: bool) -> np.ndarray:
    """The nearest monotone steps `[point]` by least squares (Barlow et al. 1972)."""
    return np.asarray(optimize.isotonic_regression(y, increasing=rising).x)


def _best(shape: str, found: Fit, profile: Profile) -> dict[str, Any] | None:
    """The best dose above the lowest, its interval from joint draws through the fitted curve, and its gain."""
    if shape == "flat":
        return None
    end = float(found.x[-1])
    if shape == "irregular":
        top = int(profile.estimates.argmax())
        where = found.x[profile.draws.argmax(axis=0)]
        se = float(profile.covariance[top - 1, top - 1]) ** 0.5 if top else 0.0
        at, gain = float(found.x[top]), float(profile.estimates[top])
    else:
        where = highest(found.weights @ profile.draws[1:], end)
        ends = {"rising": end, "falling": 0.0}
        at = ends[shape] if shape in ends else float(highest(found.beta[:, None], end)[0])
        values, errors = _curve(found, np.array([at]))
        gain, se = float(values[0]), float(errors[0])
    low, high = np.quantile(where, [ALPHA / 2, 1 - ALPHA / 2])
    half = profile.t(1 - ALPHA / 2) * se
    return {
        "dose": at,
        "low": min(float(low), at),
        "high": max(float(high), at),
        "gain": gain,
        "gain_low": gain - half,
        "gain_high": gain + half,
    }


def _curve(found: Fit, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The quadratic and its standard error at x `[n]`."""
    basis = np.column_stack([x, x**2])
    return basis @ found.beta, np.sqrt(np.einsum("ni,ij,nj->n", basis, found.covariance, basis))


def _flatness(profile: Profile, margin: float) -> str:
    """Whether all doses are shown to lie within the margin of each other (two one-sided tests of every pair)."""
    n = len(profile.estimates)
    v = np.zeros((n, n))
    v[1:, 1:] = profile.covariance
    spread = np.sqrt(np.maximum(0.0, np.diag(v)[:, None] + np.diag(v)[None] - 2 * v))
    apart = np.abs(profile.estimates[:, None] - profile.estimates[None])
    reach = (apart + profile.t(1 - ALPHA) * spread)[~np.eye(n, dtype=bool)]
    return "shown" if float(reach.max()) < margin else "not resolved"


def _told(doses: Sequence[Dose], profile: Profile, found: Fit, p_adjusted: float, margin: float) -> Row:
    lowest = doses[0].share
    shape = _shape(found, p_adjusted)
    t = profile.t(1 - ALPHA / 2)
    se = np.append(0.0, np.sqrt(np.diag(profile.covariance)))
    steps = monotone(profile.estimates, rising=found.linear > 0)
    x = np.linspace(0, found.x[-1], STEPS + 1)
    curve, curve_se = _curve(found, x)
    best = _best(shape, found, profile)
    if best is not None:
        best = {k: six(v + lowest if k in ("dose", "low", "high") else v) for k, v in best.items()}
    points = [
        {
            "dose": six(dose.share),
            "options": list(dose.options),
            "estimate": six(y),
            "low": six(y - t * s),
            "high": six(y + t * s),
            "monotone": six(step),
        }
        for dose, y, s, step in zip(doses, profile.estimates, se, steps, strict=True)
    ]
    half = t * found.linear_se
    return {
        "points": points,
        "slope": {
            "estimate": six(found.linear / 10),
            "low": six((found.linear - half) / 10),
            "high": six((found.linear + half) / 10),
        },
        "quadratic": {"slope": six(float(found.beta[0])), "bend": six(float(found.beta[1]))},
        "curve": {
            "dose": [six(v + lowest) for v in x],
            "estimate": [six(v) for v in curve],
            "low": [six(v) for v in curve - t * curve_se],
            "high": [six(v) for v in curve + t * curve_se],
        },
        "p": six(found.p),
        "p_adjusted": six(p_adjusted),
        "p_bend": six(found.p_bend),
        "p_misfit": six(found.p_misfit),
        "shape": shape,
        "flat": _flatness(profile, margin) if shape == "flat" else None,
        "best": best,
        "seeds": profile.seeds,
        "n_items": profile.items,
    }
