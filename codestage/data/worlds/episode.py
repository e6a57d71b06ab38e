"""One problem of the small world, and the words it is told in."""

from dataclasses import dataclass
from functools import cache
from itertools import product

NAMES = tuple(
    (
        "Ann Bob Cid Dan Eve Fay Gus Hal Ida Jon Kay Leo Mia Ned Ola Pam Ray Sue Tom Una Vic Wes "
        "Zoe Amy Ben Cal Dot Eli Flo Guy"
    ).split()
)
OBJECTS = tuple(
    ("ball book cup hat key lamp map pen ring rope shoe spoon stone drum fan bell coat").split()
)
FRUITS = ("apple", "pear", "plum", "fig", "lemon", "grape", "melon", "lime", "date", "olive")


@dataclass(frozen=True)
class Words:
    """The vocabulary that problems draw on."""

    names: tuple[str, ...] = NAMES
    objects: tuple[str, ...] = OBJECTS
    fruits: tuple[str, ...] = FRUITS


WORDS = Words()


@cache
def words_of(size: int | None) -> Words:
    """`size` names, half as many objects and a third as many fruits (never fewer than four); the real
    ones first, then made-up ones. None: the real ones alone.
    """
    if size is None:
        return WORDS
    made = [
        "".join(parts)
        for parts in product("bdfgklmnprstvz", "aeiou", "bdgklmnprstvz", "aeiou", "lmnrst")
    ]
    made = [made[i * 7919 % len(made)] for i in range(len(made))]  # a prime: neighbours look unlike
    made = [word for word in made if word not in FRUITS]
    third = len(made) // 3
    more_names = (word.capitalize() for word in made[:third])
    return Words(
        tuple((*NAMES, *more_names)[:size]),
        tuple((*OBJECTS, *made[third : 2 * third])[: max(4, size // 2)]),
        tuple((*FRUITS, *made[2 * third :])[: max(4, size // 3)]),
    )


@dataclass(frozen=True)
class Episode:
    """A problem with its one right answer, told as sentences and as a program."""

    skill: str
    domain: str
    depth: int
    story: tuple[str, ...]
    question: str
    answer: str
    choices: tuple[str, ...]
    """All different; the answer is among them."""
    steps: tuple[str, ...]
    """True reasoning, one sentence a step."""
    program: str
    """Python that computes the answer from the story's facts and prints it; empty where a problem is told in
    words alone.
    """

    @property
    def key(self) -> str:
        """The problem itself, whatever its wording: the program, if there is one, says it without any."""
        return f"{self.skill}: {self.program or self.instruction}"

    @property
    def instruction(self) -> str:
        """What a person would ask: the story, then the question."""
        return " ".join([*self.story, self.question])
