"""Effects of several studies taken together: do they differ, by how much, and with what (random effects).

Each effect has a standard error with few degrees of freedom. Whether studies differ at all is therefore tested as
Welch (1951) does for means of unequal variance; Cochran's Q (1954) is told beside it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from codestage.analyse.scales import ALPHA


@dataclass(frozen=True)
class Together:
    """A random-effects meta-analysis of k studies."""

    mean: float
    low: float
    high: float
    """Of the mean effect over studies: Hartung and Knapp (2001), never narrower than without their factor."""
    q: float
    """Cochran's Q."""
    p: float
    """Of no difference between studies (Welch 1951)."""
    i2: float
    """Share of the variance between estimates that is not sampling error (Higgins and Thompson 2002)."""
    tau: float
    """Standard deviation of true effects between studies (Paule and Mandel 1982)."""
    tau_low: float
    tau_high: float
    """By the profile of Q (Viechtbauer 2007)."""


@dataclass(frozen=True)
class Regression:
    """Effects regressed on something about the studies; arrays `[column]`."""

    beta: np.ndarray
    se: np.ndarray
    df: int
    tau: float
    q: float
    """Weighted squares that the columns leave."""


def spread(row: Mapping[str, Any]) -> tuple[float, float] | None:
    """(standard error, degrees of freedom) of an effect, from its interval and its detectable effect.

    Both are multiples of the standard error by the same Student's t: their ratio tells the degrees of freedom. Where
    seeds were added until something was resolved, `low` and `high` are of another kind, and `fixed` holds these.
    """
    low, high = row.get("fixed") or (row.get("low"), row.get("high"))
    numbers = [low, high, row.get("mde")]
    if any(x is None for x in numbers):
        return None
    half, mde = (numbers[1] - numbers[0]) / 2, numbers[2]  # type: ignore[operator]
    if half <= 0:
        return None

    def ratio(log_df: float) -> float:
        df = float(np.exp(log_df))
        top = float(special.stdtrit(df, 1 - ALPHA / 2))
        return (top + float(special.stdtrit(df, 0.8))) / top - mde / half

    lowest, highest = 0.0, float(np.log(1e7))
    if ratio(lowest) >= 0:
        df = 1.0
    elif ratio(highest) <= 0:
        df = 1e7
    else:
        df = float(np.exp(optimize.brentq(ratio, lowest, highest)))
    return half / float(special.stdtrit(df, 1 - ALPHA / 2)), df


def together(y: np.ndarray, se: np.ndarray, df: np.ndarray, alpha: float = 0.05) -> Together:
    """Meta-analysis of effects y `[study]` with standard errors and their degrees of freedom; two or more."""
    k, v = len(y), se**2
    ones = np.ones((k, 1))
    found = regression(y, se, ones)
    q = _q(y, v, ones, 0.0)
    half = float(stats.t.isf(alpha / 2, k - 1) * found.se[0])
    low = _solve(lambda t: _q(y, v, ones, t) - stats.chi2.isf(alpha / 2, k - 1), v, y)
    high = _solve(lambda t: _q(y, v, ones, t) - stats.chi2.ppf(alpha / 2, k - 1), v, y)
    return Together(
        mean=float(found.beta[0]),
        low=float(found.beta[0]) - half,
        high=float(found.beta[0]) + half,
        q=q,
        p=welch(y, se, df),
        i2=max(0.0, 1 - (k - 1) / q) if q > 0 else 0.0,
        tau=found.tau,
        tau_low=low**0.5,
        tau_high=high**0.5,
    )


def welch(y: np.ndarray, se: np.ndarray, df: np.ndarray) -> float:
    """p of equal means with unequal, estimated variances (Welch 1951)."""
    k, w = len(y), 1 / se**2
    total = w.sum()
    mean = float((w * y).sum() / total)
    uncertain = float(((1 - w / total) ** 2 / df).sum())
    f = float((w * (y - mean) ** 2).sum()) / (k - 1)
    f /= 1 + 2 * (k - 2) / (k**2 - 1) * uncertain
    freedom = (k**2 - 1) / (3 * uncertain) if uncertain > 0 else 1e9
    return float(stats.f.sf(f, k - 1, min(freedom, 1e9)))


def regression(y: np.ndarray, se: np.ndarray, x: np.ndarray) -> Regression:
    """Random-effects regression of y `[study]` on x `[study, column]`; more studies than columns.

    tau by Paule and Mandel; standard errors by Knapp and Hartung (2003), their factor at least 1.
    """
    v, (k, columns) = se**2, x.shape
    tau2 = _solve(lambda t: _q(y, v, x, t) - (k - columns), v, y)
    w = 1 / (v + tau2)
    inverse = np.linalg.inv(x.T @ (w[:, None] * x))
    beta = inverse @ x.T @ (w * y)
    q = _q(y, v, x, tau2)
    factor = max(1.0, q / (k - columns))
    return Regression(beta, np.sqrt(np.diag(inverse) * factor), k - columns, tau2**0.5, q)


def _q(y: np.ndarray, v: np.ndarray, x: np.ndarray, tau2: float) -> float:
    """Weighted squares around the regression on x, with weights 1 / (v + tau2)."""
    w = 1 / (v + tau2)
    beta = np.linalg.solve(x.T @ (w[:, None] * x), x.T @ (w * y))
    return float((w * (y - x @ beta) ** 2).sum())


def _solve(short: Callable[[float], float], v: np.ndarray, y: np.ndarray) -> float:
    """The tau² >= 0 at which a falling function of it crosses zero; 0 where it starts below."""
    if short(0.0) <= 0:
        return 0.0
    top = float(v.max() + np.ptp(y) ** 2)
    while short(top) > 0:
        top *= 4
    return float(optimize.brentq(short, 0.0, top, xtol=1e-14 + 1e-10 * top))
