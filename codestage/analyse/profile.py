"""Scores of several points of a study (doses, mixtures, options) against the first of them, estimated together.

A point is a mean over arms. On seed s and item i its score is taken as

    point + seed + item + seed:item + taste[point, item] + run[point, seed] + rest,

so that all that points share cancels in their differences. Runs are taken to differ by chance alike at all points:
with K points and S seeds that variance has (K - 1)(S - 1) degrees of freedom instead of the S - 1 that one
difference has by itself (the two-way analysis of variance without replication; Cochran and Cox 1957). A run that is
missing is left out: points and seeds are then fitted by least squares to those that there are.

Runs that were tuned from one checkpoint share its luck, so they are no independent runs. Their points then stand in
blocks (`Profiles.lineage`), as the plots of a split-plot experiment do: what chance does between blocks and what it
does within them are estimated each by itself, and a difference of points takes of both as much as it crosses (strata
of error; Nelder 1965).

What items add is drawn by resampling them, the same items at all points (`bootstrap.Resamples`), so that draws of
the points are joint.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from codestage.analyse.bootstrap import DRAWS, Resamples
from codestage.analyse.scales import ROUNDING, snapped

SMALLEST_P = 1e-12


@dataclass(frozen=True)
class Profile:
    """Points against the first, in the scores' own unit."""

    estimates: np.ndarray
    """`[point]`; the first is 0."""
    covariance: np.ndarray
    """`[point - 1, point - 1]` of the others' estimates."""
    freedom: tuple[tuple[float, float], ...]
    """(share of the variance, degrees of freedom): strata of runs, where seeds are more than one, and items."""
    draws: np.ndarray
    """`[point, draw]`, joint; the first row is 0."""
    level: float
    """Mean score of the first point."""
    seeds: int
    items: int

    def p_f(self, statistic: float, terms: int) -> float:
        """p of an F statistic with `terms` in the numerator; quantiles of the parts weighted (Cochran 1964)."""
        if not statistic > 0:
            return 1.0

        def short(log_p: float) -> float:
            p = float(np.exp(log_p))
            return sum(w * float(stats.f.isf(p, terms, df)) for w, df in self.freedom) - statistic

        lowest, highest = float(np.log(SMALLEST_P)), float(np.log(1 - 1e-9))
        if short(lowest) < 0:
            return SMALLEST_P
        return 1.0 if short(highest) > 0 else float(np.exp(optimize.brentq(short, lowest, highest)))

    def t(self, p: float) -> float:
        """Quantile of Student's t, of the parts weighted as in `effects`."""
        return sum(w * float(special.stdtrit(df, p)) for w, df in self.freedom)


@dataclass(frozen=True)
class _Stratum:
    """Chance of one kind: of all that trained the runs, or of what trained the blocks that they stand in."""

    contrasts: np.ndarray
    """`[point - 1, cell]`: as much of the estimates as it moves."""
    residual: np.ndarray
    """`[cell, cell]`: what it leaves of cells' scores once points and seeds are fitted."""
    df: int

    def variance(self, scores: np.ndarray) -> float:
        """Of one cell, from cells' scores `[cell]` or `[cell, item]` (then of each item, its mean left out)."""
        rest = snapped(self.residual @ scores)
        if rest.ndim == 1:
            return float(rest @ rest) / self.df
        rest -= rest.mean(axis=1, keepdims=True)
        return float((rest**2).sum()) / (self.df * (rest.shape[1] - 1))


@dataclass(frozen=True)
class _Layout:
    """Least squares of the runs that there are: point + seed."""

    contrasts: np.ndarray
    """`[point - 1, cell]`: estimates from cells' scores."""
    strata: tuple[_Stratum, ...]
    """None with one seed."""
    cells: np.ndarray
    """`[point, seed]` bool."""


def _layout(cells: np.ndarray, lineage: Sequence[np.ndarray]) -> _Layout | None:
    """None where points cannot be compared: a point without a run, no chain of shared seeds, or blocks that share one
    seed alone where runs within them have more."""
    points, seeds = cells.shape
    if points < 2:
        return None
    point, seed = np.nonzero(cells)
    design = np.zeros((len(point), points + seeds))
    design[np.arange(len(point)), point] = 1
    design[np.arange(len(point)), points + seed] = 1
    inverse, rank = _inverse(design)
    if not cells.any(axis=1).all() or rank < int(design.any(axis=0).sum()) - 1:
        return None
    contrasts = inverse[1:points] - inverse[0]
    blocks = [_by_seed(level, point, seed, seeds) for level in lineage]
    strata = _strata(contrasts, design, design[:, points:], blocks)
    return None if strata is None else _Layout(contrasts, strata, cells)


def _by_seed(level: np.ndarray, point: np.ndarray, seed: np.ndarray, seeds: int) -> np.ndarray:
    """`[cell, block × seed]` from a level of the lineage `[point, block]`: one block's luck is another's at each seed."""
    found = np.zeros((len(point), seeds, level.shape[1]))
    found[np.arange(len(point)), seed] = level[point]
    return found.reshape(len(point), -1)


def _strata(
    contrasts: np.ndarray, design: np.ndarray, by_seed: np.ndarray, blocks: Sequence[np.ndarray]
) -> tuple[_Stratum, ...] | None:
    """From the widest blocks to single cells, no strata with one seed.

    None where runs tell how they differ by chance within blocks and not between them, and points are compared
    across: taken for the other, the chance between blocks would be far too small.
    """
    every = np.eye(len(design))
    below, fitted = _projection(by_seed), _projection(design)
    found: list[_Stratum] = []
    unseen, columns = False, by_seed
    for level in [*blocks, every]:
        columns = np.column_stack([columns, level])
        here, both = (
            (every, every)
            if level is every
            else (_projection(columns), _projection(np.column_stack([design, columns])))
        )
        df, moved = round(float(np.trace(both) - np.trace(fitted))), contrasts @ (here - below)
        if df:
            found.append(_Stratum(moved, both - fitted, df))
        elif np.abs(moved).max() > ROUNDING:
            unseen = True
        below, fitted = here, both
    return None if found and unseen else tuple(found)


def _projection(columns: np.ndarray) -> np.ndarray:
    """`[cell, cell]`: onto what the columns span."""
    return np.asarray(columns @ _inverse(columns)[0])


def _inverse(columns: np.ndarray) -> tuple[np.ndarray, int]:
    """The pseudo-inverse and the rank, by the columns' products: they are few beside cells, and far from alike."""
    size, basis = np.linalg.eigh(columns.T @ columns)
    kept = size > ROUNDING * size[-1]
    return (basis[:, kept] / size[kept]) @ (basis[:, kept].T @ columns.T), int(kept.sum())


class Profiles:
    """Profiles of the same points over any group of tasks: work on a task is done once.

    `tasks`: name -> scores `[point, seed, item]` in one unit, NaN = unknown; `numbers`: name -> which resamples a
    task's items get, the same for all analyses. `lineage`: what points have in common, see `lineage`; without it
    every point was trained by itself. `bound`: scores lie between 0 and this.
    """

    def __init__(
        self,
        tasks: Mapping[str, np.ndarray],
        numbers: Mapping[str, int],
        *,
        lineage: Sequence[np.ndarray] = (),
        bound: float | None = None,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> None:
        self.tasks, self.numbers, self.lineage, self.bound = tasks, numbers, lineage, bound
        self.resamples = Resamples(1, draws, seed)
        self._done: dict[tuple[str, bytes], _Items | None] = {}
        self._layouts: dict[bytes, _Layout | None] = {}

    def of(self, names: Sequence[str]) -> Profile | None:
        """The profile of the mean over tasks; None where the points cannot be compared."""
        if not names:
            return None
        known = [~np.isnan(self.tasks[n]).all(axis=2) for n in names]
        cells = np.logical_and.reduce(known)
        if cells.tobytes() not in self._layouts:
            self._layouts[cells.tobytes()] = _layout(cells, self.lineage)
        layout = self._layouts[cells.tobytes()]
        if layout is None:
            return None
        parts = [self._items(n, layout) for n in names]
        if any(p is None for p in parts):
            return None
        return self._profile([p for p in parts if p is not None], layout)

    def _items(self, name: str, layout: _Layout) -> "_Items | None":
        key = (name, layout.cells.tobytes())
        if key not in self._done:
            scores = self.tasks[name][layout.cells].astype(np.float64)
            scores = scores[:, ~np.isnan(scores).any(axis=0)]
            found = None
            if scores.shape[1]:
                found = _task_items(scores, layout, self.resamples, self.numbers[name])
            self._done[key] = found
        return self._done[key]

    def _profile(self, parts: Sequence["_Items"], layout: _Layout) -> Profile:
        by_cell = np.mean([p.by_cell for p in parts], axis=0)
        estimates = snapped(layout.contrasts @ by_cell)
        variances = [stratum.variance(by_cell) for stratum in layout.strata]
        items = sum(p.items for p in parts)
        from_items = np.mean([p.draws for p in parts], axis=0)
        item_cov = np.atleast_2d(np.cov(from_items))
        item_df = float(max(1, items - len(parts)))
        if self.bound is not None and not np.diag(item_cov).any() and not any(variances):
            # Nothing seen to vary is not the same as nothing that varies: the rule of three, as in `effects`.
            share = self.bound * (1 - 0.05 ** (1 / items)) / stats.t.isf(0.025, item_df)
            item_cov = share**2 * (np.eye(len(item_cov)) + 1) / 2
            from_items = np.linalg.cholesky(item_cov) @ self._normal(2, len(item_cov))
        seed_covs = [
            v * s.contrasts @ s.contrasts.T for v, s in zip(variances, layout.strata, strict=True)
        ]
        seed_cov = np.sum(seed_covs, axis=0) if seed_covs else np.zeros_like(item_cov)
        total = float(np.trace(seed_cov) + np.trace(item_cov))
        shares = [float(np.trace(v)) / total if total else 0.0 for v in seed_covs]
        freedom = [(share, float(s.df)) for share, s in zip(shares, layout.strata, strict=True)]
        freedom.append((1 - sum(shares), item_df))
        draws = estimates[:, None] + from_items + self._from_seeds(layout, variances)
        first = np.nonzero(layout.cells)[0] == 0
        return Profile(
            np.append(0.0, estimates),
            seed_cov + item_cov,
            tuple(freedom),
            np.vstack([np.zeros(self.resamples.draws), draws]),
            float(by_cell[first].mean()),
            int(layout.cells.any(axis=0).sum()),
            items,
        )

    def _normal(self, stream: int, rows: int) -> np.ndarray:
        rng = np.random.default_rng([self.resamples.seed, 3, stream])
        return rng.standard_normal((rows, self.resamples.draws))

    def _from_seeds(self, layout: _Layout, variances: Sequence[float]) -> np.ndarray:
        """`[point - 1, draw]`: what runs add, Student's t by a common divisor of each stratum."""
        moved = np.zeros((len(layout.contrasts), self.resamples.draws))
        z = self._normal(0, layout.contrasts.shape[1])
        uniform = special.ndtr(self._normal(1, max(1, len(layout.strata))))
        for stratum, variance, u in zip(layout.strata, variances, uniform, strict=False):
            radius = np.sqrt(stratum.df / special.chdtri(stratum.df, u))
            moved += stratum.contrasts @ z * radius * np.sqrt(variance)
        return moved


@dataclass(frozen=True)
class _Items:
    by_cell: np.ndarray
    """`[cell]` means over items."""
    draws: np.ndarray
    """`[point - 1, draw]` deviations from the choice of items."""
    items: int


def _task_items(scores: np.ndarray, layout: _Layout, resamples: Resamples, number: int) -> _Items:
    """One task's cells and item draws from scores `[cell, item]`, all known."""
    n = scores.shape[1]
    by_item = snapped(layout.contrasts @ scores)
    variance = by_item.var(axis=1, ddof=1) if n > 1 else np.zeros(len(by_item))
    if n > 1:
        for stratum in layout.strata:
            variance -= stratum.variance(scores) * (stratum.contrasts**2).sum(axis=1)
        variance = np.maximum(0.0, variance)
    draws = resamples.from_items(number, by_item[:, None, :], variance / n)
    return _Items(scores.mean(axis=1), draws, n)


def point_scores(scores: np.ndarray, members: Sequence[Iterable[int]]) -> np.ndarray:
    """`[point, seed, item]`: means over each point's arms of scores `[arm, seed, item]`.

    A seed or item that one of a point's arms lacks is unknown at that point.
    """
    return np.stack([scores[list(arms)].mean(axis=0) for arms in members])


def lineage(arms: Sequence[Mapping[str, Any]], members: Sequence[Iterable[int]]) -> list[np.ndarray]:
    """What points have in common by their training, from the first stage on: levels `[point, block]`.

    Arms (of `study.json`) with the same options and budgets so far were one run until there; with the same options
    and other budgets, one trunk. A point of several arms lies in each of their blocks in part.
    """
    chosen = [[_path(arms[a]) for a in m] for m in members]
    found: list[np.ndarray] = []
    for level in range(1, max(len(path) for m in chosen for path in m)):
        blocks = dict.fromkeys(path[:level] for m in chosen for path in m)
        rows = []
        for m in chosen:
            counts = Counter(path[:level] for path in m)
            rows.append([counts[b] / len(m) for b in blocks])
        table = np.array(rows)
        # One block for all cancels, and points that are each a block of their own are what `_strata` ends with.
        several = np.ptp(table, axis=0).any() and np.linalg.matrix_rank(table) < len(table)
        if several and not any(np.array_equal(table, seen) for seen in found):
            found.append(table)
    return found


def _path(arm: Mapping[str, Any]) -> tuple[Any, ...]:
    """Option and budget of every stage in turn."""
    return tuple(key for s, option in arm["factors"].items() for key in (option, arm["tokens"][s]))
