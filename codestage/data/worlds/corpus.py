"""The small world as corpora: prose, programs with their output, and instructions of both kinds."""

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Literal, TypedDict

from codestage.data.worlds.episode import PRINTS, SHOWN, Episode, joined
from codestage.data.worlds.execute import check
from codestage.data.worlds.skills import SKILLS, episodes
from codestage.errors import UserError
from codestage.study.seeds import child

Form = Literal["prose", "programs", "chat", "code_chat"]
FORMS: tuple[Form, ...] = ("prose", "programs", "chat", "code_chat")
RUN_AT_ONCE = 2000
"""Programs run by one process."""

ANSWERS = ("{}.", "It is {}.", "The answer is {}.")
OUTPUTS = ("# prints: {}", "# output: {}", "# -> {}", ">>> {}")
WRITE = (
    "{} Write a program that prints the answer.",
    "{} Answer with a program.",
    "Write a program for this. {}",
)
WRITTEN_SHARE = 0.4
"""Of the code instructions, those that ask for a program; the others ask what one prints."""


class Text(TypedDict):
    """A document to learn from."""

    text: str


class Instruction(TypedDict):
    """An instruction with its response, and the reasoning before it or None."""

    prompt: str
    response: str
    rationale: str | None


def corpus(
    form: Form,
    *,
    documents: int,
    depth: tuple[int, int] = (1, 2),
    skills: Sequence[str] | None = None,
    cot: float = 0.5,
    seed: int = 0,
) -> Iterator[Text | Instruction]:
    """`documents` records, the skills (all if None) in equal parts, none kept for evaluation.

    `cot` is the share of records with their reasoning. Each form draws problems of its own from the
    same skills and depths. Prose and chat hold no code: there the code skills are told in words.
    Raises UserError for an unknown form, skill or depth; RunError if a program prints what it
    should not.
    """
    if form not in FORMS:
        raise UserError(f"no form {form!r}. Use one of: {', '.join(FORMS)}.")
    if skills is not None and not skills:
        raise UserError(f"skills: empty. Name some of: {', '.join(SKILLS)}.")
    if not 0 <= cot <= 1:
        raise UserError(f"cot: {cot:g} is no share. Write a number from 0 to 1.")
    streams = [
        episodes(skill, split="train", seed=child(seed, form), depth=depth)
        for skill in skills or SKILLS
    ]
    return _records(
        form, _in_turn(streams, documents), cot, random.Random(child(seed, form, "told"))
    )


def _in_turn(streams: Sequence[Iterator[Episode]], n: int) -> Iterator[Episode]:
    return (next(stream) for stream in itertools.islice(itertools.cycle(streams), n))


def _records(
    form: Form, drawn: Iterator[Episode], cot: float, rng: random.Random
) -> Iterator[Text | Instruction]:
    while batch := list(itertools.islice(drawn, RUN_AT_ONCE)):
        if form in ("programs", "code_chat"):
            check(batch)
        for episode in batch:
            reasoned = rng.random() < cot
            if form == "prose":
                yield Text(text=prose(episode, rng, cot=reasoned))
            elif form == "programs":
                yield Text(text=program(episode, rng, cot=reasoned))
            elif form == "chat":
                yield chat(episode, cot=reasoned)
            else:
                yield code_chat(episode, rng, cot=reasoned)


def prose(episode: Episode, rng: random.Random, *, cot: bool) -> str:
    """The story, the question and its answer as running text; with `cot` the reasoning between."""
    ending = rng.choice(ANSWERS).format(episode.answer)
    steps = episode.steps if cot else ()
    return joined((*episode.words, episode.question, *steps, ending))


def program(episode: Episode, rng: random.Random, *, cot: bool) -> str:
    """The program and what it prints; with `cot` comments that reason about it between.

    The answer must be what the program was seen to print (`execute.check`).
    """
    lines = [episode.program, rng.choice(OUTPUTS).format(episode.answer)]
    if cot:
        lines[1:1] = [f"# {step}" for step in episode.steps]
    if episode.domain != "code" and rng.random() < 0.5:
        lines.insert(0, f"# {episode.question}")
    return "\n".join(lines) + "\n"


def chat(episode: Episode, *, cot: bool) -> Instruction:
    """The problem in words, asked as evaluation asks it."""
    return Instruction(
        prompt=joined((*episode.words, episode.question)),
        response=episode.answer,
        rationale=joined(episode.steps) if cot else None,
    )


def code_chat(episode: Episode, rng: random.Random, *, cot: bool) -> Instruction:
    """What does this program print (reasoned if `cot`), or: write a program for this story."""
    if rng.random() < WRITTEN_SHARE:
        story = joined((*episode.words, episode.question))
        return Instruction(
            prompt=rng.choice(WRITE).format(story),
            response=episode.program,
            rationale=None,
        )
    shown = episode.instruction
    if episode.domain != "code":
        shown = joined((rng.choice(SHOWN).format(episode.program), rng.choice(PRINTS)))
    return Instruction(
        prompt=shown,
        response=episode.answer,
        rationale=joined(episode.steps) if cot else None,
    )
