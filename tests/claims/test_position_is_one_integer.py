"""Claim: the position in the data is one integer; a batch depends on nothing else."""

from dataclasses import dataclass, fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shards_fixture import prepare_documents, prepare_examples

from codestage.data.batches import Batches
from codestage.data.mixture import MixturePlan, RowCounts
from codestage.data.shards import Shard
from codestage.data.sources import Document, Example
from codestage.data.tokenizer import train_tokenizer


@dataclass(frozen=True)
class Dose:
    tokens: int
    by_source: dict[str, int]


PHASES = [
    Dose(5_001, {"prose": 3_000, "chat": 2_001}),
    Dose(0, {"prose": 0, "chat": 0}),
    Dose(4_000, {"prose": 1_999, "chat": 2_001}),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    out = tmp_path_factory.mktemp("sources")
    prose = [
        Document(str(i), f"Tale {i}: " + f"the cat sat on mat {i}. " * (i % 9 + 1)) for i in range(200)
    ]
    chat = [
        Example(str(i), f"Add {i} and {i % 7}.", str(i + i % 7), "so " * (i % 5) + "it is")
        for i in range(200)
    ]
    texts = {"a": [d.text for d in prose], "b": [e.content for e in chat]}
    tokenizer = train_tokenizer(texts, vocab_size=300, characters=10_000, out=out)
    for name in ("prose", "chat"):
        (out / name).mkdir()
    prepare_documents(prose, tokenizer, seq_len=64, out=out / "prose")
    prepare_examples(chat, tokenizer, seq_len=64, out=out / "chat")
    return {name: out / name for name in ("prose", "chat")}


def opened(folders, order, batch):
    shards = {name: Shard(folder) for name, folder in folders.items()}
    counts = {name: shard.counts for name, shard in shards.items()}
    return Batches(MixturePlan(PHASES, order, counts, seed=7), shards, rows_per_batch=batch)


def same(one, two):
    return all(np.array_equal(getattr(one, f.name), getattr(two, f.name)) for f in fields(one))


@pytest.mark.parametrize("order", ["even", "random"])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_any_batch_alone_in_any_order_after_reopening_is_the_same(folders, order, batch):
    straight = opened(folders, order, batch)
    expected = [straight[number] for number in range(straight.n_batches)]
    numbers = np.random.default_rng(0).permutation(straight.n_batches).tolist()
    jumping = opened(folders, order, batch)
    for number in numbers[:40]:
        assert same(jumping[number], expected[number])
    for number in numbers[:8]:
        assert same(opened(folders, order, batch)[number], expected[number])


def test_batches_differ_from_each_other(folders):
    """So that the comparison above can fail."""
    batches = opened(folders, "even", 3)
    assert not any(same(batches[0], batches[i]) for i in range(1, batches.n_batches))


@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.integers(0, 2**60),
    st.sampled_from(["even", "random"]),
)
@settings(max_examples=60, deadline=None)
def test_any_range_of_a_plan_too_large_to_list_is_found_alone(start, length, seed, order):
    """Ten million rows: a range equals its rows asked for one by one."""
    counts = {"a": RowCounts(4_000_000, 2048), "b": RowCounts(900_000, 2048)}
    tokens = {"a": 7_000_001 * 2048 + 5, "b": 3_000_000 * 2048 - 9}
    plan = MixturePlan([Dose(sum(tokens.values()), tokens)], order, counts, seed=seed)
    start = start * 10 % plan.n_rows
    whole = plan.rows(start, start + length)
    for offset in range(len(whole.source)):
        one = plan.rows(start + offset, start + offset + 1)
        assert (one.source[0], one.ordinal[0], one.tokens[0]) == (
            whole.source[offset],
            whole.ordinal[offset],
            whole.tokens[offset],
        )


@pytest.mark.parametrize("world", [1, 2, 3, 5, 8, 11])
@pytest.mark.parametrize("order", ["even", "random"])
def test_any_number_of_ranks_share_out_the_same_batch(folders, order, world):
    batches = opened(folders, order, 8)
    for number in (0, 3, batches.n_batches - 1):
        parts = [opened(folders, order, 8).part(number, rank, world) for rank in range(world)]
        for field in fields(batches[number]):
            joined = np.concatenate([getattr(part, field.name) for part in parts])
            assert np.array_equal(joined, getattr(batches[number], field.name))
