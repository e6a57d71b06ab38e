"""One item on both sides: what was asked, and what each arm made of it at every seed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from codestage.errors import UserError
from codestage.report.viewer.items import Asked, Side, scan

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
COLUMNS = (
    "seed",
    "metric",
    "value",
    "status",
    "gold",
    "output",
    "choice_scores",
    "prompt_hash",
    "prompt_tokens",
    "output_tokens",
    "sample",
)
SHOWN = ("instruction", "choices", "answer", "aliases", "rationale", "gold")
NOT_AT_HAND = "The prompt's text is not at hand: the study's store no longer holds its frozen items."


def detail(asked: Asked, task: str, item: str) -> dict[str, Any]:
    """The item as it was asked and, for each side, one entry a seed.

    Raises:
        UserError: no side has such an item.
    """
    sides = [_rows(asked, side, task, item) for side in (asked.a, asked.b)]
    if not any(sides):
        raise UserError(f"no item {item!r} of task {task!r} with these arms, stages and modes")
    gold = next((row["gold"] for rows in sides for row in rows), None)
    frozen = asked.a.folder.frozen(task, item, gold) or asked.b.folder.frozen(task, item, gold)
    prompt = _prompt(frozen, asked.cot) if frozen else None
    choices = prompt["choices"] if prompt else []
    return {
        "task": task,
        "item": item,
        "gold": gold,
        "prompt": prompt,
        "note": None if prompt else NOT_AT_HAND,
        "a": _by_seed(sides[0], asked, choices),
        "b": _by_seed(sides[1], asked, choices),
    }


def _rows(asked: Asked, side: Side, task: str, item: str) -> list[dict[str, Any]]:
    wanted = {"arm": side.arm, "stage": side.stage, "cot": asked.cot, "task": task, "item": item}
    at = {} if asked.seed is None else {"seed": asked.seed}
    return list(scan(side.folder, COLUMNS, wanted | at).to_pylist())


def _prompt(frozen: Mapping[str, Any], cot: str) -> dict[str, Any]:
    """What the page shows of a frozen item; the reasoning only where the model was given it."""
    shown = {key: frozen.get(key) for key in SHOWN}
    shown["choices"] = [str(choice) for choice in shown["choices"] or ()]
    code = frozen.get("code") or {}
    if cot != "supplied":
        shown["rationale"] = None
    return shown | {"program": code.get("prompt"), "lettered": bool(frozen.get("lettered"))}


def _by_seed(
    rows: Sequence[Mapping[str, Any]], asked: Asked, choices: Sequence[str]
) -> list[dict[str, Any]]:
    """An entry a seed: the row of the metric that was asked for, every metric, answers that were drawn."""
    entries = []
    for seed in sorted({row["seed"] for row in rows}):
        here = [row for row in rows if row["seed"] == seed]
        row = next((r for r in here if r["metric"] == asked.metric), None)
        if row is None:
            continue
        drawn = [r for r in here if r["sample"] is not None]
        scores = row["choice_scores"]
        scores = scores and [_known(score) for score in scores]
        entries.append(
            {key: row[key] for key in ("seed", "status", "output", "prompt_hash")}
            | {"value": _known(row["value"])}
            | {"prompt_tokens": row["prompt_tokens"], "output_tokens": row["output_tokens"]}
            | {"choice_scores": scores, "chosen": _chosen(row["output"], scores, choices)}
            | {"metrics": {r["metric"]: _known(r["value"]) for r in here if r["sample"] is None}}
            | {"drawn": [{"output": r["output"], "value": _known(r["value"])} for r in drawn]}
        )
    return entries


def _known(value: float | None) -> float | None:
    """A score as JSON can hold it: an infinite one is unknown."""
    return value if value is not None and math.isfinite(value) else None


def _chosen(output: str | None, scores: Sequence[float] | None, choices: Sequence[str]) -> int | None:
    """Which choice the output names, as its text or its letter; None where choices were not scored."""
    if not scores or output is None:
        return None
    if output in choices:
        return list(choices).index(output)
    place = LETTERS.find(output) if len(output) == 1 else -1
    return place if 0 <= place < len(scores) else None
