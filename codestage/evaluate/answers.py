"""What a model said about an item, and the records that follow from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from codestage.evaluate import scoring
from codestage.evaluate.items import Item, prompt_hash
from codestage.evaluate.tasks import Task


@dataclass(frozen=True)
class Ask:
    """One item put to a model in one mode of chain of thought."""

    task: Task
    item: Item
    cot: str

    @property
    def generates(self) -> bool:
        """Whether the model writes text, as opposed to rating given texts."""
        return self.cot == "generated" or self.task.output_type == "generate_until"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    choice_nats: tuple[float, ...] | None = None
    """Log-likelihood of each choice; None if there are none or they could not be asked."""
    gold_nats: float | None = None
    """Log-likelihood of the right answer's text."""
    output: str | None = None
    """What the model wrote; None if it was not asked to write."""
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    seconds: float | None = None


def rows(ask: Ask, answer: Answer) -> Iterator[dict[str, Any]]:
    """One record for each metric of the task that applies, without the engine's columns."""
    task, item = ask.task, ask.item
    shared = {
        "task": task.name,
        "suite": task.suite,
        "domain": task.domain,
        "item": item.id,
        "cot": ask.cot,
        "gold": item.answer,
        "output": _shown(item, answer),
        "choice_scores": answer.choice_nats,
        "prompt_hash": prompt_hash(item.prompt(ask.cot)),
        "prompt_tokens": answer.prompt_tokens,
        "output_tokens": answer.output_tokens,
        "seconds": answer.seconds,
    }
    for metric in task.metrics:
        if metric == "format" and not ask.generates:
            continue  # nothing was written that could be read
        value, status = _measure(metric, ask, answer)
        yield {**shared, "metric": metric, "value": value, "status": status}


def _shown(item: Item, answer: Answer) -> str | None:
    """The text written, or the choice rated highest."""
    if answer.output is not None or answer.choice_nats is None:
        return answer.output
    return item.choices[_best(answer.choice_nats)]


def _best(nats: Sequence[float]) -> int:
    return max(range(len(nats)), key=nats.__getitem__)


def _measure(metric: str, ask: Ask, answer: Answer) -> tuple[float | None, str]:
    """(value, status) of one metric. See `scoring` for what counts 0 and what is unknown."""
    item = ask.item
    said, status = None, "ok"
    if answer.output is not None:
        said, status = scoring.read_output(answer.output, cot=ask.cot == "generated")
    if metric == "format":
        return float(said is not None), status
    if metric == "exact_match":
        return float(said is not None and scoring.same_answer(said, item.answer)), status
    if ask.cot != "generated":
        status = "ok"  # what the model wrote has no part in how it rates the given answers
    value: float | None
    if metric == "bpb":
        value = None if answer.gold_nats is None else scoring.bpb(answer.gold_nats, item.answer)
    elif answer.choice_nats is None:
        # Reasoning that never came to an answer: wrong as accuracy goes, unknown as probability.
        value = None if metric == "prob" else 0.0
    else:
        assert item.gold is not None
        value = {
            "acc": lambda n, g: scoring.acc(n, g),
            "acc_norm": lambda n, g: scoring.acc_norm(n, item.choices, g),
            "prob": lambda n, g: scoring.prob(n, g),
        }[metric](answer.choice_nats, item.gold)
    if value is None and status == "ok":
        status = "missing"
    return value, status
