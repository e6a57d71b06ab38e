"""Power laws of cost against tokens, L = E + A (N / N_max)^-a, fitted to many draws at once.

With four budgets or more there is an offset E (Hoffmann et al. 2022); with three there is none, for it could not be
told from the exponent (Kaplan et al. 2020); fewer are not fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST, WITH_OFFSET = 3, 4
"""Budgets from which a law is fitted, and from which it has an offset."""
EXPONENTS = np.geomspace(0.01, 3.0, 24)
"""Exponents tried where there is an offset; for each, offset and scale are least squares."""
FINER = 7
"""Rounds of finer exponents around the best."""


@dataclass(frozen=True)
class Laws:
    """One law for each row of costs; arrays `[draw]`. Offset and scale are not negative."""

    offset: np.ndarray
    scale: np.ndarray
    exponent: np.ndarray
    largest: float
    """N_max: the largest number of tokens, at which the cost is offset + scale."""

    def at(self, tokens: np.ndarray) -> np.ndarray:
        """Costs `[draw, n]` at tokens `[n]`."""
        shape = (tokens[None] / self.largest) ** -self.exponent[:, None]
        return np.asarray(self.offset[:, None] + self.scale[:, None] * shape)


def refusal(budgets: int) -> str | None:
    """Why no law is fitted to so few budgets; None where one is."""
    if budgets >= FEWEST:
        return None
    return f"{budgets} budgets; a power law needs {FEWEST}, and {WITH_OFFSET} if it may level off"


def fit(tokens: np.ndarray, costs: np.ndarray) -> Laws:
    """Least squares to costs `[draw, budget]` at tokens `[budget]`; 3 or more budgets.

    Without offset the logarithms are fitted, so that costs must be positive: smaller ones count as one in a million.
    """
    x = np.asarray(tokens, dtype=np.float64) / float(max(tokens))
    if len(x) >= WITH_OFFSET:
        return _with_offset(x, costs, float(max(tokens)))
    logs = np.log(np.maximum(costs, 1e-6))
    design = np.column_stack([np.ones(len(x)), -np.log(x)])
    log_scale, exponent = np.linalg.pinv(design) @ logs.T
    return Laws(np.zeros(len(costs)), np.exp(log_scale), exponent, float(max(tokens)))


def _with_offset(x: np.ndarray, costs: np.ndarray, largest: float) -> Laws:
    """The best exponent of a grid for each row, then of finer ones around it."""
    tried = [_least_squares(x, costs, np.full(len(costs), e)) for e in EXPONENTS]
    kept = _best(tried)
    step = EXPONENTS[1] / EXPONENTS[0]
    for _ in range(FINER):
        factors = step ** np.linspace(-1, 1, 5)
        kept = _best([_least_squares(x, costs, kept[2] * f) for f in factors])
        step = step**0.5
    return Laws(kept[0], kept[1], kept[2], largest)


def _best(tried: Sequence[np.ndarray]) -> np.ndarray:
    """For each row the one that leaves least: `[4, draw]` of many."""
    table = np.stack(tried)
    first: np.ndarray = table[:, 3].argmin(axis=0)
    return np.asarray(table[first, :, np.arange(table.shape[2])].T)


def _least_squares(x: np.ndarray, costs: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """(offset, scale, exponent, squares left) `[4, draw]` for exponents `[draw]`; offset and scale >= 0."""
    shape = x[None] ** -exponents[:, None]
    level, mean = shape.mean(axis=1, keepdims=True), costs.mean(axis=1)
    off = shape - level
    scale = (costs * off).sum(axis=1) / (off**2).sum(axis=1)
    offset = mean - scale * level[:, 0]
    alone = (costs * shape).sum(axis=1) / (shape**2).sum(axis=1)
    scale, offset = np.where(offset < 0, alone, scale), np.maximum(offset, 0.0)
    offset, scale = np.where(scale < 0, mean, offset), np.maximum(scale, 0.0)
    left = ((costs - offset[:, None] - scale[:, None] * shape) ** 2).sum(axis=1)
    return np.stack([offset, scale, exponents, left])
