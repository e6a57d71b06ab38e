"""Estimates, intervals and tests of contrasts, paired over items and seeds.

A contrast's value on seed s and item i is D[s, i] = sum over arms of weight * score, taken as
mu + seed + item + rest. The mean of D is the estimate. Its variance has a part from seeds, estimated
from the seeds' means (which hold the rest too), and a part from items, estimated from the two-way
analysis of variance. Each part has its own degrees of freedom; the critical value is the mean of the
parts' Student t values, weighted by their variances (Cochran 1964). That errs on the cautious side
where Satterthwaite's degrees of freedom do not: with three seeds those intervals held the truth in as
few as 92 % of simulations, these in 95 to 97 %. With few seeds the seeds' variances of many like tests are moderated towards
their common size (Smyth 2004, sections 4 and 6.2), which buys degrees of freedom, by as much as the tests are apart.

All is done for many contrasts at once: D is `[..., seed, item]`, and what comes of it is `[...]`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy import optimize, special, stats

SMALLEST_P = 1e-12
"""Smaller p-values are told as this: no test of a few seeds knows its tails better."""
NEWTON_STEPS = 60
"""At most; about eight do."""
MODERATE_FROM = 8
"""Fewest variances of one kind from which a common size is estimated."""


@dataclass(frozen=True)
class Parts:
    """What tests are made of; every array is `[...]`, NaN where a task has no known item."""

    estimate: np.ndarray
    by_seed: np.ndarray
    """`[..., seed]` means over items and tasks."""
    item_variance: np.ndarray
    """Variance of the estimate that comes from the choice of items."""
    item_df: np.ndarray
    items: np.ndarray

    @property
    def seeds(self) -> int:
        return int(self.by_seed.shape[-1])

    @property
    def seed_variance(self) -> np.ndarray:
        """Variance of a single seed's mean; NaN with one seed."""
        if self.seeds == 1:
            return np.full(self.estimate.shape, np.nan)
        return np.asarray(self.by_seed.var(axis=-1, ddof=1))

    def __getitem__(self, at: object) -> "Parts":
        """Some of the contrasts."""
        return Parts(*(getattr(self, f.name)[at] for f in fields(self)))


def parts(tasks: Sequence[np.ndarray], *, bounded: bool = False) -> Parts:
    """The parts of a mean over tasks; each of `tasks` is D `[..., seed, item]`, NaN = unknown.

    Items unknown on any seed are left out. Where no item differs from any other, nothing has been seen
    of how much they vary, which is not the same as that they do not:
    for `bounded` scores (0 to 1) the variance is then that of the largest share of differing items
    that would show none in so many, one time in twenty (the "rule of three": Hanley and Lippman-Hand 1983).
    """
    return combine([task_parts(d) for d in tasks], bounded=bounded)


def task_parts(d: np.ndarray) -> Parts:
    """The parts of one task's D `[..., seed, item]`."""
    seeds = d.shape[-2]
    known = ~np.isnan(d).any(axis=-2)
    n = known.sum(axis=-1)
    filled = np.where(known[..., None, :], d, 0.0).astype(np.float64, copy=False)
    with np.errstate(invalid="ignore", divide="ignore"):
        by_seed = filled.sum(axis=-1) / n[..., None]
        estimate = by_seed.mean(axis=-1)
        by_item = filled.mean(axis=-2)
        off = np.where(known, by_item - estimate[..., None], 0.0)
        between = seeds * (off**2).sum(axis=-1) / (n - 1)
        if seeds > 1:
            rest = filled - by_item[..., None, :] - (by_seed - estimate[..., None])[..., None]
            rest *= known[..., None, :]
            within = (rest**2).sum(axis=(-2, -1)) / ((seeds - 1) * (n - 1))
            between = np.maximum(0.0, between - within)
        variance = np.where(n > 1, between / seeds / n, np.where(n == 1, 0.0, np.nan))
    return Parts(estimate, by_seed, variance, np.maximum(1.0, n - 1.0), n)


def combine(tasks: Sequence[Parts], *, bounded: bool = False) -> Parts:
    """The parts of a mean over tasks from those of each; see `parts`."""
    k = len(tasks)
    by_seed = np.mean([t.by_seed for t in tasks], axis=0)
    variances = np.stack([t.item_variance / k**2 for t in tasks])
    dfs = np.stack([t.item_df for t in tasks])
    items = np.sum([t.items for t in tasks], axis=0)
    total = variances.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = (variances**2 / dfs).sum(axis=0)
        df = np.where(spread > 0, total**2 / spread, dfs.sum(axis=0))
        if bounded:
            same = (total == 0) & (by_seed.max(axis=-1) == by_seed.min(axis=-1))
            df = np.where(same, dfs.sum(axis=0), df)
            share = (1 - 0.05 ** (1 / items)) / -special.stdtrit(df, 0.025)
            total = np.where(same, share**2, total)
    return Parts(np.asarray(by_seed.mean(axis=-1)), by_seed, total, df, items)


@dataclass(frozen=True)
class Test:
    """Estimates with their variances in parts, each with its degrees of freedom; arrays `[...]`."""

    estimate: np.ndarray
    variances: tuple[tuple[np.ndarray, np.ndarray], ...]
    """(variance of the estimate that comes from here, degrees of freedom)"""
    seeds: int
    items: np.ndarray

    @property
    def se(self) -> np.ndarray:
        return np.asarray(sum(v for v, _ in self.variances) ** 0.5)

    def scaled(self, by: float) -> "Test":
        """The same in a unit of which there are `by` times as many."""
        variances = tuple((by**2 * v, df) for v, df in self.variances)
        return Test(by * self.estimate, variances, self.seeds, self.items)

    def quantile(self, p: float) -> np.ndarray:
        """Standard errors from the estimate: Student's t of the parts, weighted by their variances."""
        total = self.se**2
        weighted = sum(v * -special.stdtrit(df, 1 - p) for v, df in self.variances)
        return np.asarray(np.divide(weighted, total, out=np.zeros_like(total), where=total > 0))

    def interval(self, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Two-sided interval of confidence 1 - alpha."""
        half = self.quantile(1 - alpha / 2) * self.se
        return self.estimate - half, self.estimate + half

    @property
    def p(self) -> np.ndarray:
        """Two-sided p of no difference."""
        return np.minimum(1.0, 2 * self._beyond(np.abs(self.estimate)))

    def p_above(self, value: float) -> np.ndarray:
        """One-sided p of being no larger than `value`."""
        return self._beyond(self.estimate - value)

    def p_equivalent(self, margin: float) -> np.ndarray:
        """p of two one-sided tests (Schuirmann 1987): small = within the margin on both sides."""
        return self._beyond(margin - np.abs(self.estimate))

    def _beyond(self, distance: np.ndarray) -> np.ndarray:
        """The one-sided p at which `distance` is just not reached; at least `SMALLEST_P`."""
        size, se = np.abs(distance).astype(np.float64), self.se
        dfs = [df for _, df in self.variances]
        if len(dfs) == 1:
            with np.errstate(invalid="ignore", divide="ignore"):
                p = np.maximum(SMALLEST_P, special.stdtr(dfs[0], -size / se))
        else:
            p = self._inverted(size)
        p = np.where(se > 0, np.where(size == 0, 0.5, p), np.where(size > 0, 0.0, 1.0))
        p = np.where(np.isnan(se), np.nan, p)
        # Where nothing varies, a distance of none or less is not beyond.
        return np.where(distance < 0, np.where(se > 0, 1 - p, 1.0), p)

    def _inverted(self, size: np.ndarray) -> np.ndarray:
        """p of distances `size` >= 0 where several parts share the variance, by Newton's method in log p.

        The answer lies between the p that each part's own degrees of freedom would give.
        """
        total = self.se**2
        wanted = size / np.where(total > 0, self.se, 1.0)
        shares = [
            (np.where(total > 0, v / np.where(total > 0, total, 1.0), 0.0), df)
            for v, df in self.variances
        ]
        single = np.stack([np.log(np.maximum(special.stdtr(df, -wanted), 1e-300)) for _, df in shares])
        # Newton's method climbs from far below by no more than the degrees of freedom a step: it begins in reach.
        single = np.maximum(single, np.log(SMALLEST_P))
        low, high = single.min(axis=0), single.max(axis=0)
        x = np.sum([share * one for (share, _), one in zip(shares, single, strict=True)], axis=0)
        for _ in range(NEWTON_STEPS):
            p = np.exp(x)
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                quantiles = [-special.stdtrit(df, p) for _, df in shares]
                pairs = list(zip(shares, quantiles, strict=True))
                reached = np.sum([share * t for (share, _), t in pairs], axis=0)
                slope = -np.sum([share * p / _t_density(t, df) for (share, df), t in pairs], axis=0)
                step = np.where(slope < 0, (reached - wanted) / slope, 0.0)
            x = np.clip(x - step, low, high)
            if not (np.abs(step) > 1e-11).any():
                break
        return np.maximum(SMALLEST_P, np.exp(x))

    def detectable(self, alpha: float, power: float = 0.8) -> np.ndarray:
        """Smallest true difference found with `power` at this standard error."""
        return (self.quantile(1 - alpha / 2) + self.quantile(power)) * self.se


def _t_density(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Student's density, as `scipy.stats.t.pdf` but without its checks."""
    log = special.gammaln((df + 1) / 2) - special.gammaln(df / 2) - np.log(df * np.pi) / 2
    return np.asarray(np.exp(log - (df + 1) / 2 * np.log1p(t * t / df)))


@dataclass(frozen=True)
class Prior:
    """What the seeds' variances of like tests have in common."""

    variance: float
    df: float
    """Degrees of freedom that it adds to each test's own; infinite where all variances look like one."""
    most: float
    """Those of all tests together, which no test can exceed."""


def make_test(part: Parts, prior: Prior | None = None) -> Test:
    """The test of `part`; `prior` is what is known of the seeds' variance from others of its kind."""
    items = (part.item_variance, part.item_df)
    if part.seeds == 1:
        return Test(part.estimate, (items,), 1, part.items)
    variance, df = moderated(part, prior)
    return Test(part.estimate, ((variance / part.seeds, df), items), seeds=part.seeds, items=part.items)


def moderated(part: Parts, prior: Prior | None) -> tuple[np.ndarray, np.ndarray]:
    """(variance of one seed's mean, its degrees of freedom), drawn towards `prior` if there is one."""
    variance, df = part.seed_variance, np.full(part.estimate.shape, part.seeds - 1.0)
    if prior is None:
        return variance, df
    if np.isinf(prior.df):
        return np.where(np.isnan(variance), np.nan, prior.variance), np.full_like(df, prior.most)
    drawn = (prior.df * prior.variance + df * variance) / (prior.df + df)
    return drawn, np.minimum(df + prior.df, prior.most)


def alike(part: Parts) -> np.ndarray:
    """Of each test the first one with the same scores `[tests]`: arms that share a checkpoint are one measurement."""
    scores = np.column_stack([part.by_seed, part.item_variance]).round(12)
    _, first, of = np.unique(scores, axis=0, return_index=True, return_inverse=True)
    return np.asarray(first[of.reshape(-1)])


def moderation(by_seed: np.ndarray) -> Prior | None:
    """Common size and degrees of freedom of the seeds' variances of like tests `[test, seed]` (Smyth 2004, 6.2).

    Smyth takes tests for independent. Those that share an arm, or a run's luck, are not: their variances look more
    alike than they are, and all together tell less. So the spread that chance alone gives is smaller by what
    they share, degrees of freedom are those of so many independent tests, and the spread is taken one standard error
    larger than it was found. None where too few differ from zero, where all tell little more than one would, and with
    two seeds, which cannot tell what is shared. How often this errs: `benchmarks/coverage.py`.
    """
    variances = by_seed.var(axis=-1, ddof=1) if by_seed.shape[-1] > 2 else np.zeros(0)
    usable = variances > 0
    if np.count_nonzero(usable) < MODERATE_FROM:
        return None
    shared, df = _shared(by_seed[usable]), by_seed.shape[-1] - 1
    independent = usable.sum() / (1 + (usable.sum() - 1) * shared)
    if independent < 2:
        return None
    e = np.log(variances[usable]) - special.digamma(df / 2) + np.log(df / 2)
    chance = special.polygamma(1, df / 2)  # the variance of e by chance alone; its kurtosis follows
    kurtosis = 3 + special.polygamma(3, df / 2) / chance**2
    error = chance * np.sqrt((kurtosis - 1) / independent)
    spread = float(e.var(ddof=1) / (1 - shared) - chance + error)
    most = float(df * independent)
    if spread <= 0:
        return Prior(float(np.exp(e.mean())), float("inf"), most)
    half = optimize.brentq(lambda x: special.polygamma(1, x) - spread, 1e-6, 1e8)
    size = float(np.exp(e.mean() + special.digamma(half) - np.log(half)))
    return Prior(size, 2 * float(half), most)


def _shared(by_seed: np.ndarray) -> float:
    """Mean squared correlation of tests `[test, seed]` over seeds, which is that of their variances.

    Squares of independent ones average 1 / df, which is taken off.
    """
    k, df = len(by_seed), by_seed.shape[-1] - 1
    off = by_seed - by_seed.mean(axis=-1, keepdims=True)
    off /= np.linalg.norm(off, axis=-1, keepdims=True)
    squares = (np.sum((off.T @ off) ** 2) - k) / (k * (k - 1))
    return float(np.clip((squares * df - 1) / (df - 1), 0.0, 1.0))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Holm 1979), in the order given."""
    p = np.asarray(ps, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(stepped)
    return [float(x) for x in adjusted]


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """p-values adjusted for the rate of false discoveries (Benjamini and Hochberg 1995), in the order given."""
    return [float(x) for x in stats.false_discovery_control(ps)] if len(ps) else []
