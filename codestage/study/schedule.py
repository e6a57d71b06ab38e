"""Mixtures and schedules as exact token counts.

A stage is a sequence of phases; a phase says how many tokens come from each source. Shares are
exact rationals, counts are apportioned by largest remainder, and a stage's total over its sources is
apportioned before its phases, so that schedules with the same totals agree to the token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

Mix = Mapping[str, Fraction]
"""Source name -> weight (non-negative, not all zero); only the ratios matter."""


@dataclass(frozen=True)
class Phase:
    """A stretch of a stage with one mixture. All counts in tokens, padding excluded."""

    tokens: int
    by_source: Mapping[str, int]


def largest_remainder(tokens: int, weights: Mix) -> dict[str, int]:
    """Split `tokens` by `weights`: parts sum exactly, each within one token of its share.

    Ties go to the source that stands first (Hamilton's method).
    """
    total = sum(weights.values())
    ideal = {name: Fraction(tokens) * weight / total for name, weight in weights.items()}
    parts = {name: int(share) for name, share in ideal.items()}
    by_remainder = sorted(ideal, key=lambda name: parts[name] - ideal[name])
    for name in by_remainder[: tokens - sum(parts.values())]:
        parts[name] += 1
    return parts


def phases(tokens: int, mixes: Sequence[tuple[Fraction, Mix]]) -> tuple[Phase, ...]:
    """Phases of a stage of `tokens` tokens; each of `mixes` is (share of the stage, mixture).

    The stage's total is split over its sources first, by largest remainder, so siblings with equal
    shares have equal totals to the token. Each source's total is then split over the phases by rounding
    its cumulative counts: a phase holds its own share within one token of each source.
    """
    length = sum(share for share, _ in mixes)
    names = list(dict.fromkeys(name for _, mix in mixes for name in mix))
    ideal = [
        {n: share / length * mix.get(n, Fraction(0)) / sum(mix.values()) for n in names}
        for share, mix in mixes
    ]
    of_stage = {name: sum((part[name] for part in ideal), Fraction(0)) for name in names}
    totals = largest_remainder(tokens, of_stage)
    parts: list[dict[str, int]] = [{} for _ in mixes]
    for name in names:
        upto, done = Fraction(0), 0
        for i, (_, mix) in enumerate(mixes):
            upto += ideal[i][name]
            count = round(totals[name] * upto / of_stage[name]) if of_stage[name] else 0
            if name in mix:
                parts[i][name] = count - done
            done = count
    return tuple(Phase(sum(part.values()), part) for part in parts)


def trunk_phases(
    tokens: int, trunk: Mix, cooldown: Mix, *, end: int, leave: Sequence[int]
) -> tuple[Phase, ...]:
    """Phases of a stage that is cut where shorter budgets leave it: `trunk` up to token `end`, then
    `cooldown`; `leave` are ascending, none beyond `end`.

    What stands before a cut does not depend on `tokens`, so stages of all budgets agree up to there. Each
    phase holds its shares within one token of each source; the totals are those of `phases`.
    """
    names = list(dict.fromkeys([*trunk, *cooldown]))
    first, last = sum(trunk.values()), sum(cooldown.values())
    zero = Fraction(0)
    early = {n: Fraction(trunk.get(n, zero)) / first for n in names}
    late = {n: Fraction(cooldown.get(n, zero)) / last for n in names}
    totals = largest_remainder(tokens, {n: early[n] * end + late[n] * (tokens - end) for n in names})
    parts: list[dict[str, int]] = []
    done = dict.fromkeys(names, 0)
    for cut in [*dict.fromkeys([*leave, end]), tokens]:
        upto = {n: min(round(early[n] * cut), totals[n]) for n in names}
        if cut >= end:
            upto |= {n: totals[n] for n in names if cut == tokens or not late[n]}
        parts.append({n: upto[n] - done[n] for n in names})
        done = upto
    return tuple(Phase(sum(part.values()), part) for part in parts if any(part.values()))


def shares(mixes: Sequence[tuple[Fraction, Mix]]) -> dict[str, Fraction]:
    """Share of every source in a stage of (share of the stage, mixture), by name; zeros left out."""
    length = sum(share for share, _ in mixes)
    total: dict[str, Fraction] = {}
    for share, mix in mixes:
        weight = sum(mix.values()) * length
        for name, part in mix.items():
            total[name] = total.get(name, Fraction(0)) + share * part / weight
    return {name: total[name] for name in sorted(total) if total[name]}
