"""Evaluating one model by itself: a checkpoint, an exported folder, a downloaded one, a .gguf."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from scipy import stats

from codestage.engine.store import disk_message
from codestage.errors import RunError, UserError
from codestage.evaluate.backend import Backend
from codestage.evaluate.run import evaluate
from codestage.evaluate.tasks import Cot, Task, load_tasks


def evaluate_model(
    model: Path,
    *,
    suites: Sequence[str],
    cot: Sequence[str],
    items: int | None,
    out: Path | None,
    on_part: Callable[[str], None],
) -> list[dict[str, Any]]:
    """A row a task and mode: accuracy with its interval, chance, bits per byte; items go to `out`.

    Raises:
        UserError: unknown suite or mode, or no model.
        RunError: `out` cannot be written.
    """
    tasks = load_tasks(suites)
    modes = [mode for mode in get_args(Cot) if mode in cot]
    if wrong := [mode for mode in cot if mode not in modes]:
        raise UserError(f"chain of thought {wrong[0]!r}: write one of {', '.join(get_args(Cot))}")
    table = evaluate(Backend.load(model), tasks, cot=modes, seed=0, n_items=items, on_part=on_part)
    if out is not None:
        try:
            pq.write_table(table, out)
        except OSError as error:
            raise RunError(disk_message(out, error)) from None
    return [row for task in tasks for mode in modes for row in [_summary(table, task, mode)]]


def _summary(table: pa.Table, task: Task, mode: str) -> dict[str, Any]:
    rows = table.filter((pa.compute.field("task") == task.name) & (pa.compute.field("cot") == mode))
    values: dict[str, list[float]] = {}
    for metric, value in zip(rows["metric"].to_pylist(), rows["value"].to_pylist(), strict=True):
        if value is not None:
            values.setdefault(metric, []).append(value)
    right = values.get("acc", [])
    bits = values.get("bpb", [])
    low, high = _wilson(sum(right), len(right))
    return {
        "task": task.name,
        "domain": task.domain,
        "cot": mode,
        "accuracy": sum(right) / len(right) if right else None,
        "low": low,
        "high": high,
        "chance": task.chance,
        "bits_per_byte": sum(bits) / len(bits) if bits else None,
        "items": len(right),
    }


def _wilson(right: float, n: int) -> tuple[float | None, float | None]:
    """The 95 % interval of a share (Wilson 1927)."""
    if not n:
        return None, None
    z = float(stats.norm.ppf(0.975))
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return middle - half, middle + half
