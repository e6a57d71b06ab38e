"""Claim: a stage's batches hold exactly the tokens of each source that were asked for.

Counted one token at a time in the batches, whatever the mix, phases, row length and batch size.
Every token here tells its source, so nothing is taken from what the batches say of themselves.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from codestage.data.batches import Batches
from codestage.data.mixture import MixturePlan, RowCounts
from codestage.data.tokenizer import OWN

PER_SOURCE = 1_000_000


@dataclass(frozen=True)
class Dose:
    tokens: int
    by_source: dict[str, int]


def shard(number, seq_len, counts=None, *, n_rows=0):
    """A source in memory whose every token names it; a document starts every fifth token."""
    rows = n_rows or len(counts)
    tokens = 2 + number * PER_SOURCE + np.arange(rows * (seq_len + 1)).reshape(rows, -1) % 999
    mask = None if counts is None else (tokens % 2).astype(np.uint8)
    counts = None if counts is None else np.array(counts, np.int32)
    held = RowCounts(rows, seq_len, counts)
    return SimpleNamespace(tokens=tokens, mask=mask, counts=held, rows=rows, seq_len=seq_len, marks=OWN)


@st.composite
def stages(draw):
    seq_len = draw(st.integers(1, 12))
    names = [f"s{i}" for i in range(draw(st.integers(1, 5)))]
    shards = {}
    for number, name in enumerate(names):
        n_rows = draw(st.integers(1, 40))
        if draw(st.booleans()):
            counts = draw(st.lists(st.integers(1, seq_len), min_size=n_rows, max_size=n_rows))
            shards[name] = shard(number, seq_len, counts)
        else:
            shards[name] = shard(number, seq_len, n_rows=n_rows)
    phases = []
    for _ in range(draw(st.integers(1, 4))):
        parts = {name: draw(st.integers(0, 150)) for name in names}
        phases.append(Dose(sum(parts.values()), parts))
    if not any(phase.tokens for phase in phases):
        phases = [Dose(5, dict.fromkeys(names, 0) | {names[0]: 5})]
    return shards, phases, draw(st.integers(1, 7)), draw(st.integers(0, 2**40))


def rows_counted(batches, names):
    """Tokens of each source `[rows, sources]` in every row of the batches that is not padding."""
    out = []
    for number in range(batches.n_batches):
        for row in batches[number].tokens.tolist():
            held = [0] * len(names)
            for token in row:
                if token != 1:  # padding
                    held[(token - 2) // PER_SOURCE] += 1
            if sum(held):
                out.append(held)
    return np.array(out, np.int64).reshape(-1, len(names))


def batches_of(shards, phases, batch, seed, order="even"):
    counts = {name: one.counts for name, one in shards.items()}
    return Batches(MixturePlan(phases, order, counts, seed=seed), shards, rows_per_batch=batch)


@given(stages())
@settings(max_examples=150, deadline=None)
def test_each_phase_holds_its_tokens_and_every_window_its_shares(stage):
    shards, phases, batch, seed = stage
    names = list(shards)
    held = rows_counted(batches_of(shards, phases, batch, seed), names)
    seq_len = shards[names[0]].tokens.shape[1] - 1
    done = np.concatenate([[0], held.sum(axis=1).cumsum()])
    begin = 0
    for phase in phases:
        end = int(np.searchsorted(done, done[begin] + phase.tokens))
        inside = held[begin:end]
        assert inside.sum(axis=0).tolist() == [phase.by_source[name] for name in names]
        if phase.tokens:
            share = np.array([phase.by_source[name] for name in names]) / phase.tokens
            error = inside.cumsum(axis=0) - inside.sum(axis=1).cumsum()[:, None] * share
            # 1.5 rows from interleaving, and 1 more where the phase's last rows are cut
            assert np.abs(error).max() <= 2.5 * seq_len
        begin = end
    assert begin == len(held)


@given(stages(), st.sampled_from(["even", "random"]))
@settings(max_examples=100, deadline=None)
def test_what_the_batches_report_is_what_they_hold(stage, order):
    shards, phases, batch, seed = stage
    names = list(shards)
    batches = batches_of(shards, phases, batch, seed, order)
    held = rows_counted(batches, names)
    total = {name: sum(phase.by_source[name] for phase in phases) for name in names}
    given = {name: tokens for name, tokens in total.items() if tokens}
    assert dict(zip(names, held.sum(axis=0).tolist(), strict=True)) == total
    assert batches.by_source() == given
    for number in range(batches.n_batches + 1):
        assert batches.tokens_before(number) == held[: number * batch].sum()
    half = batches.n_batches // 2
    first = dict(zip(names, held[: half * batch].sum(axis=0).tolist(), strict=True))
    assert batches.by_source(0, half) == {name: first[name] for name in given}


@given(stages(), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_sibling_schedules_of_the_same_totals_hold_the_same_totals(stage, pick):
    """The phases in another order, or all as one phase, change when a source comes, not how much."""
    shards, phases, batch, seed = stage
    turned = phases[pick % len(phases) :] + phases[: pick % len(phases)]
    totals = {name: sum(phase.by_source[name] for phase in phases) for name in shards}
    flat = [Dose(sum(totals.values()), totals)]
    for sibling in (phases, turned, flat):
        held = rows_counted(batches_of(shards, sibling, batch, seed), list(shards))
        assert held.sum(axis=0).tolist() == list(totals.values())


def test_an_even_mix_of_many_sources_holds_its_shares_too():
    """Twelve sources, one of them half of all: the case in which merging by time alone fails."""
    seq_len = 4
    parts = {f"s{i}": 4 for i in range(11)} | {"s11": 44}
    shards = {name: shard(i, seq_len, n_rows=12) for i, name in enumerate(parts)}
    held = rows_counted(batches_of(shards, [Dose(88, parts)], 5, 3), list(parts))
    share = np.array(list(parts.values())) / 88
    error = held.cumsum(axis=0) - held.sum(axis=1).cumsum()[:, None] * share
    assert np.abs(error).max() <= 1.5 * seq_len


def test_packed_rows_of_unlike_length_keep_to_their_shares_by_tokens():
    """One source's rows are nearly full, the other's nearly empty: by rows the shares would drift."""
    seq_len, generator = 40, np.random.default_rng(0)
    full = shard(0, seq_len, generator.integers(36, 41, 60))
    short = shard(1, seq_len, np.r_[generator.integers(1, 9, 200), generator.integers(30, 41, 200)])
    phase = Dose(4000, {"full": 2000, "short": 2000})
    held = rows_counted(batches_of({"full": full, "short": short}, [phase], 4, 1), ["full", "short"])
    error = held.cumsum(axis=0) - held.sum(axis=1).cumsum()[:, None] / 2
    assert np.abs(error).max() <= 0.75 * seq_len
