"""All skills, and streams of their problems on either side of the line to evaluation."""

import hashlib
import random
from collections.abc import Iterator
from typing import Literal

from codestage.data.worlds import analogical, arithmetic, code, logical, symbolic
from codestage.data.worlds.episode import NOISE, Episode, Skill
from codestage.errors import UserError
from codestage.study.seeds import child

Split = Literal["train", "eval"]

SKILLS: dict[str, Skill] = {
    "coin_flip": symbolic.coin_flip,
    "last_letters": symbolic.last_letters,
    "reverse_list": symbolic.reverse_list,
    "object_tracking": logical.object_tracking,
    "boolean": logical.boolean,
    "family": logical.family,
    "ordering": logical.ordering,
    "counting": arithmetic.counting,
    "arithmetic": arithmetic.arithmetic,
    "analogy": analogical.analogy,
    "program_output": code.program_output,
    "list_program": code.list_program,
}
DEEPEST = 5
"""Beyond it stories run out of people and rows out of tokens."""
ONE_IN = 10
"""Of so many problems one is kept for evaluation."""


def split_of(key: str) -> Split:
    """Which side a problem is on: its own hash decides, so that no corpus can mix them."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return "eval" if int.from_bytes(digest) % ONE_IN == 0 else "train"


def episodes(
    skill: str, *, split: Split, seed: int, depth: tuple[int, int], noise: float = NOISE
) -> Iterator[Episode]:
    """Endless random problems of one side, their depth uniform over the range (both ends).

    Raises UserError for a skill that does not exist or a depth outside 1 to DEEPEST.
    """
    make = skill_named(skill)
    low, high = depth
    if not 1 <= low <= high <= DEEPEST:
        raise UserError(
            f"depth {list(depth)}: must be [low, high] with 1 <= low <= high <= {DEEPEST}. "
            "Write depth: [1, 2] for easy problems."
        )
    return _drawn(
        make, random.Random(child(seed, "world", skill, split)), split, (low, high, noise)
    )


def _drawn(
    make: Skill, rng: random.Random, split: Split, knobs: tuple[int, int, float]
) -> Iterator[Episode]:
    low, high, noise = knobs
    while True:
        episode = make(rng, rng.randint(low, high), noise)
        if split_of(episode.key) == split:
            yield episode


def skill_named(skill: str) -> Skill:
    """The skill of that name; UserError if there is none."""
    if skill not in SKILLS:
        raise UserError(f"no skill {skill!r}. Use some of: {', '.join(SKILLS)}.")
    return SKILLS[skill]


def eval_items(skill: str, n: int, seed: int, depth: tuple[int, int]) -> list[Episode]:
    """`n` different problems that no corpus holds (no two with the same key).

    Raises UserError if the skill has fewer of that depth on the side of evaluation.
    """
    found: dict[str, Episode] = {}
    stream = episodes(skill, split="eval", seed=seed, depth=depth)
    for _ in range(20 * n + 500):
        if len(found) == n:
            break
        episode = next(stream)
        found.setdefault(episode.key, episode)
    if len(found) < n:
        raise UserError(
            f"skill {skill!r} at depth {list(depth)} gives about {len(found)} different problems "
            f"for evaluation, not {n}. Ask for {len(found)} items or fewer, or raise the depth."
        )
    return list(found.values())
