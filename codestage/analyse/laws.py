"""Mixture laws: cost as a function of the shares of a mixture, fitted to many draws at once.

Log-linear: L = c + k exp(t·r), one law for each task (Ye et al. 2024; for tasks' bits per byte, Olmix 2026).
Quadratic: ridge regression on shares, their squares and products, a small relative of RegMix (Liu et al. 2024).
Each row of costs has its own weights, so that leaving an arm out (weight 0) and the Bayesian bootstrap over arms
(Rubin 1981) are the same computation as a plain fit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from scipy import stats

STEPS = 30
"""Levenberg-Marquardt steps of the log-linear law."""
STARTS = (-3.0, -1.0, 1.0, 3.0)
"""How far the exponent of a start ranges over the mixtures tried."""
RIDGES = tuple(float(x) for x in np.geomspace(1e-4, 1e2, 13))

FOLDS = 40
"""Mixtures up to which each is left out by itself."""

Law = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(shares `[n, m]`, costs `[draw, n]`, weights `[draw, n]`, places `[q, m]`) -> predictions `[draw, q]`."""


def log_linear(r: np.ndarray, costs: np.ndarray, weights: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Predictions of c + k exp(t·r), by weighted least squares from several starts; the best of them is kept."""
    centre = r.mean(axis=0)
    x, q = r - centre, at - centre
    slope = _weighted(np.column_stack([np.ones(len(x)), x]), costs, weights, 1e-9)[:, 1:]
    along = slope @ x.T
    reach = np.ptp(along, axis=1)
    best, kept = np.full(len(costs), np.inf), np.zeros((len(costs), 2 + x.shape[1]))
    for start in STARTS:
        t = slope * (start / np.where(reach > 0, reach, 1.0))[:, None]
        found, left = _descend(x, costs, weights, t)
        better = left < best
        best, kept = np.where(better, left, best), np.where(better[:, None], found, kept)
    return _exponential(kept, q)


def _exponential(p: np.ndarray, x: np.ndarray) -> np.ndarray:
    """c + k exp(t·x): `[draw, n]` from p = (c, k, t) `[draw, 2 + m]`."""
    return p[:, :1] + p[:, 1:2] * np.exp(np.clip(p[:, 2:] @ x.T, -30, 30))


def _descend(
    x: np.ndarray, y: np.ndarray, w: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg-Marquardt from exponents t `[draw, m]`: parameters `[draw, 2 + m]` and what is left `[draw]`."""
    e = np.exp(t @ x.T)
    p = np.column_stack([_line(e, y, w), t])
    left = (w * (y - _exponential(p, x)) ** 2).sum(axis=1)
    damping = np.full(len(y), 1e-2)
    for _ in range(STEPS):
        e = np.exp(np.clip(p[:, 2:] @ x.T, -30, 30))
        slopes = np.concatenate(
            [np.ones_like(e)[..., None], e[..., None], (p[:, 1:2] * e)[..., None] * x[None]], axis=2
        )
        rest = y - _exponential(p, x)
        normal = np.einsum("dni,dn,dnj->dij", slopes, w, slopes)
        size = np.einsum("dii->di", normal) + 1e-12
        normal = normal + (damping[:, None] * size)[..., None] * np.eye(p.shape[1])
        step = np.linalg.solve(normal, np.einsum("dni,dn->di", slopes, w * rest)[..., None])[..., 0]
        tried = p + step
        now = (w * (y - _exponential(tried, x)) ** 2).sum(axis=1)
        better = now < left
        p, left = np.where(better[:, None], tried, p), np.where(better, now, left)
        damping = np.clip(np.where(better, damping / 4, damping * 6), 1e-9, 1e6)
    return p, left


def _line(e: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """(c, k) `[draw, 2]` of y = c + k e by weighted least squares; arrays `[draw, n]`."""
    total = w.sum(axis=1, keepdims=True)
    me, my = (w * e).sum(axis=1, keepdims=True) / total, (w * y).sum(axis=1, keepdims=True) / total
    spread = (w * (e - me) ** 2).sum(axis=1, keepdims=True)
    k = (w * (e - me) * (y - my)).sum(axis=1, keepdims=True) / np.where(spread > 0, spread, 1.0)
    return np.concatenate([my - k * me, k], axis=1)


def _weighted(design: np.ndarray, y: np.ndarray, w: np.ndarray, ridge: float) -> np.ndarray:
    """Coefficients `[draw, column]`; all columns but the first are held back by `ridge`."""
    n, p = design.shape
    normal = (w @ (design[:, :, None] * design[:, None, :]).reshape(n, p * p)).reshape(-1, p, p)
    hold = ridge * w.sum(axis=1)[:, None, None] * np.diag([0.0] + [1.0] * (design.shape[1] - 1))
    right = (w * y) @ design
    return np.asarray(np.linalg.solve(normal + hold, right[..., None])[..., 0])


def quadratic(r: np.ndarray, costs: np.ndarray, weights: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Predictions of the ridge regression; how much it holds back is chosen by leaving arms out, on the mean costs."""
    seen = weights.min(axis=0) > 0
    ridge = _ridge(r[seen], costs.mean(axis=0)[seen])
    design, places = _squares(r, r), _squares(r, at)
    return np.asarray(_weighted(design, costs, weights, ridge) @ places.T)


def _squares(r: np.ndarray, at: np.ndarray) -> np.ndarray:
    """1, standardised shares, and their products: `[q, column]`; squares centred on the mixtures `r`."""
    centre, scale = r.mean(axis=0), np.where(r.std(axis=0) > 0, r.std(axis=0), 1.0)

    def columns(x: np.ndarray) -> list[np.ndarray]:
        z = (x - centre) / scale
        pairs = combinations_with_replacement(range(z.shape[1]), 2)
        return [*z.T, *(z[:, i] * z[:, j] for i, j in pairs)]

    own = columns(r)
    shifted = [c - o.mean() for c, o in zip(columns(at), own, strict=True)]
    return np.column_stack([np.ones(len(at)), *shifted])


def _ridge(r: np.ndarray, y: np.ndarray) -> float:
    """The ridge with the least error on arms left out, one at a time: a residual over 1 less its leverage."""
    design = _squares(r, r)
    n, p = design.shape
    errors = []
    for ridge in RIDGES:
        hold = ridge * (n - 1) * np.diag([0.0] + [1.0] * (p - 1))
        hat = design @ np.linalg.solve(design.T @ design + hold, design.T)
        spare = np.maximum(1 - np.diag(hat), 1e-9)
        errors.append(float((((y - hat @ y) / spare) ** 2).sum()))
    return RIDGES[int(np.argmin(errors))]


LAWS: dict[str, Law] = {"log-linear": log_linear, "quadratic": quadratic}


@dataclass(frozen=True)
class LeftOut:
    """How a law predicts arms that it has not seen."""

    rmse: float
    rank: float | None
    """Spearman's correlation of predicted and measured costs; None where all are equal."""
    predicted: np.ndarray
    """`[mixture]`"""


def leave_out(law: Law, r: np.ndarray, costs: np.ndarray) -> LeftOut:
    """Errors on each mixture, predicted from the others; costs `[mixture]`.

    One at a time up to `FOLDS` mixtures, else in as many groups. Each fold is fitted by itself, so that nothing of the
    arms left out chooses how the law is fitted.
    """
    n = len(costs)
    predicted = np.empty(n)
    fold = np.arange(n) % min(n, FOLDS)
    for i in range(fold.max() + 1):
        kept = fold != i
        one = np.ones((1, int(kept.sum())))
        predicted[~kept] = law(r[kept], costs[None, kept], one, r[~kept])[0]
    rmse = float(np.sqrt(np.mean((predicted - costs) ** 2)))
    varied = np.ptp(predicted) > 0 and np.ptp(costs) > 0
    rank = float(stats.spearmanr(predicted, costs).statistic) if varied else None
    return LeftOut(rmse, rank, predicted)
