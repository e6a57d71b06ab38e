"""Whether orders agree: Kendall's W, signs of effects, and how often a small run picks the large one's winner."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from math import factorial
from typing import Any

import numpy as np
from scipy import stats

from codestage.analyse.profile import Profile, Profiles, lineage, point_scores
from codestage.analyse.records import Records
from codestage.analyse.scales import ALPHA, SCALE, levels, places, six
from codestage.analyse.scaling import budgets

DRAWS = 512
PAIRS = 5_000
"""Pairs that are decided at the most; of more, as many are drawn."""
EXACT = 20_000
"""Orders up to which all are counted; of more, `RANDOM` are drawn."""
RANDOM = 9_999
PREDICTIONS = (("acc", "acc"), ("prob", "prob"), ("bpb", "bpb"), ("prob", "acc"), ("bpb", "acc"))
"""(metric that the small run decides by, metric that the large one is judged by)."""

Row = dict[str, Any]


def kendall_w(scores: np.ndarray) -> float:
    """Kendall's coefficient of concordance W of scores `[rater, object]`, corrected for ties (Kendall 1948).

    1: the same order everywhere; 0: no agreement. NaN where some rater's objects are all alike.
    """
    ranks = stats.rankdata(scores, axis=1)
    m, n = ranks.shape
    _, ties = _ties(ranks)
    spread = float(((ranks.sum(axis=0) - m * (n + 1) / 2) ** 2).sum())
    possible = m**2 * (n**3 - n) - m * ties
    alike = min(np.ptp(row) for row in ranks) == 0
    return float("nan") if alike else 12 * spread / possible


def _ties(ranks: np.ndarray) -> tuple[int, float]:
    """(raters, sum of t³ - t over their tied groups)."""
    total = 0.0
    for row in ranks:
        _, counts = np.unique(row, return_counts=True)
        total += float((counts**3 - counts).sum())
    return len(ranks), total


def kendall_p(scores: np.ndarray, *, seed: int = 0) -> float:
    """p of W under "every rater orders at random": exact where there are few orders, else by random ones.

    Of random orders the one seen counts as one of them, so that p is never zero (Phipson and Smyth 2010).
    """
    ranks = stats.rankdata(scores, axis=1)
    m, n = ranks.shape
    seen = float((ranks.sum(axis=0) ** 2).sum()) - 1e-9
    if factorial(n) ** (m - 1) <= EXACT:
        sums = ranks[:1]
        for row in ranks[1:]:
            orders = np.array(list(permutations(row)))
            sums = (sums[:, None] + orders[None]).reshape(-1, n)
        return float(((sums**2).sum(axis=1) >= seen).mean())
    rng = np.random.default_rng([seed, 5, m, n])
    drawn = rng.permuted(np.broadcast_to(ranks, (RANDOM, m, n)), axis=2).sum(axis=1)
    return float(((drawn**2).sum(axis=1) >= seen).sum() + 1) / (RANDOM + 1)


def concordance(profiles: Sequence[Profile]) -> Row:
    """W of the points' order over studies, its p, and its spread over seeds and items."""
    scores = np.stack([p.estimates for p in profiles])
    w = kendall_w(scores)
    ranks = stats.rankdata(np.stack([p.draws for p in profiles]), axis=1)
    m, n = scores.shape
    # Draws have no ties.
    found = 12 * ((ranks.sum(axis=0) - m * (n + 1) / 2) ** 2).sum(axis=0) / (m**2 * (n**3 - n))
    low, high = np.quantile(found, [ALPHA / 2, 1 - ALPHA / 2])
    p = None if np.isnan(w) else six(kendall_p(scores))
    return {
        "w": six(w),
        "low": six(min(w, float(low))),
        "high": six(max(w, float(high))),
        "p": p,
    }


def sign_agreement(estimates: Sequence[float]) -> Row:
    """How many of the studies' effects are positive: the share with Wilson's interval, and the sign test.

    Effects of exactly zero have no sign and are left out.
    """
    signs = [e > 0 for e in estimates if e != 0]
    if not signs:
        return {"positive": 0, "signed": 0, "share": None, "low": None, "high": None, "p": None}
    test = stats.binomtest(sum(signs), len(signs))
    low, high = test.proportion_ci(1 - ALPHA, method="wilson")
    return {
        "positive": sum(signs),
        "signed": len(signs),
        "share": six(sum(signs) / len(signs)),
        "low": six(float(low)),
        "high": six(float(high)),
        "p": six(float(test.pvalue)),
    }


def accuracy(small: np.ndarray, large: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Share of pairs `[pair, 2]` with the same winner in scores `[object, draw]`; a tie is half right. `[draw]`"""
    a = np.sign(small[pairs[:, 0]] - small[pairs[:, 1]])
    b = np.sign(large[pairs[:, 0]] - large[pairs[:, 1]])
    return np.asarray(((1 + a * b) / 2).mean(axis=0))


def decisions_of(small: Profile, large: Profile, at_small: slice, at_large: slice) -> Row:
    """Pairwise decision accuracy of the small runs for the large ones (DataDecide: Magnusson et al. 2025).

    The share of pairs of points whose winner is the same, with the percentile interval of joint draws of both. Pairs
    that the large runs cannot resolve themselves are then left out: `resolved`.
    """
    s, t = small.estimates[at_small][:, None], large.estimates[at_large][:, None]
    ds, dt = small.draws[at_small], large.draws[at_large]
    pairs = np.column_stack(np.triu_indices(len(t), 1))
    if len(pairs) > PAIRS:
        rng = np.random.default_rng([6, len(t)])
        pairs = pairs[np.sort(rng.choice(len(pairs), PAIRS, replace=False))]
    gaps = dt[pairs[:, 0]] - dt[pairs[:, 1]]
    span: np.ndarray = np.quantile(gaps, [ALPHA / 2, 1 - ALPHA / 2], axis=1)
    sure = pairs[(span[0] > 0) | (span[1] < 0)]
    told: Row = {"points": len(t), "pairs": len(pairs)}
    for name, chosen in (("accuracy", pairs), ("resolved", sure)):
        if not len(chosen):
            told[name] = {"pairs": 0, "estimate": None, "low": None, "high": None}
            continue
        ends = np.quantile(accuracy(ds, dt, chosen), [ALPHA / 2, 1 - ALPHA / 2])
        found = float(accuracy(s, t, chosen)[0])
        told[name] = {
            "pairs": len(chosen),
            "estimate": six(found),
            "low": six(min(found, float(ends[0]))),
            "high": six(max(found, float(ends[1]))),
        }
    return told


def decisions(records: Records, *, draws: int = DRAWS, seed: int = 0) -> list[Row]:
    """Decision accuracy of every shorter budget of a ladder for the whole one; see docs/formats.md."""
    rows: list[Row] = []
    last = records.study["stages"][-1]
    for short in records.study["stages"]:
        by_tokens = budgets(records, short)
        *fewer, whole = by_tokens
        for tokens in fewer:
            pairs = _matched(records, by_tokens[tokens], by_tokens[whole])
            if len(pairs) < 2:
                continue
            for cot in dict.fromkeys(c for m in SCALE for w, c in places(records, m) if w == last):
                told = {"ladder": short, "tokens": tokens, "of": whole, "measured": last, "cot": cot}
                rows += [told | row for row in _decision_rows(records, cot, pairs, draws, seed)]
    return rows


def _matched(
    records: Records, small: Sequence[Mapping[str, Any]], large: Sequence[Mapping[str, Any]]
) -> list[tuple[int, int]]:
    """(small, large) arms with the same options, both of which ran."""
    place = {name: i for i, name in enumerate(records.arms)}
    ran = np.asarray(records.ran(records.study["stages"][-1]).any(axis=1))
    twins = {tuple(a["factors"].items()): place[a["name"]] for a in large}
    found = [(place[a["name"]], twins.get(tuple(a["factors"].items()))) for a in small]
    return [(i, j) for i, j in found if j is not None and ran[i] and ran[j]]


def _decision_rows(
    records: Records, cot: str, pairs: Sequence[tuple[int, int]], draws: int, seed: int
) -> list[Row]:
    last = records.study["stages"][-1]
    arms = [[i] for i, _ in pairs] + [[j] for _, j in pairs]
    numbers = {str(t["name"]): i for i, t in enumerate(records.study["tasks"])}
    shared_by = lineage(records.study["arms"], arms)
    profiles = {}
    for metric in SCALE:
        scores = {
            n: SCALE[metric] * point_scores(records.scores[last, cot, n, metric], arms)
            for n in records.tasks(last, cot, metric)
        }
        bound = None if metric == "bpb" else 100.0
        profiles[metric] = Profiles(
            scores, numbers, lineage=shared_by, bound=bound, draws=draws, seed=seed
        )
    n, rows = len(pairs), []
    for metric, target in PREDICTIONS:
        shared = [t for t in profiles[target].tasks if t in profiles[metric].tasks]
        for level, name, members in levels(records, shared):
            small, large = profiles[metric].of(members), profiles[target].of(members)
            if small is None or large is None:
                continue
            row = {"metric": metric, "target": target, "level": level, "name": name}
            rows.append(row | decisions_of(small, large, slice(0, n), slice(n, 2 * n)))
    return rows
