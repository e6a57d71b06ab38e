"""Whether a contrast is settled, asked after every seed without losing the error rate.

A test of fixed size that is looked at after every seed finds something where there is nothing far more
often than it says. Here the unit is a seed: X[s], a contrast's mean over tasks and items on seed s. Given
the items, these are taken as independent and normal around one mean, with a variance that nobody knows.
The likelihood ratio of "mean / standard deviation is drawn from N(0, g)" against "the mean is mu0", each
averaged over all standard deviations by the right Haar measure, is with n seeds and t of n - 1 degrees of freedom

    E[n] = (1 + n g)^(-1/2) ((1 + t²/(n-1)) / (1 + t²/((n-1)(1 + n g))))^(n/2).

At the true mean it exceeds 1/alpha at any n whatever with probability alpha at most, so that one may look
after every seed and stop when one likes (Lai 1976; Hendriksen, de Heide and Grünwald 2021; Pérez-Ortiz et al. 2024;
Wang and Ramdas 2024). All mu0 at which it does not are the confidence sequence, in closed form.

Seeds do not tell how the choice of items went: it is drawn once, and no seed shrinks what it adds. So the
error rate is split. `SEEDS_SHARE` of it goes to the sequence, the rest to Student's interval of the items' part
(effects.parts); half-widths add up, so the errors do at most (Boole). Contrasts that are asked together share the
rate alike (Bonferroni), because any one of them may be the one that stops first. The interval told is what
all intervals up to now have in common: if each holds the truth at all times, so does that (Howard et al. 2021).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from codestage.analyse.contrasts import Contrast, contrasts
from codestage.analyse.effects import parts
from codestage.analyse.records import Records
from codestage.analyse.scales import six

G = 9.0
"""Variance of the effects expected, in standard deviations of one seed's difference: sizes of about three.
Effects that large are what few seeds can show. With it effects of 3, 5 and 8 standard deviations are found
after 5.8, 4.6 and 4.2 seeds on average (three contrasts, looked at after each); with 5 to 7 seeds no other g gives intervals
narrower by more than 2 % (`benchmarks/coverage.py`)."""
SEEDS_SHARE = 0.8
"""Of the error rate, for seeds: their t has few degrees of freedom, where each part of the rate costs most."""


def e_value(t: float, n: int, g: float = G) -> float:
    """Evidence against the mean that `t` = sqrt(n) (mean - mu0) / sd is measured from; n seeds, n >= 1."""
    if n < 2:
        return 1.0
    a = 1 + n * g
    if math.isinf(t):
        return a ** ((n - 1) / 2)
    u = t * t / (n - 1)
    return math.exp(0.5 * n * (math.log1p(u) - math.log1p(u / a)) - 0.5 * math.log(a))


def half_width(n: int, alpha: float, g: float = G) -> float:
    """Of the confidence sequence, in standard deviations of one seed; infinite where n seeds cannot tell."""
    if n < 2:
        return math.inf
    a = 1 + n * g
    r = (a / alpha**2) ** (1 / n)
    return math.sqrt((n - 1) / n * a * (r - 1) / (a - r)) if r < a else math.inf


def deciding(study: Mapping[str, Any]) -> list[Contrast]:
    """The contrasts that a run until resolved waits for: code at each stage, and interactions."""
    families = {*study["stages"], "interaction"}
    return [c for c in contrasts(study) if c.family in families and c.cot is None]


def sequential(records: Records, *, alpha: float, margin: float) -> dict[str, Any]:
    """Where each deciding contrast stands, over all tasks, in accuracy after the last stage.

    `margin`, in points, is the largest difference that counts as none. A contrast is looked at after each
    of the seeds that all its arms have, in the study's order: records with more seeds tell the same of the
    earlier looks. In points: estimate, low, high (null: not bounded yet). `e` and `p` = 1 / (largest e so far)
    are those of no difference, from seeds alone; `state` (up, down, equivalent, open) is from the interval, which
    holds items too; `settled_after` is the number of seeds at which it was settled first.
    """
    asked = deciding(records.study)
    each = alpha / max(1, len(asked))
    return {
        "alpha": alpha,
        "alpha_seeds": six(each * SEEDS_SHARE),
        "alpha_items": six(each * (1 - SEEDS_SHARE)),
        "g": G,
        "margin": margin,
        "metric": "acc",
        "stage": records.study["stages"][-1],
        "cot": "off",
        "contrasts": [_contrast(records, contrast, each, margin) for contrast in asked],
    }


def _contrast(records: Records, contrast: Contrast, alpha: float, margin: float) -> dict[str, Any]:
    seeds, tasks = _differences(records, contrast)
    looks = intervals(tasks, alpha)
    states = [state_of(look, margin) for look in looks]
    last = looks[-1] if looks else {"estimate": None, "low": None, "high": None, "e": None}
    best = max((look["e"] for look in looks), default=1.0)
    settled = next((i for i, state in enumerate(states) if state != "open"), None)
    return {
        "contrast": contrast.name,
        "label": contrast.label,
        "family": contrast.family,
        "seeds": seeds,
        **{k: last[k] for k in ("estimate", "low", "high", "e")},
        "p": six(min(1.0, 1 / best)),
        "state": states[-1] if states else "open",
        "settled_after": None if settled is None else looks[settled]["seeds"],
        "looks": looks,
    }


def _differences(records: Records, contrast: Contrast) -> tuple[list[int], list[np.ndarray]]:
    """The seeds that all arms of a contrast have on all tasks, and D `[seed, item]` of each task on them."""
    last = records.study["stages"][-1]
    weights = np.array([contrast.weights.get(arm, 0.0) for arm in records.arms])
    used = weights != 0
    tasks = [
        np.tensordot(weights[used], records.scores[last, "off", task, "acc"][used], axes=1)
        for task in records.tasks(last, "off", "acc")
    ]
    if not tasks or not used.any():
        return [], []
    whole = np.all([~np.isnan(d).all(axis=1) for d in tasks], axis=0)
    return [s for s, w in zip(records.seeds, whole, strict=True) if w], [d[whole] for d in tasks]


def intervals(tasks: Sequence[np.ndarray], alpha: float) -> list[dict[str, Any]]:
    """What is known after each number of seeds, from two on; each of `tasks` is D `[seed, item]`, shares.

    One row a look: seeds, estimate, low, high (points), e (of no difference).
    """
    looks: list[dict[str, Any]] = []
    low, high = -math.inf, math.inf
    for n in range(2, (tasks[0].shape[0] if tasks else 0) + 1):
        part = parts([d[:n] for d in tasks], bounded=True)
        estimate = float(part.estimate)
        if math.isnan(estimate):
            break  # some task has no item that is known on all of these seeds
        sd = math.sqrt(float(part.seed_variance))
        item = stats.t.isf(alpha * (1 - SEEDS_SHARE) / 2, part.item_df) * math.sqrt(
            float(part.item_variance)
        )
        seed = half_width(n, alpha * SEEDS_SHARE)
        half = math.inf if math.isinf(seed) else seed * sd + float(item)
        new = max(low, estimate - half), min(high, estimate + half)
        if new[0] <= new[1]:  # else some interval has missed the truth: the last that agreed stays
            low, high = new
        t = 0.0 if estimate == 0 else math.inf if sd == 0 else estimate / sd * math.sqrt(n)
        looks.append(
            {
                "seeds": n,
                "estimate": six(100 * estimate),
                "low": six(100 * low),
                "high": six(100 * high),
                "e": six(e_value(t, n)),
            }
        )
    return looks


def state_of(look: Mapping[str, Any], margin: float) -> str:
    """up or down (zero is excluded), equivalent (within the margin on both sides) or open."""
    low, high = look["low"], look["high"]
    if low is None or high is None:
        return "open"
    if low > 0 or high < 0:
        return "up" if low > 0 else "down"
    return "equivalent" if -margin < low and high < margin else "open"
