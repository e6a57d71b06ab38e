"""Programs as the problem itself: what does this one print?

Stories show the program; the narration tells the same in words, for corpora without code.
"""

import random

from codestage.data.worlds.arithmetic import STEPS
from codestage.data.worlds.episode import (
    FRUITS,
    PRINTS,
    SHOWN,
    Episode,
    choices_from,
    number_choices,
)

LETTERS = tuple("abcdnmxyz")


def program_output(rng: random.Random, depth: int, noise: float) -> Episode:
    """The value of one of two variables after `depth` assignments; always 3 to 12."""
    names = rng.sample(LETTERS, 2)
    held = {name: rng.randint(3, 9) for name in names}
    lines = [f"{name} = {value}" for name, value in held.items()]
    told, steps = [f"{name} is {value}." for name, value in held.items()], []
    for _ in range(depth):
        name = rng.choice(names)
        code, words, value = _assignment(rng, name, held)
        held[name] = value
        lines.append(code)
        told.append(words)
        steps.append(f"Then {name} is {value}.")
    asked = rng.choice(names)
    if rng.random() < noise:
        spare = rng.choice([letter for letter in LETTERS if letter not in names])
        lines.insert(rng.randrange(len(lines)), f"{spare} = {rng.randint(3, 9)}")
    program = "\n".join([*lines, f"print({asked})"])
    return Episode(
        skill="program_output",
        domain="code",
        key=f"run {told}",
        depth=depth,
        story=(rng.choice(SHOWN).format(program),),
        question=rng.choice(PRINTS),
        answer=str(held[asked]),
        choices=number_choices(rng, held[asked]),
        steps=(*steps, f"So it prints {held[asked]}."),
        program=program,
        narration=("A program runs.", *told, f"It prints {asked}."),
    )


def _assignment(rng: random.Random, name: str, held: dict[str, int]) -> tuple[str, str, int]:
    """(code, words, value) of a random change of the variable that stays between 3 and 12."""
    (other,) = (key for key in held if key != name)
    if rng.random() < 0.25:
        return f"{name} = {other}", f"{name} becomes {other}.", held[other]
    step = rng.choice([m for m in STEPS if 3 <= held[name] + m <= 12])
    sign, verb = ("+", "grows") if step > 0 else ("-", "shrinks")
    code = rng.choice(("{0} = {0} {1} {2}", "{0} {1}= {2}")).format(name, sign, abs(step))
    return code, f"{name} {verb} by {abs(step)}.", held[name] + step


PLACES = {0: "first", 1: "second", -1: "last"}


def list_program(rng: random.Random, depth: int, noise: float) -> Episode:
    """One element of a list of three words after `depth` changes of it."""
    words = rng.sample(FRUITS, 3)
    now, lines = list(words), [f"words = {words}"]
    told, steps = [f"The list is {' '.join(words)}."], []
    for _ in range(depth):
        code, said, now = _change(rng, now)
        lines.append(code)
        told.append(said)
        steps.append(f"Now it is {' '.join(now)}.")
    if rng.random() < noise:
        lines.insert(rng.randrange(len(lines)), f"spare = '{rng.choice(FRUITS)}'")
    at = rng.choice(tuple(PLACES))
    program = "\n".join([*lines, f"print(words[{at}])"])
    return Episode(
        skill="list_program",
        domain="code",
        key=f"run {told}",
        depth=depth,
        story=(rng.choice(SHOWN).format(program),),
        question=rng.choice(PRINTS),
        answer=now[at],
        choices=choices_from(rng, now[at], words, 3),
        steps=(*steps, f"So it prints {now[at]}."),
        program=program,
        narration=("A program runs.", *told, f"It prints the {PLACES[at]} word."),
    )


def _change(rng: random.Random, words: list[str]) -> tuple[str, str, list[str]]:
    """(code, words for it, the list after it): reversed, turned, or two of it swapped."""
    kind = rng.randrange(3)
    if kind == 0:
        return "words.reverse()", "The list is reversed.", words[::-1]
    if kind == 1:
        turned = [*words[1:], words[0]]
        return "words.append(words.pop(0))", "The first word moves to the end.", turned
    swapped = [words[1], words[0], *words[2:]]
    code = "words[0], words[1] = words[1], words[0]"
    return code, "The first two words swap places.", swapped
