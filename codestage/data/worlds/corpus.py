"""Corpora of the small world: prose, programs with their true output, and instructions."""

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from codestage.data.worlds.episode import Episode, Words, words_of
from codestage.data.worlds.grammar import SENTENCES
from codestage.data.worlds.languages import in_language, named, written
from codestage.data.worlds.skills import CODE_SKILLS, SHOWN, SKILLS
from codestage.errors import RunError, UserError
from codestage.study.seeds import child

Split = Literal["train", "eval"]
EVAL_SHARE = 10
"""One problem in ten is kept for evaluation."""
UNRELATED = (
    "The weather is fine today.",
    "A dog barks somewhere.",
    "It is nearly noon.",
    "The door stands open.",
    "Somebody is singing.",
    "The street is empty.",
    "Tea is ready.",
    "It has been raining.",
)
ALL = SKILLS | SENTENCES
"""Skills by name; a corpus is of the first kind unless others are named."""
BATCH = 2000
"""Programs run by one child process."""


def split_of(key: str) -> Split:
    """Which side a problem is on: a hash of the problem itself decides, so no corpus can mix them."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return "eval" if int.from_bytes(digest) % EVAL_SHARE == 0 else "train"


def episodes(
    skills: Sequence[str],
    *,
    split: Split,
    seed: int,
    depth: tuple[int, int],
    vocabulary: int | None = None,
) -> Iterator[Episode]:
    """Endless random problems of `split`, skills in equal parts, depth drawn from the range.

    Raises:
        UserError: an unknown skill, or a vocabulary too small for the depth.
    """
    unknown = [s for s in skills if s not in ALL]
    if unknown:
        raise UserError(f"unknown skill {unknown[0]!r}; known: {', '.join(ALL)}")
    rng, words = random.Random(child(seed, "world", split)), words_of(vocabulary)
    while True:
        for skill in skills:
            while True:
                episode = _draw(skill, rng, rng.randint(*depth), words)
                if split_of(episode.key) == split:
                    yield episode
                    break


def _draw(skill: str, rng: random.Random, depth: int, words: Words) -> Episode:
    try:
        return ALL[skill](rng, depth, words)
    except ValueError:  # of a sample larger than its list
        if skill in SENTENCES:
            raise UserError(
                f"skill {skill!r} at depth {depth} needs more words for places than there are; give it less depth"
            ) from None
        raise UserError(
            f"skill {skill!r} at depth {depth} needs more than {len(words.names)} names, "
            f"{len(words.objects)} objects and {len(words.fruits)} fruits; give it a larger vocabulary "
            "or less depth"
        ) from None


def eval_items(skill: str, n: int, *, seed: int, depth: tuple[int, int]) -> list[Episode]:
    """`n` different problems that no corpus holds.

    Raises:
        UserError: if the skill has fewer different problems of this depth.
    """
    found: dict[str, Episode] = {}
    stream = episodes([skill], split="eval", seed=child(seed, skill), depth=depth)
    last_new = 0
    for tries, episode in enumerate(stream):
        if episode.key not in found:
            found[episode.key], last_new = episode, tries
        if len(found) == n:
            return list(found.values())
        if tries - last_new > 1000 + 20 * len(found):
            break
    raise UserError(
        f"skill {skill!r} at depth {depth} has only {len(found)} problems kept for evaluation, "
        f"not {n}; ask for fewer items or more depth"
    )


def corpus(
    form: Literal["prose", "programs", "chat", "code_chat"],
    *,
    documents: int,
    depth: tuple[int, int] = (1, 2),
    skills: Sequence[str] | None = None,
    cot: float = 0.5,
    noise: float = 0.0,
    vocabulary: int | None = None,
    seed: int = 0,
    language: str = "python",
) -> Iterator[Mapping[str, str | None]]:
    """`documents` rows: `{"text"}` for prose and programs, `{"prompt", "response", "rationale"}` else,
    each with its `skill`.

    `noise` is the share of problems with a sentence (or a comment) that has nothing to do with them.
    `vocabulary` is the number of names in it, with objects and fruits in proportion (`words_of`).
    Every form draws its own problems from the same skills and depths; problems that are about code
    (domain `code`) are left out of prose and chat, which hold no code at all, and problems about
    sentences (`SENTENCES`) out of the others.

    The problems are the same in every `language` (one of `codestage.study.schema_sources.LANGUAGES`), and in
    the same order: their Python decides which side a problem is on, and is what is run.

    Raises:
        UserError: as `episodes` does; or no skill is left, for the form tells none of them.
    """
    names = _told_as(form, list(skills or SKILLS))
    stream = episodes(names, split="train", seed=child(seed, form), depth=depth, vocabulary=vocabulary)
    rng = random.Random(child(seed, form, "wording"))
    unrelated = random.Random(child(seed, form, "noise"))
    drawn = (_with_noise(next(stream), unrelated, noise) for _ in range(documents))
    if form == "prose":
        yield from ({"text": prose(e, rng), "skill": e.skill} for e in drawn)
    elif form == "chat":
        for e in drawn:
            yield chat(e, cot=rng.random() < cot) | {"skill": e.skill}
    else:
        while batch := [e for _, e in zip(range(BATCH), drawn, strict=False)]:
            check_outputs(batch)
            for e in batch:
                if form == "programs":
                    row: dict[str, str | None] = {"text": program(e, rng, language)}
                else:
                    row = code_chat(e, rng, cot, language)
                yield row | {"skill": e.skill}


def _told_as(form: str, names: list[str]) -> list[str]:
    """The skills that the form can tell."""
    code = form in ("programs", "code_chat")
    told = [name for name in names if name not in (SENTENCES if code else CODE_SKILLS)]
    if told:
        return told
    if code:
        raise UserError(
            f"form {form} holds programs, and skills {', '.join(names)} are told in words alone; add others, "
            f"or take form {'prose' if form == 'programs' else 'chat'}"
        )
    raise UserError(
        f"form {form} holds no code, and skills {', '.join(names)} are all about code; add others, or take "
        f"form {'programs' if form == 'prose' else 'code_chat'}"
    )


def _with_noise(episode: Episode, rng: random.Random, share: float) -> Episode:
    """The problem with something unrelated put in at some place, in `share` of all cases. A question about
    "it", a sentence, has no other beside it.
    """
    if not share or rng.random() >= share or episode.skill in SENTENCES:
        return episode
    sentence = rng.choice(UNRELATED)
    story, lines = list(episode.story), episode.program.split("\n")
    story.insert(rng.randint(0, len(story)), sentence)
    lines.insert(rng.randint(0, len(lines)), f"# {sentence}")
    return replace(episode, story=tuple(story), program="\n".join(lines))


def prose(episode: Episode, rng: random.Random) -> str:
    """The problem and its answer as running text, with or without the reasoning."""
    body = list(episode.story)
    if rng.random() < 0.3:
        body += episode.steps
    ending = rng.choice(
        [
            f"{episode.question} {episode.answer}.",
            f"{episode.question} The answer is {episode.answer}.",
            f"{episode.question} It is {episode.answer}.",
        ]
    )
    return " ".join([*body, ending])


def program(episode: Episode, rng: random.Random, language: str = "python") -> str:
    """The program and what it prints."""
    style = rng.randrange(3)
    if style == 2 and language == "python":
        return f"{episode.program}\n>>> {episode.answer}\n"
    above = [episode.question] if style == 1 else []
    below = ("prints:", "output:", ">>>")[style] + f" {episode.answer}"
    return written(episode.program, language, above, [below]) + "\n"


def chat(episode: Episode, *, cot: bool) -> dict[str, str | None]:
    """The problem as an instruction, with the reasoning before the answer if `cot`."""
    return {
        "prompt": episode.instruction,
        "response": episode.answer,
        "rationale": " ".join(episode.steps) if cot else None,
    }


def code_chat(
    episode: Episode, rng: random.Random, cot: float, language: str = "python"
) -> dict[str, str | None]:
    """A request about a program: what it prints, or to write it."""
    told = in_language(episode, language)
    if rng.random() < 0.5:
        return {
            "prompt": f"{SHOWN}{told.program}\n\nWhat does it print?",
            "response": told.answer,
            "rationale": " ".join(told.steps) if rng.random() < cot else None,
        }
    return {
        "prompt": f"{told.instruction} Write a {named(language)}program that prints it.",
        "response": f"\n{told.program}",
        "rationale": None,
    }


def check_outputs(batch: Sequence[Episode]) -> None:
    """Run every program and hold what it prints against the episode's answer.

    The programs are this module's own; they run in one child process with a time limit.

    Raises:
        RunError: a program prints something else: the corpus would teach a falsehood.
    """
    child_process = subprocess.run(
        [sys.executable, "-I", str(Path(__file__).with_name("runner.py"))],
        input=json.dumps([e.program for e in batch]),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if child_process.returncode != 0:
        raise RunError(f"programs of the corpus failed to run: {child_process.stderr[-500:]}")
    for episode, printed in zip(batch, json.loads(child_process.stdout), strict=True):
        if printed != episode.answer:
            raise RunError(f"{episode.program!r} prints {printed!r}, the story says {episode.answer!r}")
