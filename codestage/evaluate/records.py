"""Item records: one row for each task, item, mode and metric; nothing is averaged away."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from codestage.data.disk import sync
from codestage.evaluate.items import Cot, Item
from codestage.evaluate.tasks import Task

PART = 1000
"""Items that are scored, and kept, at once."""
SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("stage", pa.string()),
        ("tokens", pa.int64()),
        ("task", pa.string()),
        ("suite", pa.string()),
        ("domain", pa.string()),
        ("item", pa.string()),
        ("cot", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("status", pa.string()),
        ("gold", pa.string()),
        ("output", pa.string()),
        ("choice_scores", pa.list_(pa.float64())),
        ("prompt_hash", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("sample", pa.int32()),
        ("seconds", pa.float32()),
    ]
)
"""`value` null = unknown. `status`: ok | unparsed | empty | missing | cut
(the prompt's beginning or the text's end, to fit the model's context). `sample` numbers the answers that were
drawn. `seconds` is the item's share of the time its batch took."""

IDENTITY = ("run", "arm", "seed", "stage", "tokens")
"""Columns that say which run a row belongs to: a checkpoint that many arms share is evaluated once."""

CHECKPOINT_SCHEMA = pa.schema([field for field in SCHEMA if field.name not in IDENTITY])


def named_parts(task: Task, mode: Cot, items: Sequence[Item]) -> Iterator[tuple[str, Sequence[Item]]]:
    """The items of each part of a task in a mode, with the part's name; the harness asks its own at once."""
    size = max(1, len(items)) if task.harness else PART
    for i in range(0, len(items), size):
        yield f"{task.name}-{mode}-{i // size}", items[i : i + size]


def kept(folder: Path, name: str, make: Callable[[], pa.Table]) -> pa.Table:
    """The part that `folder` holds under a name, or else made and put there."""
    path = folder / f"{name}.parquet"
    if not path.exists():
        keep(path, make())
    return pq.read_table(path).cast(CHECKPOINT_SCHEMA)


def keep(path: Path, part: pa.Table) -> None:
    """Put a part where `kept` looks for it, in one move."""
    fresh = path.with_suffix(".part")
    pq.write_table(part, fresh)
    sync(fresh)
    fresh.replace(path)
