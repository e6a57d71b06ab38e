"""The skills of the small world: each makes one random problem of a given depth.

Depth is the number of things to keep track of (flips, transfers, words, terms). Every skill tells its
problem in prose and as a program, so that neither form has a skill of its own.
"""

import itertools
import random
from collections.abc import Callable, Sequence

from codestage.data.worlds.episode import WORDS, Episode, Words

SHOWN = "The program is\n"
"""How a story that shows a program begins."""
Skill = Callable[[random.Random, int, Words], Episode]


def distractors(answer: str, others: Sequence[str], rng: random.Random, n: int = 4) -> tuple[str, ...]:
    """The answer and up to n - 1 others, in random order."""
    wrong = list(dict.fromkeys(o for o in others if o != answer))
    rng.shuffle(wrong)
    choices = [answer, *wrong[: n - 1]]
    rng.shuffle(choices)
    return tuple(choices)


def coin_flip(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """Parity of a number of flips."""
    people = rng.sample(known.names, depth + 1)
    flips = [rng.random() < 0.5 for _ in people]
    story = [rng.choice(["A coin lies heads up.", "A coin is heads up."])]
    steps, up, code = [], True, ["heads = True"]
    for name, flip in zip(people, flips, strict=True):
        story.append(f"{name} flips the coin." if flip else f"{name} does not flip the coin.")
        up ^= flip
        steps.append(f"After {name} it is {'heads' if up else 'tails'} up.")
        code.append(f"heads = not heads  # {name}" if flip else f"heads = heads  # {name}")
    return Episode(
        "coin_flip",
        "symbolic",
        depth,
        tuple(story),
        "Is the coin still heads up?",
        "yes" if up else "no",
        ("yes", "no"),
        tuple(steps),
        "\n".join([*code, "print('yes' if heads else 'no')"]),
    )


def last_letters(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """The last letter of each word."""
    words = rng.sample(known.names, depth + 1)
    answer = " ".join(w[-1] for w in words)
    other = [" ".join(rng.choice(known.names)[-1] for _ in words) for _ in range(12)]
    return Episode(
        "last_letters",
        "symbolic",
        depth,
        (f"The words are {' '.join(words)}.",),
        "What are their last letters?",
        answer,
        distractors(answer, other, rng),
        tuple(f"{w} ends in {w[-1]}." for w in words),
        f"words = {words!r}\nprint(' '.join(word[-1] for word in words))",
    )


def reverse_list(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """A list from its end to its beginning."""
    words = rng.sample(known.objects + known.fruits, depth + 1)
    answer = " ".join(reversed(words))
    other = [" ".join(rng.sample(words, len(words))) for _ in range(12)]
    return Episode(
        "reverse_list",
        "symbolic",
        depth,
        (rng.choice(["The list is", "Here is a list:"]) + f" {' '.join(words)}.",),
        "What is the list in reverse?",
        answer,
        distractors(answer, other, rng),
        (f"The last word is {words[-1]}.", f"The first word is {words[0]}."),
        f"words = {words!r}\nprint(' '.join(reversed(words)))",
    )


def object_tracking(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """Who holds what after some transfers."""
    people = rng.sample(known.names, 3)
    thing, other = rng.sample(known.objects, 2)
    holder = rng.choice(people)
    second = rng.choice([p for p in people if p != holder])
    story = [f"{holder} has the {thing}.", f"{second} has the {other}."]
    code = [f"holder = {{'{thing}': '{holder}', '{other}': '{second}'}}"]
    rng.shuffle(story)
    steps = []
    for _ in range(depth):
        taker = rng.choice([p for p in people if p != holder])
        verb = rng.choice(["gives", "hands"])
        story.append(f"{holder} {verb} the {thing} to {taker}.")
        code.append(f"holder['{thing}'] = '{taker}'")
        holder = taker
        steps.append(f"Now {holder} has the {thing}.")
    return Episode(
        "object_tracking",
        "logical",
        depth,
        tuple(story),
        f"Who has the {thing}?",
        holder,
        distractors(holder, people, rng),
        tuple(steps),
        "\n".join([*code, f"print(holder['{thing}'])"]),
    )


def counting(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """How many things there are in all."""
    kinds = rng.sample(known.fruits, depth + 1)
    counts = [rng.randint(2, 6) for _ in kinds]
    total, steps = 0, []
    for kind, count in zip(kinds, counts, strict=True):
        total += count
        steps.append(f"With the {kind}s that makes {total}.")
    told = " and ".join(f"{n} {kind}s" for n, kind in zip(counts, kinds, strict=True))
    return Episode(
        "counting",
        "arithmetic",
        depth,
        (rng.choice(["There are", "On the table are", "In the box are"]) + f" {told}.",),
        "How many fruits are there?",
        str(total),
        _near(total, rng),
        tuple(steps),
        f"fruits = {dict(zip(kinds, counts, strict=True))!r}\nprint(sum(fruits.values()))",
    )


def _near(value: int, rng: random.Random) -> tuple[str, ...]:
    """The value and three of its neighbours."""
    return distractors(str(value), [str(x) for x in range(max(0, value - 3), value + 4)], rng)


def _chain(rng: random.Random, depth: int) -> tuple[int, list[tuple[str, int, int]]]:
    """A start and `depth` moves (sign, step, value after it) that stay between 0 and 20."""
    start = value = rng.randint(1, 12)
    moves = []
    for _ in range(depth):
        step = rng.randint(1, 6)
        down = value >= step and (value + step > 20 or rng.random() < 0.5)
        value += -step if down else step
        moves.append(("-" if down else "+", step, value))
    return start, moves


def arithmetic(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """A chain of additions and subtractions."""
    start, moves = _chain(rng, depth)
    words = {"+": ("Add", "+="), "-": ("Take away", "-=")}
    return Episode(
        "arithmetic",
        "arithmetic",
        depth,
        (f"Start with {start}.", *(f"{words[sign][0]} {step}." for sign, step, _ in moves)),
        "What is the result?",
        str(moves[-1][2]),
        _near(moves[-1][2], rng),
        tuple(f"That makes {value}." for _, _, value in moves),
        "\n".join(
            [f"x = {start}", *(f"x {words[sign][1]} {step}" for sign, step, _ in moves), "print(x)"]
        ),
    )


def boolean(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """A chain of and / or over plain and negated terms, taken from left to right."""

    def term() -> tuple[str, bool]:
        value, negated = rng.random() < 0.5, rng.random() < 0.3
        return ("not " if negated else "") + str(value).lower(), value ^ negated

    word, value = term()
    told, code, steps = word, [f"x = {word.title().replace('Not', 'not')}"], []
    for _ in range(depth + 1):
        operator = rng.choice(["and", "or"])
        word, truth = term()
        told += f" {operator} {word}"
        code.append(f"x = x {operator} ({word.title().replace('Not', 'not')})")
        value = (value and truth) if operator == "and" else (value or truth)
        steps.append(f"{operator} {word} gives {str(value).lower()}.")
    return Episode(
        "boolean",
        "logical",
        depth,
        (f"Take {told} from left to right.",),
        "What is the value?",
        str(value).lower(),
        ("true", "false"),
        tuple(steps),
        "\n".join([*code, "print(str(x).lower())"]),
    )


KIN = {
    ("mother", "mother"): "grandmother",
    ("mother", "father"): "grandmother",
    ("father", "mother"): "grandfather",
    ("father", "father"): "grandfather",
    ("sister", "mother"): "aunt",
    ("sister", "father"): "aunt",
    ("brother", "mother"): "uncle",
    ("brother", "father"): "uncle",
    ("son", "brother"): "nephew",
    ("son", "sister"): "nephew",
    ("daughter", "brother"): "niece",
    ("daughter", "sister"): "niece",
}


def family(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """Two relations put together; with more depth, facts that do not matter stand between."""
    a, b, c, *others = rng.sample(known.names, 3 + 2 * (depth - 1))
    (first, second), answer = rng.choice(list(KIN.items()))
    story = [f"{a} is the {first} of {b}.", f"{b} is the {second} of {c}."]
    for x, y in zip(others[::2], others[1::2], strict=True):
        story.append(f"{x} is a friend of {y}.")
    rng.shuffle(story)
    return Episode(
        "family",
        "logical",
        depth,
        tuple(story),
        f"What is {a} to {c}?",
        answer,
        distractors(answer, sorted(set(KIN.values())), rng),
        (f"The {first} of a {second} is {'an' if answer[0] in 'au' else 'a'} {answer}.",),
        f"kin = {{('{a}', '{b}'): '{first}', ('{b}', '{c}'): '{second}'}}\n"
        f"rules = {{('{first}', '{second}'): '{answer}'}}\n"
        f"print(rules[kin['{a}', '{b}'], kin['{b}', '{c}']])",
    )


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((a, b) for a, b in (pair.split("-") for pair in text.split()))


ANALOGIES = {
    "opposite": _pairs(
        "hot-cold big-small up-down day-night wet-dry fast-slow old-young rich-poor full-empty "
        "hard-soft dark-light open-shut loud-quiet early-late near-far good-bad"
    ),
    "young": _pairs(
        "cat-kitten dog-puppy cow-calf hen-chick sheep-lamb horse-foal goat-kid pig-piglet "
        "bear-cub duck-duckling deer-fawn frog-tadpole goose-gosling eagle-eaglet"
    ),
    "home": _pairs(
        "bee-hive bird-nest fox-den spider-web king-palace monk-abbey lion-cave mouse-hole "
        "fish-sea ant-hill cow-barn horse-stable dog-kennel nun-convent"
    ),
    "tool": _pairs(
        "cook-pan painter-brush writer-pen miner-pick sailor-rope tailor-needle farmer-plough "
        "smith-hammer barber-razor gardener-spade teacher-chalk judge-gavel"
    ),
}


def analogy(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """a is to b as c is to ?; with more depth, a list of words that do not matter comes first."""
    relation = rng.choice(sorted(ANALOGIES))
    (a, b), (c, answer) = rng.sample(ANALOGIES[relation], 2)
    noise = tuple(
        f"{rng.choice(known.names)} has the {rng.choice(known.objects)}." for _ in range(depth - 1)
    )
    wrong = [pair[1] for pair in ANALOGIES[relation] if pair[1] != b]
    return Episode(
        "analogy",
        "analogical",
        depth,
        (*noise, f"{a.capitalize()} is to {b} as {c} is to something."),
        "What is it?",
        answer,
        distractors(answer, wrong, rng),
        (f"The {relation} of {a} is {b}.", f"The {relation} of {c} is {answer}."),
        f"{relation} = {{'{a}': '{b}', '{c}': '{answer}'}}\nprint({relation}['{c}'])",
    )


ORDERS = (
    ("taller", "tallest", "shortest"),
    ("older", "oldest", "youngest"),
    ("faster", "fastest", "slowest"),
)


def ordering(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """The first or last of a chain of comparisons told in any order."""
    people = rng.sample(known.names, depth + 1)
    more, most, least = rng.choice(ORDERS)
    story = [f"{a} is {more} than {b}." for a, b in itertools.pairwise(people)]
    rng.shuffle(story)
    top = rng.random() < 0.5
    answer = people[0] if top else people[-1]
    chain = " then ".join(people)
    return Episode(
        "ordering",
        "logical",
        depth,
        tuple(story),
        f"Who is the {most if top else least}?",
        answer,
        distractors(answer, people, rng),
        (f"From {most} to {least}: {chain}.",),
        f"people = {people!r}  # {most} first\nprint(people[{0 if top else -1}])",
    )


def program_output(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """What a few lines of arithmetic print."""
    start, moves = _chain(rng, depth)
    code = "\n".join([f"x = {start}", *(f"x = x {sign} {step}" for sign, step, _ in moves), "print(x)"])
    return Episode(
        "program_output",
        "code",
        depth,
        (f"{SHOWN}{code}\n",),
        "What does it print?",
        str(moves[-1][2]),
        _near(moves[-1][2], rng),
        tuple(f"Then x is {value}." for _, _, value in moves),
        code,
    )


def list_program(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """What a program that changes a list prints."""
    words = rng.sample(known.fruits, 3)
    lines, held, steps = [f"words = {words!r}"], list(words), []
    for _ in range(depth):
        if rng.random() < 0.5:
            held.reverse()
            lines.append("words.reverse()")
        else:
            gone = held.pop(0)
            held.append(gone)
            lines.append("words.append(words.pop(0))")
        steps.append(f"Then words is {' '.join(held)}.")
    at = rng.randrange(3)
    lines.append(f"print(words[{at}])")
    return Episode(
        "list_program",
        "code",
        depth,
        (SHOWN + "\n".join(lines) + "\n",),
        "What does it print?",
        held[at],
        distractors(held[at], words, rng),
        tuple(steps),
        "\n".join(lines),
    )


SKILLS: dict[str, Skill] = {
    skill.__name__: skill
    for skill in (
        coin_flip,
        last_letters,
        reverse_list,
        object_tracking,
        boolean,
        family,
        ordering,
        counting,
        arithmetic,
        analogy,
        program_output,
        list_program,
    )
}
CODE_SKILLS = ("program_output", "list_program")
"""Skills whose problems show code; the others are told in words alone."""
