"""Evaluation items: a question, its choices or its answer, and what is needed to score it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal

from codestage.data.instruct import PLAIN, Template

Cot = Literal["off", "supplied", "generated"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Item:
    """One question with its choices, if it has any, and the right answer."""

    id: str
    instruction: str
    """What is asked, with all that is needed to answer; without the choices."""
    choices: tuple[str, ...]
    answer: str
    rationale: str = ""
    gold: int = -1
    """Place of the answer among the choices; -1 where there are none."""
    aliases: tuple[str, ...] = ()
    """Other answers that are right."""
    channel: tuple[tuple[str, str], ...] = ()
    """For each choice: the text that says it is right, and the evidence that follows from it."""
    lettered: bool = False
    """Whether the choices may be shown with letters, and the letter asked for."""
    code: Mapping[str, Any] = field(default_factory=dict)
    """For programs: `prompt` they begin with, `tests`, and what running them needs."""

    def prompt(self, cot: Cot, template: Template = PLAIN, *, letters: bool = False) -> str:
        """The text the model goes on from; with `letters`, the choices stand in it. A program that has
        been begun is gone on with as it is, unless a chat template wraps everything.
        """
        if "prompt" in self.code and not template.marked:
            return str(self.code["prompt"])
        asked = self.with_letters() if letters else self.instruction
        if cot == "supplied":
            return template.prompt(asked, rationale=self.rationale)
        return template.prompt(asked, cot=cot == "generated")

    def response(self, text: str, template: Template = PLAIN) -> str:
        """`text` as the model is to produce it after `prompt`."""
        return text if "prompt" in self.code else template.response(text)

    def with_letters(self) -> str:
        """The question, then every choice on a line with its letter."""
        lines = [f"{LETTERS[i]}. {choice}" for i, choice in enumerate(self.choices)]
        return "\n".join([self.instruction, *lines])


def permuted(item: Item, seed: int) -> Item:
    """The same item with its choices, if it has any, in another order: a liking for a place then shows."""
    if not item.choices:
        return item
    order = list(range(len(item.choices)))
    Random(f"{seed}:{item.id}").shuffle(order)
    return replace(
        item,
        choices=tuple(item.choices[i] for i in order),
        gold=order.index(item.gold),
        channel=tuple(item.channel[i] for i in order) if item.channel else (),
    )


def chance(items: Sequence[Item], *, written: bool) -> float | None:
    """Accuracy of an answer that knows nothing of the item: a choice picked blindly, or, where the
    answer is written, the commonest of all answers given to every item. A program written blindly
    passes no test. None: there are no items.
    """
    if not items:
        return None
    if any(item.code for item in items):
        return 0.0
    if written or not all(item.choices for item in items):
        return Counter(item.answer for item in items).most_common(1)[0][1] / len(items)
    return sum(1 / len(item.choices) for item in items) / len(items)
