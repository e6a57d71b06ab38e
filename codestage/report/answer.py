"""The answer in sentences, made from the effects by rules.

A sentence never claims more than its interval: "raised" needs the verdict and an interval above
zero, "practically no difference" needs the equivalence test, and what is neither is called
unresolved, with what the study would have found.
"""

from codestage.report.document import Sentence
from codestage.report.records import Effect, Records
from codestage.report.text import (
    UNITS,
    capital,
    interval,
    listed,
    metric_name,
    p_value,
    plural,
    signed,
    size,
)
from codestage.report.view import View, continuous_view

PLACES = {
    "pretrain": "at pre-training",
    "continue": "at mid-training",
    "cooldown": "in the cooldown",
    "tune": "at tuning",
}
WORDS = {
    "raised": "raised",
    "lowered": "lowered",
    "none": "practically none",
    "spared": "no harm",
    "open": "not resolved",
    "unknown": "not measured",
}


def claim(effect: Effect | None) -> str:
    """What may be said: raised, lowered, none, spared (harm is ruled out), open, or unknown where a number is missing."""
    if effect is None or effect.estimate is None or effect.low is None or effect.high is None:
        return "unknown"
    if effect.verdict == "up" and effect.low > 0:
        return "raised"
    if effect.verdict == "down" and effect.high < 0:
        return "lowered"
    return {"equivalent": "none", "not_worse": "spared"}.get(effect.verdict, "open")


def place(family: str) -> str:
    return PLACES.get(family, f"at stage {family}")


def numbers(effect: Effect, confidence: str) -> str:
    """`+3.2 points (95 % interval +1.1 to +5.3, adjusted p = 0.004)`."""
    p = p_value(effect.p_adjusted)
    adjusted = "" if effect.p_adjusted is None else f", adjusted p {p if '<' in p else '= ' + p}"
    value = signed(effect.estimate, effect.unit)
    shown = interval(effect.low, effect.high, effect.unit)
    return f"{value} {UNITS.get(effect.unit, effect.unit)} ({confidence} interval {shown}{adjusted})"


def detectable(effect: Effect) -> str:
    if effect.mde is None:
        return "what it could have detected is not known"
    unit = UNITS.get(effect.unit, effect.unit)
    return f"a difference of {size(effect.mde, effect.unit)} {unit} would have been found four times in five"


def largest(effect: Effect) -> str:
    """The largest effect, in either direction, that the interval leaves possible."""
    assert effect.low is not None
    assert effect.high is not None
    unit = UNITS.get(effect.unit, effect.unit)
    return f"{size(max(abs(effect.low), abs(effect.high)), effect.unit)} {unit}"


def unresolved(effect: Effect, confidence: str) -> str:
    """Why nothing is claimed: the interval holds zero, or it doesn't but the adjusted test fails."""
    assert effect.low is not None
    assert effect.high is not None
    if effect.low > 0 or effect.high < 0:
        why = (
            "the interval alone excludes zero, the test corrected for the number of comparisons does not"
        )
    else:
        why = f"no gain above {signed(max(effect.high, 0), effect.unit)} and no loss below "
        why += f"{signed(min(effect.low, 0), effect.unit)} is compatible with the data"
    return f": {numbers(effect, confidence)}; {why}, and {detectable(effect)}."


def stage_sentence(effect: Effect | None, family: str, records: Records) -> Sentence:
    """What code did at one stage."""
    subject, said = f"Code {place(family)}", claim(effect)
    if effect is None or said == "unknown":
        return Sentence("unknown", family, f"{subject} was not measured", ": no estimate exists.")
    metric, confidence = metric_name(effect.metric), records.confidence
    given = numbers(effect, confidence)
    if said in ("raised", "lowered"):
        return Sentence(said, family, f"{subject} {said} {metric}", f" by {_by(effect, confidence)}.")
    if said == "none":
        lead = f"{subject} made practically no difference to {metric}"
        rest = f": {given}; an effect larger than {largest(effect)} is ruled out."
        return Sentence(said, family, lead, rest)
    lead = f"Whether code {place(family)} raises or lowers {metric} is not resolved"
    return Sentence(said, family, lead, unresolved(effect, confidence))


def blind(view: View) -> bool:
    """No task was shown above chance in any arm, and none told arms apart: all answers are guesses, as far as one can see."""
    names = [str(task["name"]) for task in view.records.tasks]
    return bool(names) and all(view.able(n) is False for n in names) and not told_apart(view)


def _guessed(effect: Effect | None, family: str, records: Records) -> Sentence:
    """A difference between guesses is no answer, however narrow its interval."""
    lead = f"What code {place(family)} does cannot be seen in the answers: no task was shown above chance in any arm"
    if effect is None or claim(effect) == "unknown":
        return Sentence("unknown", family, lead, ".")
    given = f"{metric_name(effect.metric)} differs by {numbers(effect, records.confidence)}"
    return Sentence("open", family, lead, f". Between these guesses {given}.")


def _by(effect: Effect, confidence: str) -> str:
    """`3.2 points (95 % interval +1.1 to +5.3, …)`: the verb already tells the direction."""
    return numbers(effect, confidence).lstrip("+−")


def interaction_sentence(effect: Effect, stages: list[str], records: Records) -> Sentence:
    """Whether the effect of code at one stage depends on code at another."""
    said, confidence = claim(effect), records.confidence
    first, second = (place(stages[0]), place(stages[-1])) if len(stages) > 1 else ("", "")
    inner, outer = f"code {second}", f"code {first}"
    if len(stages) < 2:
        inner, outer = "code at one stage", "code at another"
    if said == "unknown":
        lead = f"Whether {inner} works differently after {outer} was not measured"
        return Sentence(said, "interaction", lead, ": no estimate exists.")
    metric = metric_name(effect.metric)
    if said in ("raised", "lowered"):
        more = "more" if said == "raised" else "less"
        lead = f"The two do not simply add up: {inner} did {more} for {metric} after {outer}"
        return Sentence(said, "interaction", lead, f" than without it: {numbers(effect, confidence)}.")
    if said == "none":
        lead = f"The two add up: {inner} did practically the same for {metric} with and without {outer}"
        rest = f": {numbers(effect, confidence)}; an interaction larger than {largest(effect)} is ruled out."
        return Sentence(said, "interaction", lead, rest)
    lead = f"Whether {inner} does more or less for {metric} after {outer} is not resolved"
    return Sentence(said, "interaction", lead, unresolved(effect, confidence))


def answer(view: View) -> list[Sentence]:
    """A sentence for each stage and one for the interaction; three where a study has less."""
    records, sentences = view.records, []
    guesses = blind(view)
    for family in view.stage_families:
        contrast = view.main(family)
        effect = view.effect(contrast, "overall") if contrast else None
        guessed = guesses and claim(effect) not in ("raised", "lowered")
        sentences.append((_guessed if guessed else stage_sentence)(effect, family, records))
    contrast = None if guesses else view.main("interaction")
    crossed = view.effect(contrast, "overall") if contrast else None
    if crossed is not None:
        crossing = crossed.contrast.split("×")
        known = len(crossing) == 2 and set(crossing) <= set(records.stages)
        sentences.append(
            interaction_sentence(crossed, crossing if known else view.stage_families, records)
        )
    for more in () if guesses else (_domains(view), _limits(view)):
        if more is not None and len(sentences) < 3:
            sentences.append(more)
    return sentences


def resolved_names(view: View, family: str, level: str) -> dict[str, list[str]]:
    """Claim -> names of the tasks or domains it is made for, by the family's main contrast."""
    found: dict[str, list[str]] = {}
    contrast = view.main(family)
    for effect in view.effects(family, level):
        if effect.contrast == contrast:
            found.setdefault(claim(effect), []).append(effect.name)
    return found


def told_apart(view: View) -> set[str]:
    """Tasks on which code at some stage made a difference, whether or not an arm was shown above chance."""
    found = [resolved_names(view, family, "task") for family in view.stage_families]
    return {name for by in found for said in ("raised", "lowered") for name in by.get(said, ())}


def _domains(view: View) -> Sentence | None:
    """By domain, for the study's first stage: used where there is no interaction to tell of."""
    family = next(iter(view.stage_families), None)
    found = resolved_names(view, family, "domain") if family else {}
    if not found or family is None:
        return None
    parts = [
        f"{WORDS[said]} in {listed(found[said])}"
        for said in ("raised", "lowered", "none", "spared", "open", "unknown")
        if said in found
    ]
    said = next(iter(found)) if len(found) == 1 else "open"
    rest = f": {metric_name(view.metric)} {listed(parts)}."
    return Sentence(said, family, f"By domain, code {place(family)}", rest)


def _limits(view: View) -> Sentence | None:
    """What the study could have seen, over all tasks."""
    found = [
        effect
        for family in view.stage_families
        for effect in view.effects(family, "overall")
        if effect.mde is not None and effect.contrast == view.main(family)
    ]
    if not found:
        return None
    rest = f": {listed([f'{detectable(e)} for code {place(e.family)}' for e in found])}."
    return Sentence("open", found[0].family, "What the study could see", rest)


def sure(view: View) -> list[str]:
    """How sure the answer is: what carries it, what it cannot see."""
    records = view.records
    points = [_basis(view), *_doses(records)]
    able = {str(task["name"]): view.able(str(task["name"])) for task in records.tasks}
    told = told_apart(view)
    mute = [name for name, known in able.items() if known is False and name not in told]
    if mute:
        points.append(
            f"{plural(len(mute), 'task')} of {len(able)} {'was' if len(mute) == 1 else 'were'} shown above chance in no arm "
            f"and can show neither help nor harm: {listed(mute)}."
        )
    points += _spread(view)
    continuous = continuous_view(view)
    if continuous is not None:
        points.append(_likelihood(continuous))
    return points


def _basis(view: View) -> str:
    records = view.records
    effects = [e for family in view.families for e in view.effects(family, "overall")]
    items = max((e.n_items for e in effects if e.n_items is not None), default=None)
    seeds = max((e.seeds for e in effects if e.seeds is not None), default=len(records.study["seeds"]))
    basis = f"Measured after the last stage ({view.stage}) on {plural(len(records.tasks), 'task')}"
    basis += f", {plural(items, 'item')}" if items is not None else ""
    basis += f" and {plural(seeds, 'seed')}, paired by item and seed."
    if seeds < 2:
        basis += (
            " With one seed the intervals cover the choice of items only: another training of the "
            "same arms could differ by more."
        )
    return basis


def _doses(records: Records) -> list[str]:
    """What code means here: its share of the tokens that each option really drew."""
    domains = records.study.get("domains") or {}
    shares: dict[str, dict[str, float]] = {}
    for run in records.runs:
        if run.get("role") != "grid":
            continue
        for stage in run["stages"]:
            drawn = stage["tokens_realised"]
            code = sum(n for source, n in drawn.items() if domains.get(source) == "code")
            shares.setdefault(stage["name"], {})[stage["option"]] = (
                100 * code / max(1, sum(drawn.values()))
            )
    told = []
    for stage, options in shares.items():
        coded = [f"{option} {share:.1f} %" for option, share in options.items() if share]
        if coded:
            told.append(f"at {stage}, {listed(coded)}")
    if not told:
        return []
    return [f"Code here is a share of each stage's tokens, in place of text: {'; '.join(told)}."]


def _spread(view: View) -> list[str]:
    """How many single tasks say something, for each stage; and what one task could show."""
    points = []
    for family in view.stage_families:
        found = resolved_names(view, family, "task")
        tasks = sum(map(len, found.values()))
        if not tasks:
            continue
        told = [
            f"{WORDS[said]} on {listed(found[said])}" for said in ("raised", "lowered") if said in found
        ]
        rest = tasks - sum(len(found.get(said, ())) for said in ("raised", "lowered"))
        told += [f"no difference shown on {rest} of {plural(tasks, 'task')}"] if rest else []
        points.append(f"Task by task, code {place(family)}: {'; '.join(told)}.")
    sizes = [
        e.mde
        for family in view.stage_families
        for e in view.effects(family, "task")
        if e.mde is not None and e.unit == "points"
    ]
    if sizes:
        points.append(
            f"A single task could show differences from {size(min(sizes))} to {size(max(sizes))} "
            "points on; smaller ones would mostly be missed."
        )
    return points


def _likelihood(view: View) -> str:
    """The continuous score over all tasks, and the domains in which it says something else."""
    told = []
    for family in view.stage_families:
        contrast = view.main(family)
        effect = view.effect(contrast, "overall") if contrast else None
        if effect is not None and claim(effect) != "unknown":
            shown = numbers(effect, view.records.confidence)
            others = [
                f"{WORDS[said]} in {listed(names)}"
                for said, names in resolved_names(view, family, "domain").items()
                if said in ("raised", "lowered") and said != claim(effect)
            ]
            but = f", yet {listed(others)}" if others else ""
            told.append(f"code {place(family)} {WORDS[claim(effect)]}, {shown}{but}")
    better = " (positive: the right answer costs fewer bits)" if view.metric == "bpb" else ""
    return f"In the continuous score, {metric_name(view.metric)}{better}: {'; '.join(told)}."


def headline(view: View) -> str:
    """The title of the first chart: each family with its verdict."""
    if blind(view):
        return "Differences between guesses: no task was shown above chance in any arm"
    parts = []
    for family in view.families:
        contrast = view.main(family)
        effect = view.effect(contrast, "overall") if contrast else None
        who = "interaction" if family == "interaction" else f"code {place(family)}"
        parts.append(f"{who} {WORDS[claim(effect)]}")
    return capital("; ".join(parts))
