"""From small to large within a study: how scores, losses and the effect of code go with the token budget.

A study's ladder holds the same arms with fewer tokens at one stage. The effect of code at each budget, its trend for
each doubling and its value one doubling further are weights over arms like any other contrast, so that estimate and
interval are those of `effects`. The scores themselves follow power laws (`power_law`), fitted to joint draws over
seeds and items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codestage.analyse.bootstrap import Resamples
from codestage.analyse.effects import Test, holm, make_test, parts, task_parts
from codestage.analyse.power_law import WITH_OFFSET, fit, refusal
from codestage.analyse.records import Records
from codestage.analyse.scales import ALPHA, MARGINS, SCALE, UNITS, levels, places, six, snapped

DRAWS = 512
"""A curve is fitted to each."""
CURVE = 25
"""Places at which a fitted curve is told."""
POINTS = 4
"""Fewest measurements of held-out loss along a stage that a learning curve is fitted to."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Rung:
    """One budget: tokens of the laddered stage; indices of arms with and without code at `stage`."""

    tokens: int
    code: tuple[int, ...]
    base: tuple[int, ...]

    def weights(self, arms: int) -> np.ndarray:
        """`[arm]`: code less base."""
        found = np.zeros(arms)
        found[list(self.code)] += 1 / len(self.code)
        found[list(self.base)] -= 1 / len(self.base)
        return found


def ladders(records: Records) -> list[tuple[str, str, list[Rung]]]:
    """(laddered stage, stage of the code, rungs from few tokens to many); two rungs at least."""
    study = records.study
    grid = [a for a in study["arms"] if a["role"] == "grid"]
    whole = {s: max(a["tokens"][s] for a in grid) for s in study["stages"]}
    found = []
    for short in study["stages"]:
        by_tokens = budgets(records, short)
        for stage in study["stages"]:
            rungs = [_rung(records, arms, stage, n) for n, arms in by_tokens.items()]
            kept = [r for r in rungs if r is not None]
            if len(kept) > 1 and kept[-1].tokens == whole[short]:
                found.append((short, stage, kept))
    return found


def budgets(records: Records, short: str) -> dict[int, list[Mapping[str, Any]]]:
    """Tokens of stage `short`, ascending -> arms: the ladder's, and the grid's as the last."""
    study = records.study
    grid = [a for a in study["arms"] if a["role"] == "grid"]
    whole = {s: max(a["tokens"][s] for a in grid) for s in study["stages"]}
    ladder = [a for a in study["arms"] if a["role"] == "ladder"]
    sizes = sorted({a["tokens"][short] for a in ladder if a["tokens"][short] < whole[short]})
    found = {n: [a for a in ladder if a["tokens"] == whole | {short: n}] for n in sizes}
    return {n: arms for n, arms in found.items() if arms} | {whole[short]: grid}


def _rung(records: Records, arms: Sequence[Mapping[str, Any]], stage: str, tokens: int) -> Rung | None:
    study, place = records.study, {name: i for i, name in enumerate(records.arms)}
    code = tuple(place[a["name"]] for a in arms if a["factors"][stage] in study["code_options"][stage])
    base = tuple(place[a["name"]] for a in arms if a["factors"][stage] == study["options"][stage][0])
    return Rung(tokens, code, base) if code and base else None


def scaling(records: Records, losses: Sequence[Row] = (), *, draws: int = DRAWS) -> list[Row]:
    """A row for each ladder, metric, level and name, then for each source's held-out loss; see docs/formats.md.

    `losses` are all measurements of it, as `codestage.analyse.losses.read_losses` reads them.
    """
    rows: list[Row] = []
    last = records.study["stages"][-1]
    for short, stage, rungs in ladders(records):
        for metric in MARGINS:
            for where, cot in places(records, metric):
                if where == last:
                    rows += _ladder_rows(records, short, stage, rungs, cot, metric, draws)
    return rows + _held_out_rows(records, losses, draws)


def _ladder_rows(
    records: Records, short: str, stage: str, rungs: Sequence[Rung], cot: str, metric: str, draws: int
) -> list[Row]:
    last = records.study["stages"][-1]
    names = records.tasks(last, cot, metric)
    numbers = {str(t["name"]): i for i, t in enumerate(records.study["tasks"])}
    used = [arm for r in rungs for arm in (*r.code, *r.base)]
    seeds = records.ran(last)[used].all(axis=0)
    if not seeds.any():
        return []
    scores = {n: records.scores[last, cot, n, metric][:, seeds] for n in names}
    tokens = [r.tokens for r in rungs]
    weights = np.stack([r.weights(len(records.arms)) for r in rungs])
    wanted = np.vstack([weights, line_weights(tokens) @ weights])
    sign, scale = np.sign(SCALE[metric]), abs(SCALE[metric])
    effects = {
        n: sign * _differences(wanted, scores[n]) for n in names
    }  # shares, as `bounded` takes them
    sides = {"code": [r.code for r in rungs], "base": [r.base for r in rungs]}
    resamples = Resamples(int(seeds.sum()), draws)
    costs = {
        side: {n: _task_cost(_cost(metric, scores[n], arms), numbers[n], resamples) for n in names}
        for side, arms in sides.items()
    }
    rows = []
    for level, name, members in levels(records, names):
        test = make_test(parts([effects[n] for n in members], bounded=metric != "bpb")).scaled(scale)
        if np.isnan(test.estimate).any():
            continue
        groups = []
        for side, by_task in costs.items():
            found = _draws([by_task[n] for n in members], resamples)
            groups.append(_group(side, tokens, found))
        row = {
            "kind": "ladder",
            "ladder": short,
            "contrast": f"code@{stage}",
            "measured": last,
            "cot": cot,
            "metric": metric,
            "unit": UNITS[metric],
            "cost": "bits" if metric == "bpb" else "error",
            "level": level,
            "name": name,
        }
        rows.append(row | _told_effects(tokens, test) | {"groups": groups})
    _adjust(rows)
    return rows


def _differences(weights: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """D `[contrast, seed, item]`; arms that a contrast does not use may be unknown."""
    used = weights != 0
    return snapped(
        np.stack([np.tensordot(w[u], scores[u], axes=1) for w, u in zip(weights, used, strict=True)])
    )


def line_weights(tokens: Sequence[int]) -> np.ndarray:
    """`[2, budget]`: least squares on doublings; the slope for each, and the value one doubling further."""
    x = np.log2(np.asarray(tokens, dtype=np.float64))
    off = x - x.mean()
    slope = off / (off @ off)
    return np.stack([slope, 1 / len(x) + slope * (x[-1] + 1 - x.mean())])


def _cost(metric: str, scores: np.ndarray, arms: Sequence[Sequence[int]]) -> np.ndarray:
    """`[budget, seed, item]`: bits as they are, shares as what is missing to 1."""
    means = np.stack([scores[list(a)].mean(axis=0) for a in arms])
    return means if metric == "bpb" else 1 - means


@dataclass(frozen=True)
class _Costs:
    """Mean costs at each budget `[budget]` and their joint draws `[budget, draw]`."""

    means: np.ndarray
    draws: np.ndarray
    known: bool
    """Whether anything is known of how they vary."""


def _task_cost(costs: np.ndarray, number: int, resamples: Resamples) -> tuple[np.ndarray, np.ndarray]:
    """(means `[budget, seed]`, draws of what items add `[budget, draw]`) of one task's `[budget, seed, item]`."""
    found = task_parts(costs)
    return found.by_seed, resamples.from_items(number, costs, found.item_variance)


def _draws(tasks: Sequence[tuple[np.ndarray, np.ndarray | None]], resamples: Resamples) -> _Costs:
    """Joint draws of the mean over tasks; see `_task_cost`. Losses have no items."""
    by_seed = np.mean([means for means, _ in tasks], axis=0)
    items = [drawn for _, drawn in tasks if drawn is not None]
    moved = resamples.from_seeds(by_seed) + (np.mean(items, axis=0) if items else 0.0)
    means = by_seed.mean(axis=1)
    return _Costs(means, means[:, None] + moved, bool(items) or by_seed.shape[1] > 1)


def _span(draws: np.ndarray, known: bool) -> tuple[float | None, float | None]:
    """The percentile interval of draws `[draw]`; unknown where nothing is known of their spread."""
    if not known:
        return None, None
    low, high = np.quantile(draws, [ALPHA / 2, 1 - ALPHA / 2])
    return six(float(low)), six(float(high))


def _group(side: str, tokens: Sequence[int], costs: _Costs) -> Row:
    """One side's costs at each budget, and the law through them."""
    points = []
    for n, mean, drawn in zip(tokens, costs.means, costs.draws, strict=True):
        low, high = _span(drawn, costs.known)
        points.append({"tokens": n, "cost": six(float(mean)), "low": low, "high": high})
    return {"name": side, "points": points, "law": _law(tokens, costs)}


def _law(tokens: Sequence[int], costs: _Costs) -> Row:
    why = refusal(len(tokens))
    if why is not None:
        return {"form": None, "why": why}
    x = np.asarray(tokens, dtype=np.float64)
    fitted = fit(x, costs.means[None])
    drawn = fit(x, costs.draws.T)
    places = np.geomspace(x[0], 2 * x[-1], CURVE)
    curve, spread = fitted.at(places)[0], drawn.at(places)
    spans = [_span(s, costs.known) for s in spread.T]
    told = {}
    for part in ("exponent", "offset", "scale"):
        low, high = _span(getattr(drawn, part), costs.known)
        told[part] = {"estimate": six(float(getattr(fitted, part)[0])), "low": low, "high": high}
    return {
        "form": "offset" if len(tokens) >= WITH_OFFSET else "power",
        "why": None,
        **told,
        "misfit": six(float(np.sqrt(((fitted.at(x)[0] - costs.means) ** 2).mean()))),
        "curve": {
            "tokens": [six(float(v)) for v in places],
            "cost": [six(float(v)) for v in curve],
            "low": [low for low, _ in spans],
            "high": [high for _, high in spans],
        },
        "next": {
            "tokens": 2 * int(x[-1]),
            "cost": six(float(curve[-1])),
            "low": spans[-1][0],
            "high": spans[-1][1],
        },
    }


def _told_effects(tokens: Sequence[int], test: Test) -> Row:
    """The effect at each budget, its trend, and one doubling further where there are three budgets."""
    low, high = test.interval(ALPHA)
    unseen = test.se == 0

    def told(i: int) -> Row:
        ends = (None, None) if unseen[i] else (six(float(low[i])), six(float(high[i])))
        return {"estimate": six(float(test.estimate[i])), "low": ends[0], "high": ends[1]}

    n = len(tokens)
    further = told(n + 1) | {"tokens": 2 * tokens[-1]} if n > 2 else None
    return {
        "budgets": [{"tokens": t} | told(i) for i, t in enumerate(tokens)],
        "trend": told(n) | {"p": None if unseen[n] else six(float(test.p[n]))},
        "extrapolated": further,
        "seeds": test.seeds,
        "n_items": int(np.ravel(test.items)[0]),
    }


def _adjust(rows: Sequence[Row]) -> None:
    """Holm over the trends of one level."""
    for level in ("overall", "domain", "task", "source"):
        known = [r for r in rows if r["level"] == level and r["trend"]["p"] is not None]
        for row, p in zip(known, holm([r["trend"]["p"] for r in known]), strict=True):
            row["trend"]["p_adjusted"] = six(p)
    for row in rows:
        row["trend"].setdefault("p_adjusted", None)


def _held_out_rows(records: Records, table: Sequence[Row], draws: int) -> list[Row]:
    """Held-out losses of each source: along the ladder where there is one, else along the stage's training."""
    rows: list[Row] = []
    whole = {stage: rungs for short, stage, rungs in ladders(records) if short == stage}
    for stage in records.study["stages"]:
        grid = [a for a in records.study["arms"] if a["role"] == "grid"]
        rung = _rung(records, grid, stage, 0)
        found = [r for r in table if r["stage"] == stage]
        group: list[Row] = []
        for source, domain in dict.fromkeys((r["source"], r["domain"]) for r in found):
            of = [r for r in found if r["source"] == source]
            if stage in whole:
                kind, series = "held-out ladder", _ends(records, of, whole[stage])
            else:
                kind, series = "learning curve", _along(records, of, rung) if rung else None
            if series is not None:
                group.append(_loss_row(kind, stage, (source, domain), series, draws))
        _adjust(group)
        rows += group
    return rows


@dataclass(frozen=True)
class _Series:
    """Losses `[point, seed]` with and without code at tokens `[point]`."""

    tokens: list[int]
    code: np.ndarray
    base: np.ndarray


def _losses(
    records: Records, rows: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, int], dict[int, float]]:
    """(arm, seed) -> tokens -> loss."""
    found: dict[tuple[str, int], dict[int, float]] = {}
    for r in rows:
        if r["loss"] is not None and np.isfinite(r["loss"]):
            found.setdefault((r["arm"], r["seed"]), {})[int(r["tokens"])] = float(r["loss"])
    return found


def _side(records: Records, arms: Sequence[int], pick: Mapping[tuple[str, int], float]) -> np.ndarray:
    """`[seed]` mean over arms; NaN where one is unknown."""
    unknown = float("nan")
    table = [[pick.get((records.arms[a], s), unknown) for s in records.seeds] for a in arms]
    return np.asarray(np.mean(table, axis=0))


def _ends(records: Records, rows: Sequence[Mapping[str, Any]], rungs: Sequence[Rung]) -> _Series | None:
    """The last loss of every arm of the ladder."""
    pick = {key: by[max(by)] for key, by in _losses(records, rows).items()}
    return _series(
        [r.tokens for r in rungs],
        [_side(records, r.code, pick) for r in rungs],
        [_side(records, r.base, pick) for r in rungs],
    )


def _along(records: Records, rows: Sequence[Mapping[str, Any]], rung: Rung) -> _Series | None:
    """Losses at the places that all arms were measured at, the start of the stage left out."""
    losses = _losses(records, rows)
    names = {records.arms[a] for a in (*rung.code, *rung.base)}
    used = [by for (arm, _), by in losses.items() if arm in names]
    shared = sorted(set.intersection(*map(set, used)) - {0}) if used else []
    if len(shared) < POINTS:
        return None
    picks = [{key: by[t] for key, by in losses.items() if t in by} for t in shared]
    return _series(
        shared,
        [_side(records, rung.code, pick) for pick in picks],
        [_side(records, rung.base, pick) for pick in picks],
    )


def _series(tokens: list[int], code: list[np.ndarray], base: list[np.ndarray]) -> _Series | None:
    """Seeds known at every point on both sides."""
    both = np.stack([np.stack(code), np.stack(base)])
    known = ~np.isnan(both).any(axis=(0, 1))
    return _Series(tokens, both[0][:, known], both[1][:, known]) if known.any() else None


def _loss_row(kind: str, stage: str, of: tuple[str, str], series: _Series, draws: int) -> Row:
    tokens, seeds = series.tokens, series.code.shape[1]
    difference = -(series.code - series.base)  # less loss is better
    wanted = np.vstack([difference, line_weights(tokens) @ difference])
    test = make_test(parts([wanted[:, :, None]]))
    resamples = Resamples(seeds, draws)
    sides = {"code": series.code, "base": series.base}
    groups = [_group(side, tokens, _draws([(loss, None)], resamples)) for side, loss in sides.items()]
    row = {
        "kind": kind,
        "ladder": stage,
        "contrast": f"code@{stage}",
        "measured": stage,
        "cot": None,
        "metric": "loss",
        "unit": "nats",
        "cost": "nats",
        "level": "source",
        "name": of[0],
        "domain": of[1],
    }
    return row | _told_effects(tokens, test) | {"groups": groups, "n_items": None}
