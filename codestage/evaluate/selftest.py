"""Does a task's metric earn its place? Models that know nothing or everything are put to it.

No language model takes part: the answers are made up, and scored as a model's answers would be.
"""

import math
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from scipy.stats import binomtest, chisquare

from codestage.data import instruct
from codestage.evaluate.answers import Answer, Ask, rows
from codestage.evaluate.items import Item
from codestage.evaluate.run import make_asks
from codestage.evaluate.tasks import Task
from codestage.study.seeds import child

CONFIDENCE = 0.9999  # of an interval: some hundred checks are made, and none should fail by luck
BYTE_NATS = math.log(256)  # of a byte that could be any
SURE, OUT = -1e-9, -30.0  # nats of what a model takes for certain, and for ruled out


@dataclass(frozen=True)
class Check:
    """One property of one task, and what was found."""

    task: str
    name: str
    passed: bool
    detail: str


def selftest(task: Task, *, seed: int = 0, n: int = 300) -> list[Check]:
    """All checks of a task on `n` items. A task that fails one does not measure what it says.

    oracle: who knows the answers scores 100. shuffled: another item's answers score chance.
    empty: who prefers nothing (every byte equally likely, nothing written) scores chance or 0.
    constant: no single answer beats chance. balance: the right choice stands in every place
    equally often. order: another order of the choices changes no score. apart: no choice is the
    beginning of another, which would never be rated below it.
    """
    asks = make_asks([task], cot=task.cot, seed=seed, n_items=n)
    pick = random.Random(child(seed, "selftest", task.name))
    checks = [
        check
        for mode in task.cot
        for part in [[ask for ask in asks if ask.cot == mode]]
        for check in (_oracle(part), _shuffled(part, pick), _empty(part), _order(part, pick))
    ]
    items = [ask.item for ask in asks if ask.cot == task.cot[0]]
    return [*checks, _constant(task, items), _balance(task, items), _apart(task, items)]


def means(asks: Iterable[Ask], answers: Iterable[Answer]) -> dict[str, float]:
    """Mean of each metric over the items where it is known."""
    values: dict[str, list[float]] = {}
    for ask, answer in zip(asks, answers, strict=True):
        for row in rows(ask, answer):
            if row["value"] is not None:
                values.setdefault(row["metric"], []).append(row["value"])
    return {metric: statistics.fmean(found) for metric, found in values.items()}


def certain(ask: Ask, item: Item) -> Answer:
    """What a model says that takes the answer of `item` to be the answer of `ask`."""
    text = None
    if ask.generates:
        reasons = ask.cot == "generated"
        text = instruct.response(
            item.answer, rationale=(item.rationale or "…") if reasons else None
        )
    nats = None
    if item.gold is not None:
        nats = tuple(SURE if k == item.gold else OUT for k in range(len(ask.item.choices)))
    return Answer(
        choice_nats=nats, gold_nats=SURE if item.answer == ask.item.answer else OUT, output=text
    )


def indifferent(ask: Ask) -> Answer:
    """What a model says that holds every byte for equally likely and writes nothing."""
    nats = [-len(c.encode()) * BYTE_NATS for c in ask.item.choices or (ask.item.answer,)]
    gold = ask.item.gold
    return Answer(
        choice_nats=None if gold is None else tuple(nats),
        gold_nats=nats[gold or 0],
        output="" if ask.generates else None,
    )


def _oracle(asks: Sequence[Ask]) -> Check:
    found = means(asks, [certain(ask, ask.item) for ask in asks])
    wanted = {m: 0.0 if m == "bpb" else 1.0 for m in found}
    passed = all(abs(found[m] - wanted[m]) < 1e-6 for m in found) and bool(found)
    return _check(asks, "oracle", passed, f"scores {_shown(found)}")


def _shuffled(asks: Sequence[Ask], pick: random.Random) -> Check:
    """Answers dealt to the wrong items: two-sided for choices; open answers only rarely agree."""
    order = list(range(len(asks)))
    pick.shuffle(order)
    answers = [certain(ask, asks[k].item) for ask, k in zip(asks, order, strict=True)]
    return _at_chance(asks, "shuffled", means(asks, answers))


def _empty(asks: Sequence[Ask]) -> Check:
    found = means(asks, [indifferent(ask) for ask in asks])
    if not asks[0].generates:
        return _at_chance(asks, "empty", found)
    scored = {m: found[m] for m in ("exact_match", "format") if m in found}
    return _check(asks, "empty", not any(scored.values()), f"scores {_shown(found)}")


def _at_chance(asks: Sequence[Ask], name: str, found: dict[str, float]) -> Check:
    """Accuracy compatible with chance. Written answers may lie below: their chance is that of the
    commonest answer, and answers dealt at random agree less often."""
    task, n = asks[0].task, len(asks)
    hits = found[task.metrics[0]]
    low, high = binomtest(round(hits * n), n).proportion_ci(CONFIDENCE, method="exact")
    passed = low <= task.chance and (high >= task.chance or task.output_type == "generate_until")
    detail = f"{task.metrics[0]} {hits:.3f} [{low:.3f}, {high:.3f}], chance {task.chance:.3f}"
    return _check(asks, name, passed, detail)


def _order(asks: Sequence[Ask], pick: random.Random) -> Check:
    """Choices in another order, rated the same one by one: no metric moves."""
    if asks[0].task.choices is None:
        return _check(asks, "order", True, "no choices")
    before, after, moved = [], [], []
    for ask in asks:
        nats = tuple(-pick.random() * 10 for _ in ask.item.choices)
        order = pick.sample(range(len(nats)), len(nats))
        gold = order.index(ask.item.gold or 0)
        item = replace(ask.item, choices=tuple(ask.item.choices[k] for k in order), gold=gold)
        text = certain(ask, ask.item).output
        moved.append(replace(ask, item=item))
        before.append(Answer(nats, nats[ask.item.gold or 0], text))
        after.append(Answer(tuple(nats[k] for k in order), nats[order[gold]], text))
    first, second = means(asks, before), means(moved, after)
    passed = all(abs(first[m] - second[m]) < 1e-9 for m in first)
    return _check(asks, "order", passed, f"{_shown(first)}; permuted {_shown(second)}")


def _constant(task: Task, items: Sequence[Item]) -> Check:
    """The commonest answer's share, against chance: else a model scores by saying it always."""
    answer, hits = Counter(item.answer for item in items).most_common(1)[0]
    low = binomtest(hits, len(items)).proportion_ci(CONFIDENCE, method="exact").low
    detail = f"{answer!r} is right in {hits / len(items):.3f}, chance {task.chance:.3f}"
    return Check(task.name, "constant", bool(low <= task.chance), detail)


def _balance(task: Task, items: Sequence[Item]) -> Check:
    """Places of the right choice, against equal shares (chi-squared, by number of choices)."""
    p_values = []
    for size in sorted({len(item.choices) for item in items} - {0}):
        places = Counter(item.gold for item in items if len(item.choices) == size)
        p_values.append(float(chisquare([places[k] for k in range(size)]).pvalue))
    lowest = min(p_values, default=1.0)
    return Check(task.name, "balance", lowest > 1 - CONFIDENCE, f"lowest p {lowest:.4f}")


def _apart(task: Task, items: Sequence[Item]) -> Check:
    """Choices that begin one another, at any item."""
    found = [(a, b) for item in items for a in item.choices for b in item.choices if _begins(a, b)]
    return Check(task.name, "apart", not found, f"{found[0]}" if found else "")


def _begins(a: str, b: str) -> bool:
    return a != b and b.startswith(a)


def _check(asks: Sequence[Ask], name: str, passed: bool, detail: str) -> Check:
    return Check(asks[0].task.name, f"{name}, cot {asks[0].cot}", passed, detail)


def _shown(scores: dict[str, float]) -> str:
    return ", ".join(f"{metric} {value:.3f}" for metric, value in scores.items())
