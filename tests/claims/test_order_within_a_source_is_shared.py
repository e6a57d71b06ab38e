"""Claim: arms that share a seed see each source's rows in the same order, whatever the dose."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from codestage.data.batches import Batches
from codestage.data.mixture import MixturePlan, RowCounts
from codestage.data.tokenizer import OWN

SEQ_LEN, ROWS = 4, 23


@dataclass(frozen=True)
class Dose:
    tokens: int
    by_source: dict[str, int]


def shard(first, *, counts=None):
    """Every token of a row is the row's number, from `first` on."""
    tokens = np.repeat(first + np.arange(ROWS)[:, None], SEQ_LEN + 1, axis=1)
    mask = None if counts is None else np.ones(tokens.shape, np.uint8)
    held = RowCounts(ROWS, SEQ_LEN, counts)
    return SimpleNamespace(tokens=tokens, mask=mask, counts=held, rows=ROWS, seq_len=SEQ_LEN, marks=OWN)


SHARDS = {
    "prose": shard(1000),
    "code": shard(2000),
    "chat": shard(3000, counts=np.random.default_rng(0).integers(1, SEQ_LEN + 1, ROWS)),
}


def seen(phases, seed, *, batch=3, shards=SHARDS, skip=None):
    """Rows of each source in the order in which the batches show them."""
    counts = {name: one.counts for name, one in shards.items()}
    plan = MixturePlan(phases, "even", counts, seed=seed, skip=skip)
    shown = {name: [] for name in shards}
    if not plan.n_rows:
        return shown, plan
    batches = Batches(plan, shards, rows_per_batch=batch)
    for number in range(batches.n_batches):
        first = batches[number].tokens[:, 0].tolist()
        for row in (r for r in first if r != 1):
            shown[list(SHARDS)[row // 1000 - 1]].append(row)
    return shown, plan


doses = st.lists(
    st.fixed_dictionaries({name: st.integers(0, 150) for name in SHARDS}), min_size=1, max_size=4
).map(lambda parts: [Dose(sum(part.values()), part) for part in parts])


@given(doses, doses, st.integers(0, 2**50))
@settings(max_examples=100, deadline=None)
def test_two_arms_of_different_dose_see_the_same_rows_in_the_same_order(one, other, seed):
    first, _ = seen(one, seed)
    second, _ = seen(other, seed, batch=5)
    for name in SHARDS:
        both = min(len(first[name]), len(second[name]))
        assert first[name][:both] == second[name][:both]


def test_leaving_a_source_out_does_not_change_the_others():
    parts = {"prose": 60, "code": 60, "chat": 60}
    whole, _ = seen([Dose(180, parts)], 5)
    some = {name: SHARDS[name] for name in ("chat", "prose")}
    fewer, _ = seen([Dose(120, {"prose": 60, "chat": 60})], 5, shards=some)
    assert fewer["prose"] == whole["prose"]
    assert fewer["chat"] == whole["chat"]


@given(doses, doses, st.integers(0, 2**50))
@settings(max_examples=50, deadline=None)
def test_the_next_stage_goes_on_where_the_last_one_stopped(one, other, seed):
    first, plan = seen(one, seed)
    second, _ = seen(other, seed, skip=plan.used())
    together, _ = seen([*one, *other], seed)
    for name in SHARDS:
        assert first[name] + second[name] == together[name]


def test_seeds_and_epochs_differ_and_an_epoch_shows_every_row_once():
    phase = [Dose(3 * ROWS * SEQ_LEN, {"prose": 3 * ROWS * SEQ_LEN, "code": 0, "chat": 0})]
    orders = []
    for seed in (1, 2):
        rows = seen(phase, seed)[0]["prose"]
        orders += [rows[i * ROWS : (i + 1) * ROWS] for i in range(3)]
    assert all(sorted(order) == list(range(1000, 1000 + ROWS)) for order in orders)
    assert len({tuple(order) for order in orders}) == 6
