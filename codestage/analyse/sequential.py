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
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from codestage.analyse.contrasts import Contrast, contrasts
from codestage.analyse.effects import SMALLEST_P, parts
from codestage.analyse.records import Records
from codestage.analyse.scales import six, snapped

G = 9.0
"""Variance of the effects expected, in standard deviations of one seed's difference: sizes of about three.
Effects that large are what few seeds can show. With it effects of 3, 5 and 8 standard deviations are found
after 5.8, 4.6 and 4.2 seeds on average (three contrasts, looked at after each); with 5 to 7 seeds no other g gives intervals
narrower by more than 2 % (`benchmarks/coverage.py`)."""
SEEDS_SHARE = 0.8
"""Of the error rate, for seeds: their t has few degrees of freedom, where each part of the rate costs most."""


HALVINGS = 50
"""Of the logarithm of p: to its last digits."""


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
    earlier looks. In points: estimate, low, high (null: not bounded yet). `e` is that of no difference,
    from seeds alone; `p` is the smallest rate at which some interval up to now would leave out zero, and `state` (up,
    down, equivalent, open) is from the intervals at this rate: both hold items too; `settled_after` is the number of seeds at which it was settled first.
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
    seen = looked(tasks)
    looks = intervals(seen, alpha)
    states = [state_of(look, margin) for look in looks]
    last = looks[-1] if looks else {"estimate": None, "low": None, "high": None, "e": None}
    settled = next((i for i, state in enumerate(states) if state != "open"), None)
    return {
        "contrast": contrast.name,
        "label": contrast.label,
        "family": contrast.family,
        "seeds": seeds,
        **{k: last[k] for k in ("estimate", "low", "high", "e")},
        "p": six(min((look.p() for look in seen), default=1.0)),
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
        snapped(np.tensordot(weights[used], records.scores[last, "off", task, "acc"][used], axes=1))
        for task in records.tasks(last, "off", "acc")
    ]
    if not tasks or not used.any():
        return [], []
    whole = np.all([~np.isnan(d).all(axis=1) for d in tasks], axis=0)
    return [s for s, w in zip(records.seeds, whole, strict=True) if w], [d[whole] for d in tasks]


@dataclass(frozen=True)
class Look:
    """What some seeds say of a contrast, in shares."""

    seeds: int
    estimate: float
    sd: float
    """Of one seed's mean."""
    item_se: float
    item_df: float

    def half_width(self, alpha: float) -> float:
        """Of the interval: the seeds' part and the items'; infinite where so few seeds cannot tell."""
        of_seeds = half_width(self.seeds, alpha * SEEDS_SHARE)
        of_items = stats.t.isf(alpha * (1 - SEEDS_SHARE) / 2, self.item_df) * self.item_se
        return math.inf if math.isinf(of_seeds) else of_seeds * self.sd + float(of_items)

    def e(self) -> float:
        """Evidence against no difference, from seeds alone."""
        if self.estimate == 0:
            return e_value(0.0, self.seeds)
        t = math.inf if self.sd == 0 else self.estimate / self.sd * math.sqrt(self.seeds)
        return e_value(t, self.seeds)

    def p(self) -> float:
        """The smallest rate at which this look's own interval leaves out zero, by halving its logarithm."""
        lowest, highest = math.log(SMALLEST_P), 0.0
        if abs(self.estimate) <= self.half_width(1.0):
            return 1.0
        for _ in range(HALVINGS):
            middle = (lowest + highest) / 2
            inside = abs(self.estimate) <= self.half_width(math.exp(middle))
            lowest, highest = (middle, highest) if inside else (lowest, middle)
        return math.exp(highest)


def looked(tasks: Sequence[np.ndarray]) -> list[Look]:
    """After each number of seeds, from two on; each of `tasks` is D `[seed, item]`, shares."""
    looks: list[Look] = []
    for n in range(2, (tasks[0].shape[0] if tasks else 0) + 1):
        part = parts([d[:n] for d in tasks], bounded=True)
        if math.isnan(part.estimate):
            break  # some task has no item that is known on all of these seeds
        sd, item_se = (math.sqrt(float(v)) for v in (part.seed_variance, part.item_variance))
        looks.append(Look(n, float(part.estimate), sd, item_se, float(part.item_df)))
    return looks


def intervals(looks: Sequence[Look], alpha: float) -> list[dict[str, Any]]:
    """One row a look: seeds, estimate, low, high (points), e (of no difference)."""
    rows: list[dict[str, Any]] = []
    low, high = -math.inf, math.inf
    for look in looks:
        half = look.half_width(alpha)
        new = max(low, look.estimate - half), min(high, look.estimate + half)
        if new[0] <= new[1]:  # else some interval has missed the truth: the last that agreed stays
            low, high = new
        rows.append(
            {
                "seeds": look.seeds,
                "estimate": six(100 * look.estimate),
                "low": six(100 * low),
                "high": six(100 * high),
                "e": six(look.e()),
            }
        )
    return rows


def state_of(look: Mapping[str, Any], margin: float) -> str:
    """up or down (zero is excluded), equivalent (within the margin on both sides) or open."""
    low, high = look["low"], look["high"]
    if low is None or high is None:
        return "open"
    if low > 0 or high < 0:
        return "up" if low > 0 else "down"
    return "equivalent" if -margin < low and high < margin else "open"
