"""Evaluating one checkpoint: every task, mode and item, as records."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pyarrow as pa

from codestage.data.instruct import PLAIN, Template
from codestage.evaluate.backend import Scored
from codestage.evaluate.records import CHECKPOINT_SCHEMA
from codestage.evaluate.scoring import (
    bits_per_byte,
    choice_accuracy,
    choice_probability,
    read_output,
    same_answer,
)
from codestage.evaluate.tasks import Cot, Item, Task, task_items

COT_TOKENS = 64
"""Most tokens of generated reasoning with its answer."""


class Speaker(Protocol):
    """What an evaluation needs of a model; `Backend` is one, the self-tests have others."""

    def loglikelihoods(self, requests: Sequence[tuple[str, Sequence[str]]]) -> list[list[Scored]]: ...

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[tuple[str, int]]: ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...


def evaluate(
    model: Speaker,
    tasks: Sequence[Task],
    *,
    cot: Sequence[Cot],
    seed: int,
    n_items: int | None = None,
    on_part: Callable[[str], None] = lambda part: None,
    template: Template = PLAIN,
) -> pa.Table:
    """Item records of a model on `tasks` in every mode of `cot` (see `records.CHECKPOINT_SCHEMA`).

    Likelihood scores of all choices are taken in the modes `off` and `supplied`; answers are generated
    where the task asks for it and, for every task, in the mode `generated`.
    """
    rows: list[dict[str, Any]] = []
    for mode in cot:
        on_part(mode)
        pairs = [(t, item) for t in tasks for item in task_items(t, seed=seed, n=n_items)]
        if mode != "generated":
            rows += _likelihood_rows(model, pairs, mode, template)
            pairs = [(t, item) for t, item in pairs if t.output_type == "generate_until"]
        rows += _generation_rows(model, pairs, mode, template)
    return pa.Table.from_pylist(rows, CHECKPOINT_SCHEMA)


def _likelihood_rows(
    model: Speaker, pairs: Sequence[tuple[Task, Item]], mode: Cot, template: Template
) -> list[dict[str, Any]]:
    response = template.response
    requests = [(i.prompt(mode, template), [response(c) for c in i.choices]) for _, i in pairs]
    lengths = _lengths(model, [prompt for prompt, _ in requests], template)
    rows = []
    scored = model.loglikelihoods(requests)
    for (task, item), (prompt, _), scores, length in zip(pairs, requests, scored, lengths, strict=True):
        nats = [s.nats for s in scores]
        right = scores[item.gold]
        values = {
            "prob": choice_probability(nats, item.gold),
            "bpb": bits_per_byte(right.nats, response(item.answer)),
        }
        if task.output_type == "multiple_choice":
            per_byte = [n / len(response(c).encode()) for n, c in zip(nats, item.choices, strict=True)]
            values["acc"] = choice_accuracy(nats, item.gold)
            values["acc_norm"] = choice_accuracy(per_byte, item.gold)
        best = item.choices[max(range(len(nats)), key=nats.__getitem__)]
        shared = _shared(task, item, mode, prompt, length) | {
            "output": best,
            "choice_scores": nats,
            "output_tokens": 0,
            "status": "ok",
        }
        rows += [shared | {"metric": name, "value": value} for name, value in values.items()]
    return rows


def _generation_rows(
    model: Speaker, pairs: Sequence[tuple[Task, Item]], mode: Cot, template: Template
) -> list[dict[str, Any]]:
    """`acc` and `format`; an answer that cannot be read is wrong, and its status says why."""
    if not pairs:
        return []
    limit = COT_TOKENS if mode == "generated" else max(t.max_new_tokens for t, _ in pairs)
    prompts = [item.prompt(mode, template) for _, item in pairs]
    lengths = _lengths(model, prompts, template)
    rows = []
    outputs = model.generate(prompts, max_new_tokens=limit)
    for (task, item), prompt, (text, tokens), length in zip(
        pairs, prompts, outputs, lengths, strict=True
    ):
        answer, status = read_output(text, cot=mode == "generated")
        right = answer is not None and same_answer(answer, item.answer)
        shared = _shared(task, item, mode, prompt, length) | {
            "output": text,
            "choice_scores": None,
            "output_tokens": tokens,
            "status": status,
        }
        rows += [
            shared | {"metric": "acc", "value": float(right)},
            shared | {"metric": "format", "value": float(answer is not None)},
        ]
    return rows


def _lengths(model: Speaker, prompts: Sequence[str], template: Template) -> list[int]:
    """Tokens of each prompt, with the begin token that goes before one without special tokens."""
    return [len(ids) + (not template.marked) for ids in model.encode(prompts)]


def _shared(task: Task, item: Item, mode: Cot, prompt: str, prompt_tokens: int) -> dict[str, Any]:
    return {
        "task": task.name,
        "suite": task.suite,
        "domain": task.domain,
        "item": item.id,
        "cot": mode,
        "gold": item.answer,
        "prompt_hash": hashlib.blake2b(prompt.encode(), digest_size=8).hexdigest(),
        "prompt_tokens": prompt_tokens,
    }
