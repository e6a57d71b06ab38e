"""Numbers: things to count, and chains of additions and subtractions."""

import random

from codestage.data.worlds.episode import (
    FRUITS,
    NAMES,
    THINGS,
    TOOLS,
    TOYS,
    Episode,
    number_choices,
    with_noise,
)

KINDS = {"fruits": FRUITS, "tools": TOOLS, "toys": TOYS}
PLACES = ("There are {}.", "On the table are {}.", "In the box are {}.", "Somebody left {} here.")


def plural(word: str, count: int) -> str:
    """The word as it stands after the number."""
    ending = "" if count == 1 else "es" if word[-1] in "hx" else "s"
    return word + ending


def counting(rng: random.Random, depth: int, noise: float) -> Episode:
    """How many things of a kind: `depth` + 1 sorts of it, and at times a sort of another kind."""
    kind = rng.choice(tuple(KINDS))
    sorts = rng.sample(KINDS[kind], depth + 1)
    counts = {sort: rng.randint(1, 4) for sort in sorts}
    if sum(counts.values()) < 3:  # see number_choices
        counts[sorts[0]] = 3
    told, of_kind = dict(counts), tuple(sorts)
    if rng.random() < 0.4:
        other = rng.choice([thing for thing in THINGS if thing not in KINDS[kind]])
        told[other] = rng.randint(1, 4)
        told = dict(rng.sample(list(told.items()), len(told)))
    total, steps = 0, []
    for sort, count in told.items():
        if sort in counts:
            total += count
            steps.append(f"With the {plural(sort, count)} that makes {total}.")
    listed = [f"{count} {plural(sort, count)}" for sort, count in told.items()]
    listing = f"{', '.join(listed[:-1])} and {listed[-1]}"
    return Episode(
        skill="counting",
        domain="arithmetic",
        key=f"count {sorted(told.items())}",
        depth=depth,
        story=with_noise(rng, [rng.choice(PLACES).format(listing)], noise),
        question=rng.choice(
            (f"How many {kind} are there?", f"How many {kind} is that?", f"Count the {kind}.")
        ),
        answer=str(total),
        choices=number_choices(rng, total),
        steps=(*steps, f"So the answer is {total}."),
        program=_counting_program(rng, kind, told, of_kind),
    )


def _counting_program(
    rng: random.Random, kind: str, told: dict[str, int], of_kind: tuple[str, ...]
) -> str:
    style = rng.randrange(3)
    chosen = [sort for sort in told if sort in of_kind]
    if style == 0:
        return f"things = {told}\n{kind} = {chosen}\nprint(sum(things[k] for k in {kind}))"
    if style == 1:
        lines = [f"things = {told}", "total = 0", f"for sort in {chosen}:"]
        return "\n".join([*lines, "    total += things[sort]", "print(total)"])
    lines = [f"{sort} = {count}" for sort, count in told.items()]
    return "\n".join([*lines, f"print({' + '.join(chosen)})"])


BEGINS = ("{0} has {1} {2}.", "{0} starts with {1} {2}.", "{0} owns {1} {2}.")
GAINS = ("{0} gets {1} more.", "{0} finds {1} more.", "{0} buys {1}.")
LOSSES = ("{0} loses {1}.", "{0} gives {1} away.", "{0} sells {1}.")


def arithmetic(rng: random.Random, depth: int, noise: float) -> Episode:
    """How many things somebody has after `depth` gains and losses; always 3 to 12."""
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    start, moves = chain(rng, depth)
    story = [rng.choice(BEGINS).format(name, start, plural(thing, start))]
    value, steps = start, []
    for move in moves:
        told = rng.choice(GAINS if move > 0 else LOSSES)
        story.append(told.format(rng.choice((name, name, "Then " + name)), abs(move)))
        sign = "plus" if move > 0 else "minus"
        steps.append(f"{value} {sign} {abs(move)} is {value + move}.")
        value += move
    things = plural(thing, 2)
    return Episode(
        skill="arithmetic",
        domain="arithmetic",
        key=f"sum {name} {thing} {start} {moves}",
        depth=depth,
        story=with_noise(rng, story, noise, [name]),
        question=rng.choice(
            (f"How many {things} does {name} have?", f"How many {things} has {name} now?")
        ),
        answer=str(value),
        choices=number_choices(rng, value),
        steps=tuple(steps),
        program=_sum_program(rng, things, start, moves),
    )


def chain(rng: random.Random, depth: int) -> tuple[int, list[int]]:
    """A start from 3 to 9 and `depth` moves of 1 to 5 up or down that stay between 3 and 12."""
    value = start = rng.randint(3, 9)
    moves = []
    for _ in range(depth):
        moves.append(rng.choice([m for m in STEPS if 3 <= value + m <= 12]))
        value += moves[-1]
    return start, moves


STEPS = (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5)


def _sum_program(rng: random.Random, things: str, start: int, moves: list[int]) -> str:
    style = rng.randrange(3)
    if style == 0:
        lines = [f"{things} = {start}"]
        lines += [f"{things} {'+' if m > 0 else '-'}= {abs(m)}" for m in moves]
        lines += [f"print({things})"]
    elif style == 1:
        lines = [f"{things} = {start}", f"for change in {moves}:", f"    {things} += change"]
        lines += [f"print({things})"]
    else:
        total = " ".join([str(start), *(f"{'+' if m > 0 else '-'} {abs(m)}" for m in moves)])
        lines = [f"{things} = {total}", f"print({things})"]
    return "\n".join(lines)
