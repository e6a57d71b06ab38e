"""Logic: who holds what, boolean chains, kinship, and orders."""

import random
from itertools import pairwise

from codestage.data.worlds.episode import (
    BOYS,
    GIRLS,
    NAMES,
    THINGS,
    Episode,
    choices_from,
    with_noise,
)

HAS = ("{} has the {}.", "{} holds the {}.", "{} starts with the {}.")
MOVES = (
    "{0} gives the {1} to {2}.",
    "{0} hands the {1} to {2}.",
    "{2} takes the {1} from {0}.",
    "{2} gets the {1} from {0}.",
)
WHO = ("Who has the {} now?", "Who has the {}?", "Who holds the {} at the end?")


def object_tracking(rng: random.Random, depth: int, noise: float) -> Episode:
    """Who holds one of two things after `depth` moves among three people."""
    people = rng.sample(NAMES, 3)
    things = rng.sample(THINGS, 2)
    holder = dict(zip(things, people, strict=False))
    story = [rng.choice(HAS).format(name, thing) for thing, name in holder.items()]
    rng.shuffle(story)
    start, moves, steps = dict(holder), [], []
    for _ in range(depth):
        thing = rng.choice(things)
        taker = rng.choice([name for name in people if name != holder[thing]])
        story.append(rng.choice(MOVES).format(holder[thing], thing, taker))
        holder[thing] = taker
        moves.append((thing, taker))
        steps.append(f"Now {taker} has the {thing}.")
    asked = rng.choice(things)
    return Episode(
        skill="object_tracking",
        domain="logical",
        key=f"hold {sorted(start.items())} {sorted(people)} {moves}",
        depth=depth,
        story=with_noise(rng, story, noise, people),
        question=rng.choice(WHO).format(asked),
        answer=holder[asked],
        choices=choices_from(rng, holder[asked], people, 3),
        steps=(*steps, f"The {asked} is with {holder[asked]}."),
        program=_tracking_program(rng, start, moves, asked),
    )


def _tracking_program(
    rng: random.Random, start: dict[str, str], moves: list[tuple[str, str]], asked: str
) -> str:
    style = rng.randrange(3)
    if style == 0:
        lines = [f"holder = {start}"]
        lines += [f"holder['{thing}'] = '{name}'" for thing, name in moves]
        lines += [f"print(holder['{asked}'])"]
    elif style == 1:
        lines = [f"{thing} = '{name}'" for thing, name in [*start.items(), *moves]]
        lines += [f"print({asked})"]
    else:
        lines = [f"holder = {start}", f"for thing, name in {moves}:"]
        lines += ["    holder[thing] = name", f"print(holder['{asked}'])"]
    return "\n".join(lines)


def boolean(rng: random.Random, depth: int, noise: float) -> Episode:
    """`depth` + 3 truths, some negated, joined by and / or from left to right."""
    terms = [(rng.random() < 0.5, rng.random() < 0.25) for _ in range(depth + 3)]
    operators = [rng.choice(("and", "or")) for _ in terms[1:]]
    said = [("not " if negated else "") + str(truth).lower() for truth, negated in terms]
    value = terms[0][0] ^ terms[0][1]
    told, steps = said[0], [f"It starts with {str(value).lower()}."]
    for operator, word, (truth, negated) in zip(operators, said[1:], terms[1:], strict=True):
        told += f" {operator} {word}"
        value = (value and truth ^ negated) if operator == "and" else (value or truth ^ negated)
        steps.append(f"Then {operator} {word} makes {str(value).lower()}.")
    answer = str(value).lower()
    frame = rng.choice(("Take {}, from left to right.", "From left to right: {}.", "Read {}."))
    return Episode(
        skill="boolean",
        domain="logical",
        key=f"boolean {told}",
        depth=depth,
        story=with_noise(rng, [frame.format(told)], noise),
        question=rng.choice(("What is its value?", "What does it make?", "Is it true or false?")),
        answer=answer,
        choices=choices_from(rng, answer, ("true", "false"), 2),
        steps=tuple(steps),
        program=_boolean_program(rng, operators, [word.title() for word in said]),
    )


def _boolean_program(rng: random.Random, operators: list[str], said: list[str]) -> str:
    terms = [word.replace("Not", "not") for word in said]
    lines = [f"x = {terms[0]}"]
    if rng.random() < 0.5:
        lines += [f"x = x {op} {term}" for op, term in zip(operators, terms[1:], strict=True)]
    else:
        for op, term in zip(operators, terms[1:], strict=True):
            lines += [f"if {'x' if op == 'and' else 'not x'}:", f"    x = {term}"]
    return "\n".join([*lines, "print(str(x).lower())"])


# What the second is to the first, a girl or a boy, by the role of the first.
INVERSE = {
    "parent": ("daughter", "son"),
    "child": ("mother", "father"),
    "sibling": ("sister", "brother"),
}
ROLES = {  # role: what the first person is called, a girl or a boy
    "parent": ("mother", "father"),
    "child": ("daughter", "son"),
    "sibling": ("sister", "brother"),
}
TWO_HOPS = {  # the first is ... of the second, who is ... of the third
    ("parent", "parent"): ("grandmother", "grandfather"),
    ("sibling", "parent"): ("aunt", "uncle"),
    ("child", "sibling"): ("niece", "nephew"),
    ("child", "child"): ("granddaughter", "grandson"),
}
KIN = tuple(word for pair in TWO_HOPS.values() for word in pair)
CLOSE_KIN = tuple(word for pair in ROLES.values() for word in pair)
IS_KIN = ("{0} is the {1} of {2}.", "{2} has a {1}, {0}.", "The {1} of {2} is {0}.")
KIN_QUESTION = ("What is {} to {}?", "How is {} related to {}?", "Who is {} to {}?")


def family(rng: random.Random, depth: int, noise: float) -> Episode:
    """Depth 1: a relation seen from its other end (names tell girls from boys). From depth 2:
    two relations put together, with `depth` - 2 facts about other families between."""
    return _kin_back(rng, noise) if depth == 1 else _kin_over_two(rng, depth, noise)


def _person(rng: random.Random, taken: list[str]) -> tuple[str, int]:
    """A name that is not taken yet, and 0 for a girl's, 1 for a boy's."""
    boy = rng.randrange(2)
    name = rng.choice((GIRLS, BOYS)[boy])
    while name in taken:
        name = rng.choice((GIRLS, BOYS)[boy])
    taken.append(name)
    return name, boy


def _kin_back(rng: random.Random, noise: float) -> Episode:
    people: list[str] = []
    (a, boy_a), (b, boy_b) = _person(rng, people), _person(rng, people)
    role = rng.choice(("parent", "child", "sibling"))
    told, answer = ROLES[role][boy_a], INVERSE[role][boy_b]
    others = [word for word in CLOSE_KIN if word != answer]
    return Episode(
        skill="family",
        domain="logical",
        key=f"kin {a} {told} {b}",
        depth=1,
        story=with_noise(rng, [rng.choice(IS_KIN).format(a, told, b)], noise, people),
        question=rng.choice(KIN_QUESTION).format(b, a),
        answer=answer,
        choices=choices_from(rng, answer, others, 4),
        steps=(f"{b} is a {'boy' if boy_b else 'girl'}.", f"So {b} is the {answer}."),
        program="\n".join(
            [
                f"kin = {{'{a}': '{told}'}}",
                f"boys = {[b] if boy_b else []}",
                f"back = {{'{told}': {INVERSE[role]}}}",
                f"print(back[kin['{a}']]['{b}' in boys])",
            ]
        ),
    )


def _kin_over_two(rng: random.Random, depth: int, noise: float) -> Episode:
    people: list[str] = []
    (a, boy_a), (b, boy_b), (c, _) = (_person(rng, people) for _ in range(3))
    (first, second), kin = rng.choice(tuple(TWO_HOPS.items()))
    one, two, answer = ROLES[first][boy_a], ROLES[second][boy_b], kin[boy_a]
    facts = [(a, one, b), (b, two, c)]
    for _ in range(depth - 2):
        (x, boy_x), (y, _) = _person(rng, people), _person(rng, people)
        facts.append((x, ROLES[rng.choice(("parent", "child", "sibling"))][boy_x], y))
    rng.shuffle(facts)
    rules = {(one, two): answer}
    for pair, words in rng.sample(list(TWO_HOPS.items()), 2):
        boy = rng.randrange(2)
        rules.setdefault((ROLES[pair[0]][boy], ROLES[pair[1]][rng.randrange(2)]), words[boy])
    mixed = dict(rng.sample(list(rules.items()), len(rules)))
    return Episode(
        skill="family",
        domain="logical",
        key=f"kin {sorted(facts)} {a} {c}",
        depth=depth,
        story=with_noise(rng, [rng.choice(IS_KIN).format(*f) for f in facts], noise, people),
        question=rng.choice(KIN_QUESTION).format(a, c),
        answer=answer,
        choices=choices_from(rng, answer, KIN, 4),
        steps=(f"{a} is the {one} of the {two} of {c}.", f"So {a} is the {answer}."),
        program="\n".join(
            [
                f"kin = { {(x, y): role for x, role, y in facts} }",
                f"rules = {mixed}",
                f"print(rules[kin['{a}', '{b}'], kin['{b}', '{c}']])",
            ]
        ),
    )


ORDERS = (  # more, less, most, least
    ("taller", "shorter", "tallest", "shortest"),
    ("older", "younger", "oldest", "youngest"),
    ("faster", "slower", "fastest", "slowest"),
)


def ordering(rng: random.Random, depth: int, noise: float) -> Episode:
    """The first or the last of `depth` + 2 people, compared in pairs told in any order."""
    people = rng.sample(NAMES, depth + 2)
    more, less, most, least = rng.choice(ORDERS)
    story = [
        f"{a} is {more} than {b}." if rng.random() < 0.5 else f"{b} is {less} than {a}."
        for a, b in pairwise(people)
    ]
    rng.shuffle(story)
    top = rng.random() < 0.5
    answer, other = (people[0], people[-1]) if top else (people[-1], people[0])
    question = rng.choice(("Who is the {}?", "Who is {} of all?", "Which one is the {}?"))
    line = people if top else people[::-1]
    return Episode(
        skill="ordering",
        domain="logical",
        key=f"order {more} {' '.join(people)}",
        depth=depth,
        story=with_noise(rng, story, noise, people),
        question=question.format(most if top else least),
        answer=answer,
        choices=choices_from(rng, answer, (other, rng.choice(people[1:-1])), 3),
        steps=(
            f"The order is {' '.join(line[::-1])}.",
            f"So the {most if top else least} is {answer}.",
        ),
        program=_ordering_program(rng, people, more.removesuffix("er"), top),
    )


def _ordering_program(rng: random.Random, people: list[str], stem: str, top: bool) -> str:
    extreme = "max" if top else "min"
    values = sorted(rng.sample(range(1, 10), min(len(people), 9)), reverse=True)
    values += [-n for n in range(len(people) - len(values))]  # more people than digits
    pairs = list(zip(people, values, strict=True))
    rng.shuffle(pairs)
    if rng.random() < 0.5:
        return f"{stem} = {dict(pairs)}\nprint({extreme}({stem}, key={stem}.get))"
    beats = list(pairwise(people))
    rng.shuffle(beats)
    mine, theirs = ("a", "b") if top else ("b", "a")
    return (
        f"pairs = {beats}\nlost = {{{theirs} for a, b in pairs}}\n"
        f"print(*[{mine} for a, b in pairs if {mine} not in lost])"
    )
