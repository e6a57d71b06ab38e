"""Scores of several points of a study (doses, mixtures, options) against the first of them, estimated together.

A point is a mean over arms. On seed s and item i its score is taken as

    point + seed + item + seed:item + taste[point, item] + run[point, seed] + rest,

so that all that points share cancels in their differences. Runs are taken to differ by chance alike at all points:
with K points and S seeds that variance has (K - 1)(S - 1) degrees of freedom instead of the S - 1 that one
difference has by itself (the two-way analysis of variance without replication; Cochran and Cox 1957). A run that is
missing is left out: points and seeds are then fitted by least squares to those that there are.

What items add is drawn by resampling them, the same items at all points (`bootstrap.Resamples`), so that draws of
the points are joint.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from codestage.analyse.bootstrap import DRAWS, Resamples

SMALLEST_P = 1e-12
ROUNDING = 1e-9


@dataclass(frozen=True)
class Profile:
    """Points against the first, in the scores' own unit."""

    estimates: np.ndarray
    """`[point]`; the first is 0."""
    covariance: np.ndarray
    """`[point - 1, point - 1]` of the others' estimates."""
    freedom: tuple[tuple[float, float], ...]
    """(share of the variance, degrees of freedom): seeds, where there are more than one, and items."""
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
class _Layout:
    """Least squares of the runs that there are: point + seed."""

    contrasts: np.ndarray
    """`[point - 1, cell]`: estimates from cells' scores."""
    residual: np.ndarray
    """`[cell, cell]`: what the model leaves of cells' scores."""
    df: int
    cells: np.ndarray
    """`[point, seed]` bool."""


def _layout(cells: np.ndarray) -> _Layout | None:
    """None where points cannot be compared: a point without a run, or no chain of shared seeds."""
    points, seeds = cells.shape
    if points < 2:
        return None
    point, seed = np.nonzero(cells)
    design = np.zeros((len(point), points + seeds))
    design[np.arange(len(point)), point] = 1
    design[np.arange(len(point)), points + seed] = 1
    used = design[:, design.any(axis=0)]
    if not cells.any(axis=1).all() or np.linalg.matrix_rank(used) < used.shape[1] - 1:
        return None
    inverse = np.linalg.pinv(design)
    return _Layout(
        inverse[1:points] - inverse[0],
        np.eye(len(point)) - design @ inverse,
        len(point) - (used.shape[1] - 1),
        cells,
    )


class Profiles:
    """Profiles of the same points over any group of tasks: work on a task is done once.

    `tasks`: name -> scores `[point, seed, item]` in one unit, NaN = unknown; `numbers`: name -> which resamples a
    task's items get, the same for all analyses. `bounded`: scores lie between 0 and `bound`.
    """

    def __init__(
        self,
        tasks: Mapping[str, np.ndarray],
        numbers: Mapping[str, int],
        *,
        bound: float | None = None,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> None:
        self.tasks, self.numbers, self.bound = tasks, numbers, bound
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
            self._layouts[cells.tobytes()] = _layout(cells)
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
        estimates = _snapped(layout.contrasts @ by_cell)
        rest = _snapped(layout.residual @ by_cell)
        sigma2 = float(rest @ rest) / layout.df if layout.df else 0.0
        spread = layout.contrasts @ layout.contrasts.T
        items = sum(p.items for p in parts)
        from_items = np.mean([p.draws for p in parts], axis=0)
        item_cov = np.atleast_2d(np.cov(from_items))
        item_df = float(max(1, items - len(parts)))
        if self.bound is not None and not np.diag(item_cov).any() and sigma2 == 0:
            # Nothing seen to vary is not the same as nothing that varies: the rule of three, as in `effects`.
            share = self.bound * (1 - 0.05 ** (1 / items)) / stats.t.isf(0.025, item_df)
            item_cov = share**2 * (np.eye(len(spread)) + 1) / 2
            from_items = np.linalg.cholesky(item_cov) @ self._normal(2, len(spread))
        seed_cov = sigma2 * spread
        total = float(np.trace(seed_cov) + np.trace(item_cov))
        share = float(np.trace(seed_cov)) / total if total else 0.0
        freedom = [(share, float(layout.df))] if layout.df else []
        freedom.append((1 - share if layout.df else 1.0, item_df))
        draws = estimates[:, None] + from_items + self._from_seeds(layout, sigma2)
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

    def _from_seeds(self, layout: _Layout, sigma2: float) -> np.ndarray:
        """`[point - 1, draw]`: what runs add, Student's t by a common divisor."""
        if not layout.df:
            return np.zeros((len(layout.contrasts), self.resamples.draws))
        z = self._normal(0, layout.contrasts.shape[1])
        uniform = special.ndtr(self._normal(1, 1))
        radius = np.sqrt(layout.df / special.chdtri(layout.df, uniform))
        return np.asarray(layout.contrasts @ z * radius * np.sqrt(sigma2))


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
    by_item = _snapped(layout.contrasts @ scores)
    variance = by_item.var(axis=1, ddof=1) if n > 1 else np.zeros(len(by_item))
    if layout.df and n > 1:
        rest = _snapped(layout.residual @ scores)
        rest -= rest.mean(axis=1, keepdims=True)
        within = float((rest**2).sum()) / (layout.df * (n - 1))
        variance = np.maximum(0.0, variance - within * (layout.contrasts**2).sum(axis=1))
    draws = resamples.from_items(number, by_item[:, None, :], variance / n)
    return _Items(scores.mean(axis=1), draws, n)


def _snapped(x: np.ndarray) -> np.ndarray:
    """Differences that are rounding of equal scores are none, or else they would be compared with each other."""
    return np.where(np.abs(x) < ROUNDING, 0.0, x)


def point_scores(scores: np.ndarray, members: Sequence[Iterable[int]]) -> np.ndarray:
    """`[point, seed, item]`: means over each point's arms of scores `[arm, seed, item]`.

    A seed or item that one of a point's arms lacks is unknown at that point.
    """
    return np.stack([scores[list(arms)].mean(axis=0) for arms in members])
