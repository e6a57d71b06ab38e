"""The item records: one row for each task × item × chain-of-thought mode × metric."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codestage.errors import RunError

SCHEMA = pa.schema(
    [
        # Filled in by the engine, for one checkpoint can belong to many arms.
        ("run", pa.string()),
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("stage", pa.string()),
        ("tokens", pa.int64()),  # seen by the model so far
        ("task", pa.string()),
        ("suite", pa.string()),
        ("domain", pa.string()),
        ("item", pa.string()),
        ("cot", pa.string()),  # off | supplied | generated
        ("metric", pa.string()),
        ("value", pa.float64()),  # null = unknown, never 0
        ("status", pa.string()),  # ok | unparsed | empty | missing
        ("gold", pa.string()),  # text of the right answer
        ("output", pa.string()),  # what the model wrote, or the choice that it rates highest
        ("choice_scores", pa.list_(pa.float64())),  # log-likelihoods in nats, in the choices' order
        ("prompt_hash", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("output_tokens", pa.int64()),  # null where nothing was generated
        ("seconds", pa.float64()),  # this item's share of its batch's time
    ]
)
ENGINE_COLUMNS = ("run", "arm", "seed", "stage", "tokens")
STATUSES = ("ok", "unparsed", "empty", "missing")


def table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of SCHEMA; a column that a row lacks is null."""
    rows = list(rows)
    columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names}
    return pa.table(columns, schema=SCHEMA)


def fill(records: pa.Table, **values: Any) -> pa.Table:
    """The same records with the engine's columns set: `fill(t, run=…, arm=…, seed=…)`."""
    for name, value in values.items():
        assert name in ENGINE_COLUMNS, name
        at = SCHEMA.names.index(name)
        column = pa.array([value] * len(records), type=SCHEMA.field(name).type)
        records = records.set_column(at, SCHEMA.field(name), column)
    return records


def write(records: pa.Table, path: Path) -> None:
    """Write a parquet file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        pq.write_table(records.cast(SCHEMA), partial, compression="zstd")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error}; make room and run again") from error


def read(path: Path) -> pa.Table:
    """Read item records; RunError if the file is damaged or its columns are others."""
    try:
        return pq.read_table(path).select(SCHEMA.names).cast(SCHEMA)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise RunError(f"{path} holds no item records ({error}); evaluate again") from error
