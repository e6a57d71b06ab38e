"""How often 95 % intervals hold the truth, when a small part of the variance is known to few seeds.

An estimate's variance has a part from `seeds` seeds and a part from 400 items; `share` is the seeds' part of it.
Satterthwaite's degrees of freedom beside the weighted t values that codestage uses (analyse/effects.py).

    python benchmarks/coverage.py
"""

import json

import numpy as np
from scipy import stats

DRAWS, ITEMS = 40_000, 400


def coverage(rng: np.random.Generator, seeds: int, share: float) -> tuple[float, float]:
    """(Satterthwaite, weighted t): share of draws whose interval holds the truth."""
    df = seeds - 1
    from_seeds = share * rng.chisquare(df, DRAWS) / df
    from_items = (1 - share) * rng.chisquare(ITEMS, DRAWS) / ITEMS
    error, total = np.abs(rng.normal(0, 1, DRAWS)), from_seeds + from_items
    joined = total**2 / (from_seeds**2 / df + from_items**2 / ITEMS)
    one = error < stats.t.ppf(0.975, joined) * np.sqrt(total)
    weighted = from_seeds * stats.t.ppf(0.975, df) + from_items * stats.t.ppf(0.975, ITEMS)
    return float(one.mean()), float((error < weighted / np.sqrt(total)).mean())


def main() -> None:
    rng = np.random.default_rng(0)
    result: dict[str, object] = {}
    for seeds in (2, 3, 5, 10):
        rows = [coverage(rng, seeds, share) for share in (0, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1)]
        ends = [(min(column), max(column)) for column in zip(*rows, strict=True)]
        result[str(seeds)] = {"satterthwaite": ends[0], "weighted_t": ends[1]}
        told = "; ".join(
            f"{n} {lo:.1%} to {hi:.1%}"
            for n, (lo, hi) in zip(("Satterthwaite", "weighted t"), ends, strict=True)
        )
        print(f"{seeds:2} seeds: {told}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
