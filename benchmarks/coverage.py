"""How often 95 % intervals hold the truth with few seeds, and what looking after every seed costs.

First: an estimate's variance has a part from `seeds` seeds and a part from 400 items; `share` is the seeds' part of it.
Satterthwaite's degrees of freedom beside the weighted t values that codestage uses (analyse/effects.py).

Second: the bootstrap that resamples seeds as well as items, beside codestage's, which draws seeds' weights
(analyse/bootstrap.py), where differences vary from seed to seed much more than from item to item, alike, or not at all.

Moderation: families of tests whose seeds' variances are drawn together (analyse/effects.py), beside each on its own seeds and
Smyth's method as if tests were independent: wrong at 5 %, families with a false finding by Bonferroni, mean width of the 95 % intervals.

Then: seeds are added until the interval of one of three contrasts excludes zero (analyse/sequential.py), to 12 at most. False findings
of that and of a t test that is looked at as often; seeds until an effect is found, by its size in standard deviations
of one seed's difference; and the width of the interval by g, the variance of the effects expected.

Last: how often mean, variance and quartiles over tasks are found by swapping two sides' tasks (analyse/over_tasks.py), without
an effect, with trainings that are lucky on all tasks at once, and where higher tasks gain more.

    python benchmarks/coverage.py
"""

import json
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from codestage.analyse.bootstrap import Resamples
from codestage.analyse.effects import moderated, moderation, task_parts
from codestage.analyse.over_tasks import STATISTICS, swapped, swaps
from codestage.analyse.sequential import SEEDS_SHARE, half_width

DRAWS, ITEMS, STUDIES, PAIRS = 40_000, 400, 400, 2_000
CONTRASTS, MOST = 3, 12
"""Contrasts that share the error rate, and seeds at most, as in a study of two stages."""


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


def resampled(
    rng: np.random.Generator, seeds: int, seed_sd: float, item_sd: float
) -> tuple[float, float]:
    """(resampling both, codestage's bootstrap): share of 400 studies of 200 items whose interval holds the truth."""
    held = np.zeros(2)
    drawn = Resamples(seeds)
    for _ in range(STUDIES):
        d = rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, item_sd, (1, 200))
        d = d + rng.normal(0, item_sd, (seeds, 200))
        weights = rng.multinomial(200, np.full(200, 1 / 200), 500) / 200
        both = np.take_along_axis(weights @ d.T, rng.integers(0, seeds, (500, seeds)), axis=1).mean(
            axis=1
        )
        part = task_parts(d[None])
        ours = (
            d.mean() + drawn.from_seeds(part.by_seed) + drawn.from_items(0, d[None], part.item_variance)
        )
        for i, draws in enumerate((both, ours[0])):
            low, high = np.quantile(draws, [0.025, 0.975])
            held[i] += low <= 0 <= high
    return float(held[0] / STUDIES), float(held[1] / STUDIES)


def families(
    rng: np.random.Generator, kind: str, tests: int, seeds: int, studies: int = 1_000
) -> dict[str, tuple[float, float, float]]:
    """(wrong, families with a false finding, width against a test's own seeds) by method; no effect is there."""
    found: dict[str, list[tuple[float, bool, float]]] = {}
    for _ in range(studies):
        d = rng.normal(size=(tests, seeds))
        if kind == "one base":
            d -= rng.normal(size=seeds)
        elif kind == "unlike":
            d *= np.sqrt(4 / rng.chisquare(4, (tests, 1)))
        elif kind == "lucky runs":
            d += 3 * rng.normal(size=seeds)
        own = d.var(axis=1, ddof=1), np.full(tests, seeds - 1.0)
        for name, (variance, df) in (
            ("alone", own),
            ("as if independent", smyth(*own)),
            ("codestage", moderated(task_parts(d[..., None]), moderation(d))),
        ):
            p = 2 * stats.t.sf(np.abs(d.mean(axis=1)) / np.sqrt(variance / seeds), df)
            width = float(np.mean(stats.t.isf(0.025, df) * np.sqrt(variance)))
            found.setdefault(name, []).append((float((p < 0.05).mean()), p.min() < 0.05 / tests, width))
    means = {name: np.mean(rows, axis=0).tolist() for name, rows in found.items()}
    return {name: (a, b, w / means["alone"][2]) for name, (a, b, w) in means.items()}


def smyth(variance: np.ndarray, df: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(variances, degrees of freedom) by Smyth 2004, section 6.2, as its tests were independent."""
    e = np.log(variance) - special.digamma(df / 2) + np.log(df / 2)
    spread = float(e.var(ddof=1) - special.polygamma(1, df[0] / 2))
    if spread <= 0:
        return np.full_like(variance, np.exp(e.mean())), np.full_like(df, 1e6)
    half = optimize.brentq(lambda x: special.polygamma(1, x) - spread, 1e-6, 1e8)
    size = np.exp(e.mean() + special.digamma(half) - np.log(half))
    return (2 * half * size + df * variance) / (2 * half + df), df + 2 * half


def moderation_rows(rng: np.random.Generator) -> dict[str, dict[str, tuple[float, float, float]]]:
    """By kind of family, its tests and seeds; printed as it comes."""
    found = {}
    for kind in ("independent", "unlike", "one base", "lucky runs"):
        for tests in (8, 16, 48):
            for seeds in (3, 5):
                row = found[f"{kind}, {tests} tests, {seeds} seeds"] = families(rng, kind, tests, seeds)
                told = (f"{n} {a:.1%}, {b:.1%}, {w:.2f}" for n, (a, b, w) in row.items())
                print(f"{kind}, {tests} tests, {seeds} seeds: {'; '.join(told)}")
    return found


def looked_at(rng: np.random.Generator, effect: float, most: int, draws: int = 20_000) -> np.ndarray:
    """t after each number of seeds from 2 on `[draw, look]`, of effects in standard deviations."""
    count = np.arange(1, most + 1)
    x = rng.normal(effect, 1.0, (draws, most))
    means = x.cumsum(axis=1) / count
    sd = np.sqrt(((x**2).cumsum(axis=1) - count * means**2)[:, 1:] / (count[1:] - 1))
    return means[:, 1:] / sd * np.sqrt(count[1:])


def sequential(rng: np.random.Generator) -> dict[str, object]:
    """False findings, seeds needed, widths; printed as they come."""
    alpha = SEEDS_SHARE * 0.05 / CONTRASTS
    errors = {}
    for most in (5, 12, 30):
        t, counts = looked_at(rng, 0.0, most), np.arange(2, most + 1)
        reach = np.array([half_width(n, 0.05) * n**0.5 for n in counts])
        fixed = (2 * stats.t.sf(np.abs(t), counts - 1)).min(axis=1) < 0.05
        ours = (np.abs(t) > reach).any(axis=1)
        errors[str(most)] = {"t_test": float(fixed.mean()), "always_valid": float(ours.mean())}
        print(
            f"up to {most:2} seeds: false findings t test {fixed.mean():.1%}, always valid {ours.mean():.1%}"
        )
    found = {}
    for effect in (1, 1.5, 2, 3, 5, 8):
        t, counts = looked_at(rng, effect, MOST), np.arange(2, MOST + 1)
        beyond = np.abs(t) > [half_width(n, alpha) * n**0.5 for n in counts]
        first = np.where(beyond.any(axis=1), counts[beyond.argmax(axis=1)], MOST)
        by_six, in_all = beyond[:, :5].any(axis=1).mean(), beyond.any(axis=1).mean()
        found[str(effect)] = {
            "seeds": float(first.mean()),
            "by_6": float(by_six),
            "by_12": float(in_all),
        }
        print(
            f"effect {effect:3} sd: {first.mean():4.1f} seeds; found by 6: {by_six:.0%}, by 12: {in_all:.0%}"
        )
    widths = {}
    for g in (1, 4, 9, 25, 100):
        row = [round(half_width(n, alpha, g), 2) for n in (4, 5, 6, 8, 12)]
        widths[str(g)] = [None if w == float("inf") else w for w in row]
        print(f"g {g:3}: half-width with 4, 5, 6, 8, 12 seeds: {', '.join(map(str, row))} sd")
    return {"errors": errors, "found": found, "widths": widths}


def found_over_tasks(
    rng: np.random.Generator, tasks: int, lucky: float, stretch: float
) -> dict[str, float]:
    """Share of 2,000 studies of three seeds with p below 0.05, by statistic. In points: tasks differ by 8, a run adds 3
    to each task by itself and `lucky` to all; `stretch` is how much a task gains for each point it lies higher."""
    hard = rng.normal(0, 8, (PAIRS, 1, 1, tasks))
    scores = hard + rng.normal(0, lucky, (PAIRS, 2, 3, 1)) + rng.normal(0, 3, (PAIRS, 2, 3, tasks))
    scores[:, 0] += stretch * hard[:, 0]
    plus, minus = np.moveaxis(scores.mean(axis=2), 1, 0)
    p = swapped(plus, minus, swaps([str(task) for task in range(tasks)]))
    return dict(zip(STATISTICS, (p < 0.05).mean(axis=0).tolist(), strict=True))


def over_tasks(rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """By what holds in the studies; printed as it comes."""
    found = {}
    for told, lucky, stretch, sizes in (
        ("no effect", 0.0, 0.0, (9, 12)),
        ("no effect, lucky runs", 3.0, 0.0, (9, 12)),
        ("higher tasks gain", 0.0, 0.4, (12, 32)),
    ):
        for tasks in sizes:
            row = found[f"{told}, {tasks} tasks"] = found_over_tasks(rng, tasks, lucky, stretch)
            print(f"{told}, {tasks} tasks: " + ", ".join(f"{k} {v:.1%}" for k, v in row.items()))
    return found


def main() -> None:
    rng = np.random.default_rng(0)
    result: dict[str, Any] = {}
    for seeds in (2, 3, 5, 10):
        rows = [coverage(rng, seeds, share) for share in (0, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1)]
        ends = [(min(column), max(column)) for column in zip(*rows, strict=True)]
        result[str(seeds)] = {"satterthwaite": ends[0], "weighted_t": ends[1]}
        told = "; ".join(
            f"{n} {lo:.1%} to {hi:.1%}"
            for n, (lo, hi) in zip(("Satterthwaite", "weighted t"), ends, strict=True)
        )
        print(f"{seeds:2} seeds: {told}")
    result["bootstrap"] = {}
    for seeds in (3, 5, 10):
        for told, seed_sd, item_sd in (
            ("much more", 0.05, 0.05),
            ("alike", 0.03, 0.3),
            ("not", 0.0, 0.3),
        ):
            both, ours = resampled(rng, seeds, seed_sd, item_sd)
            result["bootstrap"][f"{seeds} seeds, {told}"] = {"resampling_both": both, "codestage": ours}
            print(
                f"{seeds:2} seeds, seeds vary {told}: resampling both {both:.1%}, codestage {ours:.1%}"
            )
    result["moderation"] = moderation_rows(rng)
    result["sequential"] = sequential(rng)
    result["over_tasks"] = over_tasks(rng)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
