"""How often the answers on doses, mixtures, budgets and decisions are right, where the truth is known.

A score is taken as point + seed + item + their pairs + run + rest, of 3 seeds and 150 items unless told. Printed: how often a flat
truth is called anything else; how often 95 % intervals hold a known best dose, best share, cost at twice the tokens, and share of pairs
decided alike; the same of arms tuned from few checkpoints, where that is known and where it is not; and what happens where runs differ by
three times as much at the highest dose, which the analysis does not know.

    python benchmarks/small_to_large.py [--studies N]
"""

import argparse
import json

import numpy as np

from codestage.analyse import dose
from codestage.analyse.agreement import decisions_of
from codestage.analyse.bootstrap import Resamples
from codestage.analyse.laws import LAWS, leave_out
from codestage.analyse.meta import welch
from codestage.analyse.power_law import fit
from codestage.analyse.profile import Profile, Profiles, lineage


def profile(
    key: int, truth: np.ndarray, seeds: int = 3, items: int = 150, last: float = 1.0, sd: float = 0.8
) -> Profile:
    """Scores in points around `truth` `[point]`; runs differ by `sd`, those of the last point by `last` times as much."""
    rng, k = np.random.default_rng(key), len(truth)
    run = rng.normal(0, sd, (k, seeds))
    run[-1] *= last
    scores = truth[:, None, None] + run[:, :, None] + rng.normal(0, 30, (1, 1, items))
    scores = scores + rng.normal(0, 1, (1, seeds, 1)) + rng.normal(0, 5, (k, 1, items))
    scores = scores + rng.normal(0, 20, (k, seeds, items))
    found = Profiles({"t": scores}, {"t": 0}, draws=256, seed=key).of(["t"])
    assert found is not None
    return found


def flat(n: int, doses: int, seeds: int, last: float = 1.0) -> float:
    """Share of flat truths for which a dependence is claimed."""
    x, wrong = np.linspace(0, 0.5, doses), 0
    for key in range(n):
        found = dose.fit(x, profile(key, np.zeros(doses), seeds, last=last))
        wrong += found.p < 0.05
    return wrong / n


def best_dose(n: int, doses: int, seeds: int) -> tuple[float, float]:
    """(share of intervals that hold the best dose of 25 %, their mean width in percentage points)."""
    x, held, width = np.linspace(0, 0.5, doses), 0, 0.0
    for key in range(n):
        found = profile(key, 80 * x - 160 * x**2, seeds)
        fitted = dose.fit(x, found)
        best = dose._best(dose._shape(fitted, 0.0), fitted, found)
        assert best is not None
        held += best["low"] <= 0.25 <= best["high"]
        width += 100 * (best["high"] - best["low"])
    return held / n, width / n


def best_share(n: int) -> float:
    """Of five mixtures of two sources, costs a bowl around 25 %; the law chosen by its errors on arms left out."""
    r, at, held = np.array([[0.0], [0.15], [0.3], [0.45], [0.6]]), np.linspace(0, 0.6, 61)[:, None], 0
    for key in range(n):
        found = profile(key, 100 + 150 * (r[:, 0] - 0.25) ** 2)
        costs = found.level + found.estimates
        law = min(LAWS.values(), key=lambda law: leave_out(law, r, costs).rmse)
        weights = np.random.default_rng([key, 1]).standard_exponential((256, 5))
        drawn = law(r, found.level + found.draws.T, weights, at)
        low, high = np.quantile(at[drawn.argmin(axis=1), 0], [0.025, 0.975])
        held += low <= 0.25 <= high
    return held / n


def next_budget(n: int, budgets: int) -> float:
    """Costs of a power law with an offset at 4 budgets (without at 3), runs that branch from one trunk."""
    tokens = 2.0 ** np.arange(budgets)
    offset, held = (1.1 if budgets > 3 else 0.0), 0
    truth = offset + 0.3 * np.append(tokens, 2 * tokens[-1]) ** -0.35
    for key in range(n):
        rng = np.random.default_rng(key)
        by_seed = truth[:-1, None] + rng.normal(0, 0.01, 3) + rng.normal(0, 0.003, (budgets, 3))
        drawn = by_seed.mean(axis=1)[:, None] + Resamples(3, 512, key).from_seeds(by_seed)
        costs = fit(tokens, drawn.T).at(2 * tokens[-1:])[:, 0]
        low, high = np.quantile(costs, [0.025, 0.975])
        held += low <= truth[-1] <= high
    return held / n


def decided(n: int, gap: float) -> float:
    """Six arms `gap` points apart, of which two neighbouring pairs turn between small and large."""
    large, held = np.arange(6) * gap, 0
    small = large[[1, 0, 2, 3, 5, 4]]
    for key in range(n):
        pair = [profile(2 * key + i, truth) for i, truth in enumerate((small, large))]
        found = decisions_of(pair[0], pair[1], slice(0, 6), slice(0, 6))["accuracy"]
        held += found["low"] - 1e-5 <= 13 / 15 <= found["high"] + 1e-5
    return held / n


def differing(n: int, studies: int, seeds: int) -> float:
    """Share of sets of studies with one common effect that are said to differ."""
    wrong, rng = 0, np.random.default_rng(0)
    for _ in range(n):
        x = rng.normal(0, 1, (studies, seeds))
        se = x.std(axis=1, ddof=1) / seeds**0.5
        wrong += welch(x.mean(axis=1), se, np.full(studies, seeds - 1.0)) < 0.05
    return wrong / n


def few_checkpoints(n: int, known: bool) -> dict[str, float]:
    """Twelve arms tuned from four pre-trainings whose luck is thrice that of tunings: differences of 0 held."""
    arms = [
        {"factors": {"pretrain": str(i), "tune": str(j)}, "tokens": {"pretrain": 1, "tune": 1}}
        for i in range(4)
        for j in range(3)
    ]
    levels = lineage(arms, [[i] for i in range(12)]) if known else ()
    held = {"arms of two": 0, "arms of one": 0, "means of two": 0}
    for key in range(n):
        rng = np.random.default_rng(key)
        luck = rng.normal(0, 2, (4, 3)).repeat(3, axis=0) + rng.normal(0, 0.7, (12, 3))
        scores = luck[:, :, None] + rng.normal(0, 10, (12, 3, 60))
        found = Profiles({"t": scores}, {"t": 0}, lineage=levels, draws=512, seed=key).of(["t"])
        assert found is not None
        a, draws = found.draws[:3], found.draws
        gaps = (draws[0] - draws[11], a[0] - a[2], a.mean(axis=0) - draws[9:].mean(axis=0))
        for name, gap in zip(held, gaps, strict=True):
            low, high = np.quantile(gap, [0.025, 0.975])
            held[name] += int(low <= 0 <= high)
    return {name: count / n for name, count in held.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000, help="simulated studies for each number")
    n = parser.parse_args().studies
    rows: dict[str, object] = {}
    for doses, seeds in ((3, 2), (3, 3), (5, 3), (5, 5), (5, 1)):
        rows[f"flat truth called dependent, {doses} doses, {seeds} seeds"] = flat(n, doses, seeds)
    rows["the same, 5 doses, 3 seeds, runs differ thrice as much at the last"] = flat(n, 5, 3, 3.0)
    for doses, seeds in ((3, 3), (5, 2), (5, 3), (5, 5)):
        rows[f"best dose held (and width, points), {doses} doses, {seeds} seeds"] = best_dose(
            n, doses, seeds
        )
    rows["best share held, 5 mixtures"] = best_share(max(1, n // 5))
    for budgets in (3, 4):
        rows[f"cost at twice the tokens held, {budgets} budgets"] = next_budget(max(1, n // 2), budgets)
    for gap in (3.0, 1.0):
        rows[f"decision accuracy held, arms {gap:g} points apart"] = decided(max(1, n // 2), gap)
    for known in (True, False):
        told = "known" if known else "not known"
        rows[f"differences held, four checkpoints tuned thrice, {told}"] = few_checkpoints(n, known)
    for studies, seeds in ((3, 3), (6, 3), (6, 5)):
        rows[f"equal studies said to differ, {studies} of {seeds} seeds"] = differing(n, studies, seeds)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
