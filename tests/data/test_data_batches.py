from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codestage.data.batches import Batches
from codestage.data.mixture import MixturePlan, RowCounts, row_of
from codestage.data.tokenizer import OWN


def slow(row, mask, tokens):
    """One row, one token at a time, from the words of docs/formats.md."""
    inputs, labels, documents, positions = [], [], [], []
    document, position = -1, 0
    for place in range(len(row) - 1):
        if place >= tokens:
            inputs.append(1), labels.append(-100), documents.append(-1), positions.append(0)
            continue
        if row[place] == 0 or place == 0:
            document, position = document + 1, 0
        inputs.append(row[place])
        labels.append(row[place + 1] if mask is None or mask[place + 1] & 1 else -100)
        documents.append(document)
        positions.append(position)
        position += 1
    return inputs, labels, documents, positions


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 6), st.booleans())
@settings(max_examples=100, deadline=None)
def test_batches_equal_a_slow_reading_of_the_format(seed, seq_len, per_batch, masked):
    generator = np.random.default_rng(seed)
    tokens = generator.choice([0, 2, 3, 4], (9, seq_len + 1)).astype(np.uint16)
    mask = None
    if masked:
        mask = generator.integers(0, 2, tokens.shape, np.uint8) | np.uint8(2) * (tokens == 0)
    counts = generator.integers(1, seq_len + 1, 9) if masked else None
    rows = RowCounts(9, seq_len, counts)
    shard = SimpleNamespace(tokens=tokens, mask=mask, rows=9, seq_len=seq_len, marks=OWN)
    asked = int(generator.integers(1, 15 * seq_len))
    phase = SimpleNamespace(tokens=asked, by_source={"a": asked})
    plan = MixturePlan([phase], "even", {"a": rows}, seed=seed)
    batches = Batches(plan, {"a": shard}, rows_per_batch=per_batch)
    table = plan.rows(0, plan.n_rows)
    numbers = row_of(seed, "a", table.ordinal, 9)
    for place in range(batches.n_batches * per_batch):
        batch, at = batches[place // per_batch], place % per_batch
        shown = [batch.tokens, batch.labels, batch.documents, batch.positions]
        assert all(part.shape == (per_batch, seq_len) and part.dtype == np.int32 for part in shown)
        if place < plan.n_rows:
            row = numbers[place]
            row_mask = None if mask is None else mask[row]
            expected = slow(tokens[row].tolist(), row_mask, int(table.tokens[place]))
        else:
            expected = slow([1] * (seq_len + 1), None, 0)
        assert [part[at].tolist() for part in shown] == list(expected)
        assert batch.sources[at] == (0 if place < plan.n_rows else -1)


def test_there_is_no_batch_after_the_last():
    phase = SimpleNamespace(tokens=10, by_source={"a": 10})
    plan = MixturePlan([phase], "even", {"a": RowCounts(5, 4)}, seed=0)
    shard = SimpleNamespace(
        tokens=np.full((5, 5), 7, np.uint16), mask=None, rows=5, seq_len=4, marks=OWN
    )
    batches = Batches(plan, {"a": shard}, rows_per_batch=2)
    assert batches.n_batches == 2
    for number in (2, -1):
        with pytest.raises(IndexError):
            batches[number]
