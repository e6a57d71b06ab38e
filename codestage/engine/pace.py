"""How long what is left of a study takes, and how sure that is: from the steps that are finished.

Of each kind of step, seconds are taken to grow with its cost; how far finished steps are from that says how
far the others will be.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

IN_TOKENS = ("train", "evaluate")
"""Kinds of steps whose cost is counted in tokens; of the others each counts as one."""
COVERED = 0.90
"""How often the range of the time left is to hold it."""


@dataclass
class Timed:
    """The steps of one kind: those finished while somebody watched, as sums, and what is left of the others."""

    finished: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    paces: float = 0.0
    """Sum of seconds a unit of cost over the finished steps; `squares` of its square."""
    squares: float = 0.0
    left: float = 0.0
    """Cost of what is not done."""
    steps_left: int = 0

    def add(self, cost: float, seconds: float) -> None:
        """A step is finished."""
        self.finished += 1
        self.cost += cost
        self.seconds += seconds
        self.paces += seconds / cost
        self.squares += (seconds / cost) ** 2

    @property
    def rate(self) -> float | None:
        """Seconds a unit of cost: a ratio of sums, so that long steps count for more."""
        return self.seconds / self.cost if self.cost else None

    @property
    def relative_variance(self) -> float | None:
        """Of the time left, in squares of itself; None with fewer than two finished.

        `s² (1/n + 1/m)`, s the standard deviation of `seconds / (rate × cost)`, n steps finished, m left: the
        rate is known from n, and the m will each be off by as much as these were.
        """
        n, rate = self.finished, self.rate
        if n < 2 or not rate or not self.steps_left:
            return None
        off = max(0.0, self.squares / rate**2 - 2 * self.paces / rate + n)  # sum of (pace / rate - 1)²
        return off / (n - 1) * (1 / n + 1 / self.steps_left)


@dataclass(frozen=True)
class Left:
    """Seconds left; `low` and `high` hold them `COVERED` of the time, None where that is not known."""

    seconds: float
    low: float | None
    high: float | None

    @property
    def range(self) -> list[int] | None:
        """`[low, high]` in whole seconds."""
        return None if self.low is None or self.high is None else [round(self.low), round(self.high)]


def time_left(kinds: Mapping[str, Timed], *, at_once: float) -> Left | None:
    """The time left where `at_once` steps are worked on at a time; None as long as nothing is finished.

    A kind of which nothing is finished is taken to go at the rate of the others whose cost is counted alike, and
    then there is no range; if nothing of those is finished either, the time is not known.
    The chain of steps that wait for each other is not looked at: it can make the end come later.
    """
    todo = {name: timed for name, timed in kinds.items() if timed.steps_left}
    rates = {name: _rate(name, kinds) for name in todo}
    if not any(timed.cost for timed in kinds.values()) or None in rates.values():
        return None
    each = [timed.left * (rates[name] or 0.0) for name, timed in todo.items()]
    several = max(1.0, min(at_once, sum(t.steps_left for t in todo.values())))
    seconds = sum(each) / several
    spread = [t.relative_variance for t in todo.values()]
    if None in spread or not todo:
        return Left(seconds, None, None)
    from scipy.special import stdtrit

    variance = sum(x * x * v for x, v in zip(each, spread, strict=True) if v is not None)
    freedom = min(t.finished for t in todo.values()) - 1
    half = float(stdtrit(freedom, (1 + COVERED) / 2)) * math.sqrt(variance) / several
    return Left(seconds, max(0.0, seconds - half), seconds + half)


def _rate(name: str, kinds: Mapping[str, Timed]) -> float | None:
    """Seconds a unit of cost of a kind of steps, or of all kinds whose cost is counted as its is."""
    if kinds[name].rate is not None:
        return kinds[name].rate
    alike = [t for other, t in kinds.items() if (other in IN_TOKENS) == (name in IN_TOKENS)]
    cost = sum(t.cost for t in alike)
    return sum(t.seconds for t in alike) / cost if cost else None
