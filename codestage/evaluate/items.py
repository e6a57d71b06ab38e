"""Items: a task's questions, the same for every arm and seed of a study."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from codestage.data import instruct
from codestage.data.worlds import eval_items
from codestage.errors import UserError
from codestage.evaluate.tasks import Task, render
from codestage.study.seeds import child


@dataclass(frozen=True)
class Item:
    """One question with its answer."""

    id: str
    task: str
    instruction: str
    rationale: str | None
    """Reasoning that leads to the answer, without the answer itself."""
    choices: tuple[str, ...]
    """Empty if the answer is open."""
    gold: int | None
    """Which choice is right; None if the answer is open."""
    answer: str

    def prompt(self, cot: str, reasoning: str | None = None) -> str:
        """The text that the model goes on from, in one mode of chain of thought.

        `generated` is asked in two steps: first for the reasoning; then, with the `reasoning` that
        the model wrote, for the answer.
        """
        if cot == "supplied":
            assert self.rationale is not None, self.id
            return instruct.prompt(self.instruction, rationale=self.rationale)
        if cot == "generated":
            return instruct.prompt(self.instruction, cot=True, rationale=reasoning)
        return instruct.prompt(self.instruction)


def prompt_hash(prompt: str) -> str:
    """Sixteen hex digits that tell prompts apart."""
    return hashlib.blake2b(prompt.encode(), digest_size=8).hexdigest()


@lru_cache(maxsize=256)  # a worker evaluates many checkpoints on the same items
def items(task: Task, seed: int, n: int | None = None) -> tuple[Item, ...]:
    """The first `n` items (default: the task's own number) under a study's evaluation seed.

    Items depend on the task and the seed alone; fewer items are the first of more. Raises UserError
    if the task has fewer different ones, or its answer is not one of its choices.
    """
    count = task.n_items if n is None else n
    documents = _documents(task, seed, count)
    return tuple(_item(task, i, document) for i, document in enumerate(documents))


def _documents(task: Task, seed: int, n: int) -> Iterator[Mapping[str, Any]]:
    """Episodes as field -> value, with their `instruction`."""
    own = child(seed, "evaluate", task.name)
    for episode in eval_items(task.skill, n=n, seed=own, depth=task.depth):
        yield {**asdict(episode), "instruction": episode.instruction}


def _item(task: Task, number: int, document: Mapping[str, Any]) -> Item:
    answer = render(task.target, document)
    choices: tuple[str, ...] = ()
    if task.choices is not None:
        values = document[task.choices] if isinstance(task.choices, str) else task.choices
        choices = tuple(map(str, values))
        if choices.count(answer) != 1 or len(set(choices)) < 2:
            raise UserError(
                f"task {task.name!r}, item {number}: the answer {answer!r} must be exactly one of "
                f"at least two different choices, which are {list(choices)}"
            )
    return Item(
        id=f"{task.name}/{number:04d}",
        task=task.name,
        instruction=render(task.text, document),
        rationale=None if task.rationale is None else render(task.rationale, document),
        choices=choices,
        gold=choices.index(answer) if choices else None,
        answer=answer,
    )
