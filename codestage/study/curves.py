"""Schedules as curves: from one mixture to another over a stage, cut into phases."""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

Mix = Mapping[str, Fraction]
Pieces = Sequence[tuple[Fraction, Mix]]
"""(share of the stage, mixture), in order."""

GRADUAL: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "linear": lambda t, width: t,
    "cosine": lambda t, width: Fraction(str(round((1 - math.cos(math.pi * t)) / 2, 9))),
    "warm-in": lambda t, width: min(Fraction(1), t / width),
    "u-shape": lambda t, width: abs(2 * t - 1),
}
"""Weight of the `to` mixture at progress t in (0, 1)."""
SUDDEN = ("early-only", "late-only", "cooldown-only")
"""The `to` mixture in the first or the last `width` of the stage alone."""
STEPPED = {
    "ma2024-increase": (Fraction(3, 10), Fraction(3, 10), Fraction(4, 10), Fraction(5, 10)),
    "ma2024-decrease": (Fraction(5, 10), Fraction(4, 10), Fraction(3, 10), Fraction(3, 10)),
}
"""Weight of the `to` mixture in equal phases: text to code 7:3, 7:3, 6:4, 5:5 and back (Ma et al. 2024,
2309.16298); a mixture of 5:3 has the same totals."""
CURVES = (*GRADUAL, *SUDDEN, *STEPPED)


def blend(start: Mix, end: Mix, weight: Fraction) -> dict[str, Fraction]:
    """(1 - weight) of `start` and `weight` of `end`, both taken as shares."""
    names = dict.fromkeys([*start, *end])
    first, last = sum(start.values()), sum(end.values())
    zero = Fraction(0)
    return {
        n: (1 - weight) * start.get(n, zero) / first + weight * end.get(n, zero) / last for n in names
    }


def pieces(curve: str, start: Mix, end: Mix, *, width: Fraction, steps: int) -> Pieces:
    """A curve as phases: `steps` equal ones, each with the mixture at its middle, or its own few."""
    if curve in SUDDEN:
        early = curve == "early-only"
        parts = [(width, blend(start, end, Fraction(1))), (1 - width, blend(start, end, Fraction(0)))]
        return [part for part in (parts if early else parts[::-1]) if part[0]]
    if curve in STEPPED:
        weights = STEPPED[curve]
        return [(Fraction(1, len(weights)), blend(start, end, weight)) for weight in weights]
    shape = GRADUAL[curve]
    middles = (Fraction(2 * i + 1, 2 * steps) for i in range(steps))
    return of_function(lambda t: shape(t, width), start, end, list(middles))


def of_function(
    weight: Callable[[Fraction], Fraction], start: Mix, end: Mix, middles: Sequence[Fraction]
) -> Pieces:
    """Equal phases around `middles`, each with the mixture that `weight` gives there."""
    return [(Fraction(1, len(middles)), blend(start, end, weight(t))) for t in middles]
