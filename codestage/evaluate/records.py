"""Item records: one row for each task, item, mode and metric; nothing is averaged away."""

import pyarrow as pa

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
