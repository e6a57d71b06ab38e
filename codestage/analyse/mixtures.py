"""The best mixture by the laws of `laws`, how sure that is, and which arm to train next.

Every mixture considered lies between those tried (a convex combination of a stage's options): a law says nothing
about what lies outside. Uncertainty is that of joint draws over seeds and items, each with random weights of the
arms, so that it holds both what the scores leave open and what the law owes to single arms.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import comb, gcd
from typing import Any

import numpy as np

from codestage.analyse.dose import drawn_shares
from codestage.analyse.laws import LAWS, leave_out
from codestage.analyse.profile import Profile, Profiles, lineage, point_scores
from codestage.analyse.records import Records
from codestage.analyse.scales import ALPHA, MARGINS, SCALE, levels, six

DRAWS = 256
CANDIDATES = 3000
"""Mixtures considered, at the most about."""
WORK, FEWEST_DRAWS = 100_000, 256
"""Draws times mixtures, at the most about; and draws that an interval needs at least."""
SPARE = 2
"""Mixtures needed beyond the parameters of the log-linear law."""
NEW = 0.05
"""The next arm differs from every one tried by this much in some share."""
SMALL = 0.05
"""Expected improvements below this part of the margin are as good as none."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Mixtures:
    """The distinct mixtures of the grid."""

    stages: tuple[str, ...]
    """Stages whose mixture varies."""
    sources: tuple[tuple[str, ...], ...]
    """Of each of these stages."""
    options: tuple[np.ndarray, ...]
    """`[option, source]` shares tried at each of these stages."""
    shares: np.ndarray
    """`[mixture, source of any stage]`"""
    arms: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Features:
    """What a law sees of a mixture: shares of sources, or of domains, that vary independently."""

    kind: str
    names: tuple[tuple[str, str], ...]
    """(stage, source or domain)"""
    matrix: np.ndarray
    """`[source of any stage, feature]`"""


def mixture_laws(records: Records, *, draws: int = DRAWS, seed: int = 0) -> Row | None:
    """Laws, the best mixture and the next arm for each level and name; see docs/formats.md.

    None where fewer than three mixtures were tried; with too few of them for a law, `refused` says why.
    Costs are bits per byte where there are any, else the share of wrong answers; asked without chain of thought.
    """
    tried = mixtures(records)
    if tried is None or len(tried.arms) < 3:
        return None
    while draws > FEWEST_DRAWS and draws * len(tried.arms) > WORK:
        draws //= 2  # every draw fits every law with each mixture left out
    told = {
        "stages": list(tried.stages),
        "mixtures": [_told_mixture(records, tried, i) for i in range(len(tried.arms))],
        "rows": [],
        "features": [],
        "refused": None,
    }
    features, why = _features(records, tried)
    if features is None:
        return told | {"refused": why}
    last = records.study["stages"][-1]
    metric = next((m for m in ("bpb", "acc") if records.tasks(last, "off", m)), None)
    if metric is None:
        return told | {"refused": "no task was asked without a chain of thought"}
    names = records.tasks(last, "off", metric)
    numbers = {str(t["name"]): i for i, t in enumerate(records.study["tasks"])}
    scores = {n: point_scores(records.scores[last, "off", n, metric], tried.arms) for n in names}
    costs = scores if metric == "bpb" else {n: 1 - s for n, s in scores.items()}
    bound = None if metric == "bpb" else 1.0
    shared_by = lineage(records.study["arms"], tried.arms)
    profiles = Profiles(costs, numbers, lineage=shared_by, bound=bound, draws=draws, seed=seed)
    search = _Search(tried, features, _candidates(tried), draws, seed)
    rows = []
    for level, name, members in levels(records, names):
        profile = profiles.of(members)
        if profile is not None:
            rows.append({"level": level, "name": name} | search.row(profile, metric))
    told["features"] = [{"stage": s, "name": n, "kind": features.kind} for s, n in features.names]
    return told | {"rows": rows, "metric": metric, "measured": last}


def mixtures(records: Records) -> Mixtures | None:
    """The distinct mixtures of arms that ran and whose options are all plain; None where none varies or doses are unknown."""
    study = records.study
    drawn = {stage: drawn_shares(records, stage) for stage in study["stages"]}
    place = {name: i for i, name in enumerate(records.arms)}
    ran = np.asarray(records.ran(study["stages"][-1]).any(axis=1))
    arms = [
        a
        for a in study["arms"]
        if a["role"] == "grid"
        and ran[place[a["name"]]]
        and all(study["schedules"][s].get(o) == "mix" for s, o in a["factors"].items())
        and all(o in drawn[s] for s, o in a["factors"].items())
    ]
    stages, sources, options = [], [], []
    for stage in study["stages"]:
        used = dict.fromkeys(a["factors"][stage] for a in arms)
        names = tuple(dict.fromkeys(s for o in used for s in drawn[stage][o]))
        table = np.array([[drawn[stage][o].get(s, 0.0) for s in names] for o in used])
        if len(table) > 1 and np.ptp(table, axis=0).max() > 0:
            stages.append(stage)
            sources.append(names)
            options.append(table)
    if not stages:
        return None
    groups: dict[tuple[float, ...], list[int]] = {}
    for arm in arms:
        row = [
            drawn[stage][arm["factors"][stage]].get(s, 0.0)
            for stage, names in zip(stages, sources, strict=True)
            for s in names
        ]
        groups.setdefault(tuple(round(x, 3) for x in row), []).append(place[arm["name"]])
    return Mixtures(
        tuple(stages),
        tuple(sources),
        tuple(options),
        np.array(list(groups)),
        tuple(tuple(g) for g in groups.values()),
    )


def _features(records: Records, tried: Mixtures) -> tuple[Features | None, str | None]:
    """Sources, or domains where the mixtures are too few for sources; None with the reason where for these too."""
    why = None
    for kind in ("source", "domain"):
        found = _independent(records, tried, kind)
        needed = len(found.names) + 2 + SPARE
        if found.names and len(tried.arms) >= needed:
            return found, None
        why = (
            f"{len(tried.arms)} distinct mixtures; a law of {len(found.names)} shares by {kind} has "
            f"{len(found.names) + 2} parameters and needs {needed} mixtures"
        )
    return None, why


def _independent(records: Records, tried: Mixtures, kind: str) -> Features:
    """Shares that vary and do not follow from the others; those of the base are left out first."""
    domain = records.study.get("domains") or {}
    columns: dict[tuple[str, str], np.ndarray] = {}
    at = 0
    for stage, names in zip(tried.stages, tried.sources, strict=True):
        for source in names:
            group = source if kind == "source" else str(domain.get(source, source))
            column = columns.setdefault((stage, group), np.zeros(tried.shares.shape[1]))
            column[at] = 1
            at += 1
    kept: list[tuple[str, str]] = []
    design = np.ones((len(tried.shares), 1))
    for name in [*list(columns)[1:], *list(columns)[:1]]:
        more = np.column_stack([design, tried.shares @ columns[name]])
        # Drawn shares differ from the plan's by a cut row: what varies by less does not count.
        if np.linalg.matrix_rank(more, tol=0.01) > design.shape[1]:
            design, kept = more, [*kept, name]
    matrix = np.column_stack([columns[n] for n in kept]) if kept else np.zeros((at, 0))
    return Features(kind, tuple(kept), matrix)


def _candidates(tried: Mixtures) -> np.ndarray:
    """`[candidate, source of any stage]`: lattices of convex combinations of each stage's options."""
    limit = CANDIDATES ** (1 / len(tried.stages))
    lattices = []
    for table in tried.options:
        table = np.unique(np.round(table, 3), axis=0)
        n = len(table)
        parts = max((q for q in range(1, 41) if comb(q + n - 1, n - 1) <= max(limit, n)), default=1)
        weights = (
            np.eye(n) if parts == 1 else np.array(_compositions(parts, n), dtype=np.float64) / parts
        )
        lattices.append(np.unique(np.round(weights @ table, 4), axis=0))
    return np.array([np.concatenate(rows) for rows in product(*lattices)])


def _compositions(total: int, parts: int) -> list[tuple[int, ...]]:
    if parts == 1:
        return [(total,)]
    return [(i, *rest) for i in range(total + 1) for rest in _compositions(total - i, parts - 1)]


@dataclass(frozen=True)
class _Search:
    """The same candidates and random weights for every level."""

    tried: Mixtures
    features: Features
    candidates: np.ndarray
    draws: int
    seed: int

    def row(self, profile: Profile, metric: str) -> Row:
        """Both laws on one profile of costs; the one that predicts left-out arms better proposes."""
        seen = self.tried.shares @ self.features.matrix
        costs = profile.level + profile.estimates
        errors = {name: leave_out(law, seen, costs) for name, law in LAWS.items()}
        chosen = min(errors, key=lambda name: errors[name].rmse)
        places = np.vstack([seen, self.candidates @ self.features.matrix])
        law, n = LAWS[chosen], len(seen)
        ones = np.ones((1, n))
        fitted = law(seen, costs[None], ones, places)[0]
        rng = np.random.default_rng([self.seed, 4, n])
        weights = rng.standard_exponential((self.draws, n))
        weights *= n / weights.sum(axis=1, keepdims=True)
        drawn = law(seen, profile.level + profile.draws.T, weights, places)
        scale = abs(SCALE[metric])
        told = {name: {"rmse": six(scale * e.rmse), "rank": six(e.rank)} for name, e in errors.items()}
        spread = float(np.sqrt(np.mean((costs - costs.mean()) ** 2)) * n / (n - 1))
        return {
            "metric": metric,
            "unit": "bits" if metric == "bpb" else "points",
            "laws": told,
            "chosen": chosen,
            "mean_rmse": six(scale * spread),
            "left_out": [
                {"measured": six(scale * float(c)), "predicted": six(scale * float(p))}
                for c, p in zip(costs, errors[chosen].predicted, strict=True)
            ],
            "best": self._best(costs, fitted, drawn, scale),
            "next": self._next(fitted, drawn, scale, MARGINS[metric]),
            "seeds": profile.seeds,
            "n_items": profile.items,
        }

    def _best(self, costs: np.ndarray, fitted: np.ndarray, drawn: np.ndarray, scale: float) -> Row:
        """The mixture with the least predicted cost, and what it gains over the best arm tried."""
        n = len(costs)
        top, arm = int(fitted[n:].argmin()), int(costs.argmin())
        found = self.candidates[drawn[:, n:].argmin(axis=1)]
        gains = scale * (drawn[:, arm] - drawn[:, n + top])
        low, high = np.quantile(gains, [ALPHA / 2, 1 - ALPHA / 2])
        ends = np.quantile(found, [ALPHA / 2, 1 - ALPHA / 2], axis=0)
        shares = self.candidates[top]
        return {
            "shares": self._told(shares, np.minimum(ends[0], shares), np.maximum(ends[1], shares)),
            "cost": six(scale * float(fitted[n + top])),
            "best_tried": arm,
            "gain": six(scale * float(fitted[arm] - fitted[n + top])),
            "gain_low": six(float(low)),
            "gain_high": six(float(high)),
            "yaml": self._yaml(shares, "proposed"),
        }

    def _next(self, fitted: np.ndarray, drawn: np.ndarray, scale: float, margin: float) -> Row:
        """The arm from which most is expected: improvement on the best tried, else what draws disagree on most."""
        n = len(self.tried.shares)
        best = drawn[:, :n].min(axis=1, keepdims=True)
        improvement = scale * np.maximum(0.0, best - drawn[:, n:]).mean(axis=0)
        disagreement = scale * drawn[:, n:].std(axis=0)
        apart = np.abs(self.candidates[:, None] - self.tried.shares[None]).max(axis=2).min(axis=1)
        new = apart >= min(NEW, float(apart.max())) - 1e-9
        why = "improvement" if (improvement[new] > SMALL * margin).any() else "disagreement"
        wanted = improvement if why == "improvement" else disagreement
        top = int(np.where(new, wanted, -1.0).argmax())
        shares = self.candidates[top]
        return {
            "shares": self._told(shares),
            "why": why,
            "improvement": six(float(improvement[top])),
            "disagreement": six(float(disagreement[top])),
            "cost": six(scale * float(fitted[n + top])),
            "yaml": self._yaml(shares, "next"),
        }

    def _told(
        self, shares: np.ndarray, low: np.ndarray | None = None, high: np.ndarray | None = None
    ) -> list[Row]:
        told, at = [], 0
        for stage, names in zip(self.tried.stages, self.tried.sources, strict=True):
            for source in names:
                row: Row = {"stage": stage, "source": source, "share": six(float(shares[at]))}
                if low is not None and high is not None:
                    row |= {"low": six(float(low[at])), "high": six(float(high[at]))}
                told.append(row)
                at += 1
        return told

    def _yaml(self, shares: np.ndarray, name: str) -> dict[str, str]:
        """Stage -> the line to paste under its options."""
        lines, at = {}, 0
        for stage, names in zip(self.tried.stages, self.tried.sources, strict=True):
            lines[stage] = mix_line(name, dict(zip(names, shares[at : at + len(names)], strict=True)))
            at += len(names)
        return lines


def mix_line(name: str, shares: Mapping[str, float]) -> str:
    """`name: {mix: {prose: 3, python: 1}}`: whole per cents by largest remainder, in their lowest terms."""
    percent = {s: 100 * x / sum(shares.values()) for s, x in shares.items()}
    whole = {s: int(p) for s, p in percent.items()}
    short = 100 - sum(whole.values())
    for source in sorted(percent, key=lambda s: whole[s] - percent[s])[:short]:
        whole[source] += 1
    kept = {s: n for s, n in whole.items() if n}
    common = gcd(*kept.values())
    mix = ", ".join(f"{_yaml_name(s)}: {n // common}" for s, n in kept.items())
    return f"{name}: {{mix: {{{mix}}}}}"


def _yaml_name(name: str) -> str:
    """Bare where YAML reads it as the same word, else quoted."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name)
    words = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
    return name if plain and name.lower() not in words else json.dumps(name)


def _told_mixture(records: Records, tried: Mixtures, i: int) -> Row:
    names: Sequence[tuple[str, str]] = [
        (stage, s) for stage, ss in zip(tried.stages, tried.sources, strict=True) for s in ss
    ]
    return {
        "arms": [records.arms[a] for a in tried.arms[i]],
        "shares": [
            {"stage": stage, "source": s, "share": six(float(x))}
            for (stage, s), x in zip(names, tried.shares[i], strict=True)
        ],
    }
