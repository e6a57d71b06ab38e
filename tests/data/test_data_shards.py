"""Prepared sources: what rows hold, what is masked, what is left out and counted."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shards_fixture import prepare_documents, prepare_examples

from codestage.data.instruct import PLAIN, split_response
from codestage.data.shards import Shard, _fit
from codestage.data.sources import Document, Example
from codestage.data.tokenizer import train_tokenizer
from codestage.errors import UserError

TALES = [Document(str(i), f"Tale {i}. " + f"The cat of house {i} slept. " * (i % 5)) for i in range(60)]
CHAT = [
    Example(str(i), f"Add {i} and {i % 7}.", str(i), "count on " * (i % 4 + 1) if i % 3 else None)
    for i in range(60)
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = {"a": [d.text for d in TALES], "b": [e.content for e in CHAT]}
    return train_tokenizer(
        texts, vocab_size=320, characters=10_000, out=tmp_path_factory.mktemp("tokenizer")
    )


@pytest.mark.parametrize("seq_len", [1, 7, 32, 500])
def test_rows_of_documents_are_one_stream_with_one_token_of_overlap(tmp_path, tokenizer, seq_len):
    meta = prepare_documents(TALES, tokenizer, seq_len=seq_len, out=tmp_path)
    shard = Shard(tmp_path)
    stream = np.concatenate([shard.tokens[:, :-1].ravel(), shard.tokens[-1:, -1]])
    assert np.array_equal(shard.tokens[1:, 0], shard.tokens[:-1, -1])
    whole = list(itertools.chain.from_iterable([0, *tokenizer.encode(d.text).ids] for d in TALES))
    assert stream.tolist() == [*whole, 0][: len(stream)]
    assert meta["tokens"] == len(whole) // seq_len * seq_len == shard.counts.tokens
    assert meta["tokens"] + meta["tokens_left_over"] == len(whole)
    assert meta["bytes"] == sum(len(d.text.encode()) for d in TALES)


def test_rows_of_examples_hold_them_whole_and_mask_all_but_the_responses(tmp_path, tokenizer):
    meta = prepare_examples(CHAT, tokenizer, seq_len=64, out=tmp_path)
    shard = Shard(tmp_path)
    seen = []
    for row, mask, count in zip(shard.tokens, shard.mask, shard.counts.counts, strict=True):
        assert row[0] == row[count] == 0
        assert (row[count + 1 :] == 1).all()
        assert not mask[count + 1 :].any()
        assert np.array_equal(np.flatnonzero(mask & 2), np.flatnonzero(row == 0)[:-1])
        mask = mask & 1
        for start, end in itertools.pairwise(np.flatnonzero(row == 0)):
            asked = mask[start + 1 : end] == 0
            assert mask[end] == 1  # the end of the response is predicted
            assert np.array_equal(np.sort(asked)[::-1], asked)  # first the prompt, then the answer
            part = row[start + 1 : end]
            seen.append((tokenizer.decode(part[asked]), tokenizer.decode(part[~asked])))
    told = [
        (
            PLAIN.prompt(e.prompt, cot=e.rationale is not None),
            PLAIN.response(e.response, rationale=e.rationale),
        )
        for e in CHAT
    ]
    assert sorted(seen) == sorted(told)
    assert meta["tokens"] == shard.counts.tokens
    assert (meta["documents"], meta["dropped_too_long"]) == (60, 0)


def test_a_rationale_is_part_of_the_response_and_comes_off_again():
    assert split_response(PLAIN.response("So.", rationale="Think.")) == ("Think.", "So.")
    assert PLAIN.prompt("Why?", cot=True) != PLAIN.prompt("Why?")


def test_examples_longer_than_a_row_are_counted(tmp_path, tokenizer):
    long = Example("long", "Say it.", "very " * 100 + "long")
    meta = prepare_examples([*CHAT, long, long], tokenizer, seq_len=64, out=tmp_path)
    assert (meta["documents"], meta["dropped_too_long"]) == (60, 2)


def test_a_source_that_fills_no_row_is_refused(tmp_path, tokenizer):
    with pytest.raises(UserError, match="too little for one row of seq_len 500"):
        prepare_documents(TALES[:2], tokenizer, seq_len=500, out=tmp_path)
    with pytest.raises(UserError, match="too little"):
        prepare_examples(CHAT[:1], tokenizer, seq_len=4, out=tmp_path)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=200))
@settings(deadline=None)
def test_packing_puts_each_example_in_one_row_and_wastes_little(lengths):
    open_rows, closed = [], []
    for number, length in enumerate(lengths):
        closed += _fit([number] * length, [0] * length, open_rows, 30)
    rows = [row for row, _ in [*closed, *open_rows]]
    assert all(len(row) <= 30 for row in rows)
    assert sorted(itertools.chain(*rows)) == sorted(i for i, n in enumerate(lengths) for _ in range(n))
    assert all(len({r for r, row in enumerate(rows) if i in row}) == 1 for i in range(len(lengths)))
    if not closed:
        full = sorted(len(row) for row in rows)
        assert len(rows) < 2 or full[0] + full[1] > 30  # no two rows could have been one
