"""One problem of the small world, and the words that all skills share."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Domain = Literal["symbolic", "logical", "arithmetic", "analogical", "code"]

# Words that tokenizers of a thousand tokens can hold whole.
_GIRLS = "Ann Amy Dot Eve Fay Ida Joy Kay Lil Mia Pam Ruth Sue Tess Una Zoe"
_BOYS = "Abe Bob Dan Ed Gus Hal Jack Ken Leo Max Ned Rob Sam Tim Vic Wes"
GIRLS, BOYS = tuple(_GIRLS.split()), tuple(_BOYS.split())
NAMES = GIRLS + BOYS
FRUITS = ("plum", "fig", "lemon", "grape", "melon", "lime", "pear", "apple")
TOOLS = ("pen", "key", "lamp", "rope", "spoon", "pan", "saw", "brush")
TOYS = ("ball", "kite", "drum", "doll", "boat", "top", "bell", "puzzle")
THINGS = FRUITS + TOOLS + TOYS

SHOWN = ("Look at this program.\n{}\n", "The program is\n{}\n", "Here is a program.\n{}\n")
PRINTS = ("What does it print?", "What is its output?", "What is printed?")

NOISE = 0.2
"""Share of stories with a sentence (or a line of program) that does not matter."""


@dataclass(frozen=True)
class Episode:
    """A problem with its one right answer, told as sentences and as a program."""

    skill: str
    domain: Domain
    key: str
    """The facts in canonical words: the same key is the same problem, however it is told. What is
    asked about the facts is left out, so that all questions about them fall on the same side."""
    depth: int
    """How much there is to keep track of; each skill says what it counts."""
    story: tuple[str, ...]
    question: str
    answer: str
    choices: tuple[str, ...]
    """All different, in random order; the answer is one of them."""
    steps: tuple[str, ...]
    """True reasoning, a sentence a step; the last one ends in the answer."""
    program: str
    """Python that computes the answer from the facts and prints it; no newline at its end."""
    narration: tuple[str, ...] = ()
    """The story in words alone, where `story` holds code; empty where it holds none."""

    @property
    def instruction(self) -> str:
        """What evaluation and tuning ask: the story, then the question."""
        return joined((*self.story, self.question))

    @property
    def words(self) -> tuple[str, ...]:
        """The story without any code."""
        return self.narration or self.story


def joined(sentences: Sequence[str]) -> str:
    """Sentences as one text: a space between them, but none after the end of a program."""
    return "".join(s if s.endswith("\n") else s + " " for s in sentences).rstrip(" ")


Skill = Callable[[random.Random, int, float], Episode]
"""(rng, depth, noise) to one random problem of that depth."""


def choices_from(rng: random.Random, answer: str, others: Sequence[str], n: int) -> tuple[str, ...]:
    """The answer and n - 1 different ones of `others`, in random order."""
    wrong = list(dict.fromkeys(other for other in others if other != answer))
    chosen = [answer, *rng.sample(wrong, n - 1)]
    rng.shuffle(chosen)
    return tuple(chosen)


def number_choices(rng: random.Random, answer: int) -> tuple[str, ...]:
    """Four numbers in a row; the answer is as often the least as the greatest, so it must
    be 3 or more."""
    low = answer - rng.randrange(4)
    chosen = [str(value) for value in range(low, low + 4)]
    rng.shuffle(chosen)
    return tuple(chosen)


def with_noise(
    rng: random.Random, story: Sequence[str], noise: float, people: Sequence[str] = ()
) -> tuple[str, ...]:
    """The story; with probability `noise` a sentence about somebody else stands in it."""
    told = list(story)
    if rng.random() < noise:
        name = rng.choice(NAMES)
        while name in people:
            name = rng.choice(NAMES)
        sentence = rng.choice(IDLE).format(name, rng.choice(FRUITS))
        told.insert(rng.randrange(len(told) + 1), sentence)
    return tuple(told)


IDLE = ("{0} likes the {1}.", "{0} sings.", "{0} is at home.", "The sun is out.", "It is late.")
