"""The same questions by other methods, and of the very runs that were made: does the answer hang on one method?"""

from collections.abc import Sequence
from dataclasses import replace

from codestage.report.answer import WORDS, claim
from codestage.report.document import Cell, Chart, Section, Table
from codestage.report.drawing import BASE, family_colour
from codestage.report.forest import Panel, Row, axis_name, forest
from codestage.report.questions import question
from codestage.report.records import Effect
from codestage.report.text import (
    UNITS,
    capital,
    count,
    interval,
    listed,
    metric_name,
    p_value,
    reach,
    signed,
)
from codestage.report.view import View


def asked(view: View) -> list[Effect]:
    """The effects of the answer: each family's main contrast over all tasks."""
    found = []
    for family in view.families:
        contrast = view.main(family)
        effect = view.effect(contrast, "overall") if contrast else None
        if effect is not None and effect.estimate is not None:
            found.append(effect)
    return found


def model_claims(effect: Effect, alpha: float) -> str | None:
    """What the mixed model alone would say: raised, lowered or open; None where it was not fitted."""
    if effect.mixed is None:
        return None
    estimate, _, _, p = effect.mixed
    if p >= alpha:
        return "open"
    return "raised" if estimate > 0 else "lowered"


def disagreement(view: View) -> list[str]:
    """A sentence for each answer that the mixed model would give otherwise."""
    said = []
    for effect in asked(view):
        other = model_claims(effect, view.records.alpha)
        own = claim(effect)
        if other is None or effect.mixed is None or other == own or (own == "none" and other == "open"):
            continue
        estimate, low, high, p = effect.mixed
        unit = UNITS.get(effect.unit, effect.unit)
        said.append(
            f"A mixed model, which takes runs to differ alike in all arms, gives {signed(estimate, effect.unit)} {unit} "
            f"({interval(low, high, effect.unit)}, p {_equals(p)}) for {question(effect.family)}: by it alone the effect "
            f"would be called {WORDS[other]}. The answer above does not rest on that assumption."
        )
    return said


def _equals(p: float) -> str:
    shown = p_value(p)
    return shown if "<" in shown else f"= {shown}"


def second_opinions(view: View) -> Section | None:
    """Intervals of the answer by three methods, in one chart."""
    effects = [e for e in asked(view) if e.bootstrap is not None or e.mixed is not None]
    if not effects:
        return None
    rows: list[Row] = []
    gaps: list[int] = []
    for effect in effects:
        if rows:
            gaps.append(len(rows))
        colour = family_colour(effect.family, view.families)
        name = capital(question(effect.family))
        rows.append(Row(f"{name}: variance components", effect, colour=colour))
        if effect.bootstrap is not None:
            low, high = effect.bootstrap
            other = replace(effect, low=low, high=high, verdict=_by_bootstrap(effect))
            rows.append(Row("bootstrap", other, colour=colour))
        if effect.mixed is not None:
            estimate, low, high, _ = effect.mixed
            verdict = {"raised": "up", "lowered": "down"}.get(
                model_claims(effect, view.records.alpha) or "", "open"
            )
            other = replace(effect, estimate=estimate, low=low, high=high, verdict=verdict)
            rows.append(Row("mixed model", other, colour=colour))
    differing = disagreement(view)
    said = (
        "The answer's intervals come from variance components of seeds and items. The bootstrap resamples items and draws "
        "seeds' weights, and takes nothing for normal but the few seeds. The mixed model pools how runs differ over all "
        "arms, which makes it sharper, and wrong where arms differ in that. Its p is not corrected for the number of questions."
    )
    title = (
        "Another method would answer otherwise in "
        f"{listed([question(e.family) for e in effects if model_claims(e, view.records.alpha) not in (None, claim(e), _same(e))])}"
        if differing
        else _agreed(effects)
    )
    axis = axis_name(effects[0], metric_name(view.metric), view.records.confidence)
    chart = Chart(
        "opinions",
        title,
        "Filled: this method alone resolves it. Lines part the questions.",
        lambda narrow: forest([Panel("", BASE, rows)], axis=axis, narrow=narrow, gaps=gaps),
        _table(title, effects),
    )
    return Section("opinions", "Second opinions", (said,), points=differing, charts=[chart])


def _by_bootstrap(effect: Effect) -> str:
    """The verdict of the bootstrap's interval alone, which tests no equivalence."""
    low, high = effect.bootstrap or (0.0, 0.0)
    return "up" if low > 0 else "down" if high < 0 else "open"


def _agreed(effects: Sequence[Effect]) -> str:
    """What may be said where the mixed model, where there is one, does not differ."""
    shown = ("up", "down")
    same = all(
        _by_bootstrap(e) == (e.verdict if e.verdict in shown else "open") for e in effects if e.bootstrap
    )
    if not same:
        return "The bootstrap would answer otherwise"
    if all(e.bootstrap and e.mixed for e in effects):
        return "Three methods give the same answer"
    return "Other methods, where they can be asked, give the same answer"


def _same(effect: Effect) -> str:
    """What the mixed model says where equivalence was shown, which it does not test."""
    return "open" if claim(effect) == "none" else claim(effect)


def _table(title: str, effects: Sequence[Effect]) -> Table:
    head = [
        "question",
        "estimate",
        "interval",
        "bootstrap",
        "mixed model",
        "its interval",
        "its p",
        "verdict",
    ]
    rows: list[list[str]] = []
    data: list[list[Cell]] = []
    for e in effects:
        low, high = e.bootstrap or (None, None)
        estimate, least, most, p = e.mixed or (None, None, None, None)
        shown = [interval(e.low, e.high, e.unit), interval(low, high, e.unit), signed(estimate, e.unit)]
        rows.append(
            [
                e.label,
                signed(e.estimate, e.unit),
                *shown,
                interval(least, most, e.unit),
                p_value(p),
                WORDS[claim(e)],
            ]
        )
        spans = [reach(e.low, e.high), reach(low, high)]
        data.append([e.label, e.estimate, *spans, estimate, reach(least, most), p, WORDS[claim(e)]])
    return Table("opinions", title, head, rows, data)


def item_by_item(view: View) -> Section | None:
    """What happened to single items between two arms: gained, lost, and the test of these very runs."""
    found = [
        e
        for e in view.records.effects
        if view.shows(e) and e.level == "task" and e.items is not None and e.items["gained"] is not None
    ]
    if not found:
        return None
    head = ["question", "task", "answers that turned right", "that turned wrong", "difference", "p"]
    rows: list[list[str]] = []
    data: list[list[Cell]] = []
    for e in found:
        assert e.items is not None
        gained, lost, p = e.items["gained"], e.items["lost"], e.items["p"]
        rows.append(
            [e.label, e.name, count(gained), count(lost), signed(e.estimate, e.unit), p_value(p)]
        )
        data.append([e.label, e.name, gained, lost, e.estimate, p])
    sharp = sum(e.items is not None and e.items["p"] is not None and e.items["p"] < 0.05 for e in found)
    said = (
        "Two arms answer the same items. This counts, over all seeds, how many answers turned right and how many turned "
        "wrong, and tests whether these very models differ (McNemar's exact test with one seed, sign flips of items with "
        "several). It does not ask whether another training would show it again, so it resolves more than the effects "
        f"above: {sharp:,} of {len(found):,} have p below 0.05, {0.05 * len(found):.0f} of which chance alone would give. "
        "`codestage view` shows the items themselves."
    )
    table = Table("items", "Item by item, for every pair of arms that is compared", head, rows, data, 2)
    return Section("items", "Item by item", (said.replace("`", ""),), tables=[table])
