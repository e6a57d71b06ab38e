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

    Items depend on the task and the seed alone. A task with several depths takes them in turn.
    Raises UserError if the task's templates do not fit its documents.
    """
    count = task.n_items if n is None else n
    made = [_item(task, i, document) for i, document in enumerate(_documents(task, seed, count))]
    if len(made) < count:
        raise UserError(
            f"task {task.name!r} has {len(made):,} different items but {count:,} were asked for; "
            f"set evaluate.items to {len(made):,} or less"
        )
    return tuple(made)


def _documents(task: Task, seed: int, n: int) -> Iterator[Mapping[str, Any]]:
    """The episodes of each depth in turn, as field -> value."""
    depths = task.depths
    share = -(-n // len(depths))
    by_depth = [
        eval_items(
            task.skill, n=share, seed=child(seed, "evaluate", task.name, str(depth)), depth=depth
        )
        for depth in depths
    ]
    in_turn = (episode for episodes in zip(*by_depth, strict=False) for episode in episodes)
    for _, episode in zip(range(n), in_turn, strict=False):
        yield asdict(episode)


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
