"""Tests of the very runs that were made, item by item: did these models answer these questions differently?

They do not ask whether another training would show it again: that is what the seeds are for (`effects`). With one seed
and one arm on each side this is McNemar's exact test (McNemar 1947); else the signs of the items' paired differences
are flipped, as they might have fallen if it made no difference which side is which.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from scipy import special

FLIPS = 9_999
"""Random sign flips; the smallest p is one in ten thousand."""
MOST_KEPT = 1000
"""Items of a task whose flips are kept: 40 MB."""


def flips(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(gained, lost) `[...]`: how often an item of D `[..., seed, item]` was answered better, and worse."""
    return (d > 0).sum(axis=(-2, -1)), (d < 0).sum(axis=(-2, -1))


def item_p(d: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Two-sided p `[contrast]` of D `[contrast, seed, item]`, by items; unknown items are left out.

    Exact where an item can only be won, lost or tied; else by `FLIPS` random sign flips, the same for all contrasts.
    """
    known = ~np.isnan(d).any(axis=1)
    means = np.where(known, d.mean(axis=1), 0.0)
    p = _binomial(means)
    rest = ~(np.isin(means, (-1.0, 0.0, 1.0)).all(axis=1))
    if rest.any():
        p[rest] = _flipped(means[rest], seed)
    return np.where(known.any(axis=1), p, np.nan)


def _binomial(means: np.ndarray) -> np.ndarray:
    """McNemar's exact test of differences of -1, 0 and 1 `[contrast, item]`."""
    won, lost = (means > 0).sum(axis=1), (means < 0).sum(axis=1)
    fewer, all_ = np.minimum(won, lost), won + lost
    return np.minimum(1.0, 2 * special.bdtr(fewer, np.maximum(all_, 1), 0.5)) * (all_ > 0) + (all_ == 0)


def _flipped(means: np.ndarray, seed: int) -> np.ndarray:
    """Share of sign flips with a sum at least as far from zero (Good 2005; never zero: Phipson and Smyth 2010)."""
    items = means.shape[1]
    observed = np.abs(means.sum(axis=1)) * (1 - 1e-6)
    beyond = np.zeros(len(means))
    for signs in _kept(seed, items) if items <= MOST_KEPT else _signs(seed, items):
        sums = means.astype(np.float32) @ signs.T
        beyond += (np.abs(sums) >= observed[:, None]).sum(axis=1)
    return np.asarray((beyond + 1) / (FLIPS + 1))


def _signs(seed: int, items: int) -> Iterator[np.ndarray]:
    """All flips `[flip, item]` of -1 and 1, float32, some at a time."""
    rng = np.random.default_rng([seed, 2, items])
    for start in range(0, FLIPS, 1111):
        coins = rng.integers(0, 2, (min(1111, FLIPS - start), items), dtype=np.int8)
        yield (2 * coins - 1).astype(np.float32)


@lru_cache(maxsize=2)
def _kept(seed: int, items: int) -> tuple[np.ndarray, ...]:
    """The flips of a task of usual size: it is asked for in every mode, metric and stage."""
    return tuple(_signs(seed, items))
