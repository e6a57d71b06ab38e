import itertools

import numpy as np
import pytest
from codestage.data.prepare import pack, prepare, told
from hypothesis import given, settings
from hypothesis import strategies as st

from codestage.data import instruct
from codestage.data.shards import Shard
from codestage.data.sources import Document, Example
from codestage.data.tokenizer import train
from codestage.errors import RunError, UserError

TALES = [Document(f"Tale {i}. " + f"The cat of house {i} slept. " * (i % 5), str(i)) for i in range(60)]
CHAT = [
    Example(f"Add {i} and {i % 7}.", str(i + i % 7), "count on " * (i % 4 + 1) if i % 3 else None)
    for i in range(60)
]
TOKENIZER = train({"a": [d.text for d in TALES], "b": [e.text for e in CHAT]}, vocab_size=320)


def made(records, out, seq_len=32, **more):
    meta = prepare(records, out=out, tokenizer=TOKENIZER, seq_len=seq_len, domain="text", **more)
    return meta, Shard(out)


@pytest.mark.parametrize("seq_len", [1, 7, 32, 500])
def test_rows_of_documents_are_one_stream_with_one_token_of_overlap(tmp_path, seq_len):
    meta, shard = made(TALES, tmp_path / "a", seq_len)
    stream = np.concatenate([shard.tokens[:, :-1].ravel(), shard.tokens[-1:, -1]])
    assert np.array_equal(shard.tokens[1:, 0], shard.tokens[:-1, -1])
    texts = [TOKENIZER.decode(part) for part in np.split(stream, np.flatnonzero(stream == 0))]
    texts = [text.removeprefix("<|endoftext|>") for text in texts if text]
    whole = {document.text for document in TALES}
    assert set(texts[:-1]) <= whole
    assert any(text.startswith(texts[-1]) for text in whole)
    assert meta.documents == 60
    assert meta.bytes == sum(len(d.text.encode()) for d in TALES)
    in_all = sum(len(TOKENIZER.encode(d.text)) + 1 for d in TALES)
    assert (meta.tokens + meta.dropped_tokens, meta.tokens) == (in_all, in_all // seq_len * seq_len)
    assert (shard.mask, shard.counts, shard.row_counts.tokens) == (None, None, meta.tokens)


def test_the_order_is_by_content_and_seed_and_not_by_file(tmp_path):
    _, one = made(TALES, tmp_path / "a")
    moved = [Document(d.text, "elsewhere " + d.id) for d in reversed(TALES)]
    _, same = made(moved, tmp_path / "b")
    _, other = made(TALES, tmp_path / "c", seed=1)
    assert np.array_equal(one.tokens, same.tokens)
    assert not np.array_equal(one.tokens, other.tokens)


def test_rows_of_examples_hold_them_whole_and_mask_all_but_the_responses(tmp_path):
    meta, shard = made(CHAT, tmp_path / "a", 64)
    seen = []
    for row, mask, count in zip(shard.tokens, shard.mask, shard.counts, strict=True):
        assert row[0] == row[count] == 0
        assert (row[count + 1 :] == 1).all()
        assert not mask[count + 1 :].any()
        ends = np.flatnonzero(row == 0)
        for start, end in itertools.pairwise(ends):
            asked = mask[start + 1 : end] == 0
            prompt = row[start + 1 : end][asked]
            answer = row[start + 1 : end][~asked]
            assert mask[end] == 1  # the end of the response is predicted
            assert np.array_equal(np.sort(asked)[::-1], asked)  # first the prompt, then the answer
            seen.append((TOKENIZER.decode(prompt), TOKENIZER.decode(answer)))
    assert sorted(seen) == sorted(told(example) for example in CHAT)
    assert meta.tokens == shard.counts.sum() == shard.row_counts.tokens
    assert (meta.documents, meta.dropped) == (60, 0)


def test_a_rationale_is_part_of_the_response_after_a_prompt_that_asks_for_it():
    prompt, answer = told(Example("Why?", "So.", "Think."))
    assert prompt == instruct.prompt("Why?", cot=True)
    assert instruct.split_response(answer) == ("Think.", "So.")
    assert told(Example("Why?", "So.")) == (instruct.prompt("Why?"), instruct.response("So."))


def test_examples_longer_than_a_row_are_counted(tmp_path):
    long = Example("Say it.", "very " * 100 + "long")
    meta, shard = made([*CHAT, long, long], tmp_path / "a", 64)
    tokens = 1 + sum(len(TOKENIZER.encode(text)) for text in told(long))
    assert (meta.documents, meta.dropped, meta.dropped_tokens) == (60, 2, 2 * tokens)
    assert meta.longest == tokens - 1
    assert (shard.tokens[:, 0] == 0).all()


@pytest.mark.parametrize("records", [TALES[:2], [CHAT[0]]], ids=["documents", "examples"])
def test_a_source_that_fills_no_row_is_refused_and_the_advice_works(tmp_path, records):
    with pytest.raises(UserError, match="et seq_len to") as refused:
        made(records, tmp_path / "a", 500 if records[0] in TALES else 8)
    words = str(refused.value).replace(",", "").split()
    made(records, tmp_path / "b", int(words[words.index("seq_len") + 2]))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=200))
@settings(deadline=None)
def test_packing_puts_each_example_in_one_row_and_wastes_little(lengths):
    rows = pack(np.array(lengths), 30)
    assert sorted(n for row in rows for n in row) == list(range(len(lengths)))
    assert all(sum(lengths[n] for n in row) <= 30 for row in rows)
    full = sorted(sum(lengths[n] for n in row) for row in rows)
    assert len(rows) < 2 or full[0] + full[1] > 30  # no two rows could have been one


def test_packing_takes_the_fullest_row_that_holds_it():
    assert pack(np.array([7, 5, 3, 3, 2]), 10) == [[0, 2], [1, 3, 4]]


def test_a_full_disk_says_where_and_how_much(tmp_path):
    out = tmp_path / "a"
    out.mkdir()
    (out / "rows.tokens").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"rows\.tokens: no space left on the disk for [\d,]+ more bytes"):
        made(TALES, out)


def test_a_damaged_shard_is_refused(tmp_path):
    made(TALES, tmp_path / "a")
    rows = tmp_path / "a" / "rows.tokens"
    rows.write_bytes(rows.read_bytes()[:-2])
    with pytest.raises(RunError, match=r"rows\.tokens: damaged \([\d,]+ bytes"):
        Shard(tmp_path / "a")
    (tmp_path / "a" / "meta.json").write_text("{")
    with pytest.raises(RunError, match="not a prepared source"):
        Shard(tmp_path / "a")
