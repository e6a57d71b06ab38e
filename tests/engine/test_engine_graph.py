"""What arms share, against a reference that lays out every row of every run and compares each with each."""

import hashlib
import json
import math
import tracemalloc
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from conftest import TINY, packed

from codestage.data.mixture import MixturePlan, RowCounts, check_supply
from codestage.engine.data_steps import data_steps
from codestage.engine.graph import WORTH_SHARING, Supply, training_steps
from codestage.engine.plan import plan
from codestage.engine.run import run as do_run
from codestage.engine.store import Step
from codestage.errors import UserError
from codestage.study.expand import runs
from codestage.study.identity import digest, plain
from codestage.study.load import load_study
from codestage.study.lr import lr_at
from codestage.study.models import shape, shape_told
from codestage.study.seeds import child

CODE = "      text+code: {mix: {prose: 2, programs: 1}}\n"
CHAT = "      uniform: {mix: {chat: 5, code_chat: 3}}\n"
SCHEDULES = """\
      half:  {mix: {prose: 1, programs: 1}}
      down:  {phases: [{programs: 1}, {prose: 1, programs: 1}, {prose: 1}]}
      up:    {phases: [{prose: 1}, {prose: 1, programs: 1}, {programs: 1}]}
      split: {phases: [{prose: 1, programs: 1}, {prose: 1, programs: 1}]}
      end:   {phases: [{prose: 1, programs: 1}, {prose: 1}, {programs: 1}], lengths: [0.96, 0.02, 0.02]}
      same:  {phases: [{prose: 1, programs: 1}, {prose: 1, programs: 1}, {prose: 1}, {programs: 1}], lengths: [0.5, 0.46, 0.02, 0.02]}
      other: {phases: [{prose: 1, programs: 1}, {programs: 1}, {prose: 1}], lengths: [0.96, 0.02, 0.02]}
"""
MANY = "".join(f"      t{i}: {{mix: {{chat: {200 - i}, code_chat: {i}}}}}\n" for i in range(1, 40))
CONTROLS = "controls: [token-matched, additive]"
STUDIES = {
    "tiny": TINY,
    "ladder": TINY.replace("tokens: 4k", "tokens: 64k\n    budgets: [8k, 16k, 32k]"),
    "schedules": TINY.replace("tokens: 4k", "tokens: 40k\n    optimizer: {ema: 0.9}")
    .replace(CODE, SCHEDULES)
    .replace(CONTROLS, "controls: [additive, random-order, token-matched]"),
    "many": TINY.replace("tokens: 2k", "tokens: 30k").replace(CHAT, CHAT + MANY),
    "validation": TINY.replace(CONTROLS, "validation: {tokens: 300, times: 3}"),
    "two lengths": TINY.replace("tokens: 2k\n    seq_len: 64", "tokens: 2k\n    seq_len: 128").replace(
        "tokens: 2k", "tokens: 2k\n    adapter: {rank: 4}\n    micro_batch_tokens: auto"
    ),
    "a source in two lengths": TINY.replace(
        "  tune:", "  cooldown:\n    tokens: 3k\n    seq_len: 128\n    batch_tokens: 512\n    options:\n"
        "      text: {mix: {prose: 1}}\n      both: {mix: {prose: 1, programs: 2}}\n  tune:"
    ),
}  # fmt: skip
RECORDED = {
    "tiny": "c8bf5d3cf9546ea3",
    "ladder": "52b155cbf35bbe80",
    "schedules": "205010aa12b96c85",
}
"""Digests of all hashes, recorded when every row of every run was laid out; again when the version of `train` was
raised, and again with what a source holds in the place of the hash of what made it."""


@dataclass
class Laid:
    """A stage of a run, all of it."""

    run: Any
    stage: Any
    plan: MixturePlan
    rows: np.ndarray
    rates: np.ndarray
    held: dict
    segments: list = field(default_factory=list)

    def common(self, other):
        n = min(len(self.rates), len(other.rates))
        same = (self.rows[:n] == other.rows[:n]).all(axis=(1, 2)) & (self.rates[:n] == other.rates[:n])
        return n if same.all() else int(np.argmin(same))


def laid(run, stage, before, rows, numbers):
    skip = {}
    for work in before:  # what part of a source is used, and the least rows of this stage that hold it
        for name, count in work.plan.used().items():
            part = Fraction(count, work.held[name].rows)
            skip[name] = math.ceil(part * rows[name].rows)
    made = MixturePlan(stage.phases, stage.order, rows, seed=child(run.seed, "order"), skip=skip)
    width = stage.batch_tokens // stage.seq_len
    table = made.rows(0, made.n_rows)
    batches = -(-made.n_rows // width)
    all_rows = np.full((batches * width, 3), -1, dtype=np.int64)
    for i in range(made.n_rows):
        name = made.names[table.source[i]]
        all_rows[i] = numbers[name], table.ordinal[i], table.tokens[i]
    before_ = np.concatenate([[0], np.cumsum(table.tokens)])
    rates = [
        lr_at(stage.lr, stage.optimizer.lr, int(before_[min(b * width, made.n_rows)]), int(before_[-1]))
        for b in range(batches)
    ]
    return Laid(run, stage, made, all_rows.reshape(batches, width, 3), np.array(rates), rows)


def reference(study, supply, size):
    """Run name -> stages with their steps, by comparing all runs with one another."""
    numbers = {n: i for i, n in enumerate(sorted({n for s in supply.values() for n in s.rows}))}
    result = {run.name: [] for run in runs(study)}
    for position in range(len(study.stages)):
        groups: dict[tuple, list] = {}
        for run in runs(study):
            before = result[run.name]
            stage = run.arm.stages[position]
            work = laid(run, stage, before, supply[stage.seq_len].rows, numbers)
            parent = before[-1].segments[-1] if before else None
            groups.setdefault((run.seed, parent.hash if parent else ""), [parent]).append(work)
            before.append(work)
        for parent, *group in groups.values():
            split(group, 0, parent, supply, size, numbers)
    return result


def split(group, start, parent, supply, size, numbers):
    waiting = [w for w in group if len(w.rates) > start]
    while waiting:
        first, end = waiting[0], len(waiting[0].rates)
        cluster = [first]
        for other in waiting[1:]:
            shared = min(end, first.common(other))
            if shared - start >= max(1, WORTH_SHARING * len(first.rates)):
                cluster.append(other)
                end = shared
        waiting = [w for w in waiting if not any(w is c for c in cluster)]
        step = segment(first, start, end, parent, supply, size, numbers)
        for work in cluster:
            work.segments.append(step)
        split(cluster, end, step, supply, size, numbers)


def segment(work, start, end, parent, supply, size, numbers):
    stage, rows, held = work.stage, work.rows[start:end].copy(), supply[work.stage.seq_len]
    drawn = sorted(n for n in numbers if (rows[:, :, 0] == numbers[n]).any())
    for i, name in enumerate(drawn):  # in order, so that no number is given twice
        rows[:, :, 0][rows[:, :, 0] == numbers[name]] = i
    stage_told = {
        name: plain(getattr(stage, name))
        for name in ("kind", "seq_len", "batch_tokens", "micro_batch_tokens", "optimizer")
    }
    if stage.lower_micro_batch:
        stage_told["lower_micro_batch"] = True
    if stage.adapter:
        stage_told["adapter"] = plain(stage.adapter)
    config = {
        "shape": shape_told(size), "positions": max(supply), "seed": work.run.seed, "stage": stage_told,
        "start": start, "stop": end,
        "rows": digest(rows.tobytes().hex()), "rates": digest(work.rates[start:end].tobytes().hex()),
    }  # fmt: skip
    if held.validation:
        config |= {"validation": plain(held.validation), "drawn": drawn}
    if stage.optimizer.ema:
        config["ends"] = end == len(work.rates)
    watched = held.hashes if held.validation else {}
    inputs = {name: held.hashes[name] for name in {*drawn, *watched}}
    holds = {name: held.contents[name] for name in inputs}
    if parent:
        inputs["parent"] = parent.hash
    cost = float(work.rows[start:end, :, 2].clip(min=0).sum())
    label = f"{work.run.arm.name}#{work.run.seed} {stage.name} {start}-{end}"
    return Step("train", label, config, inputs, holds, cost=cost)


def study_of(tmp_path, name):
    path = tmp_path / "study.yaml"
    path.write_text(STUDIES[name])
    return path, load_study(path)


def supplies(study, *, full):
    made = {}
    for length in {s.seq_len for s in study.stages.values()}:
        rows = {
            name: RowCounts(64 * 10**6 // length - 1, length)
            if full or s.format != "instruct"
            else packed(20_000, length, i)
            for i, (name, s) in enumerate(study.sources.items())
        }
        names = {n: f"{n} in {length}" for n in rows}
        held = {n: f"rows of {name}" for n, name in names.items()}
        made[length] = Supply(rows, names, held, study.validation)
    return made


def told(works):
    return {
        name: [[(s.hash, s.label, s.cost, s.inputs) for s in work.segments] for work in stages]
        for name, stages in works.items()
    }


@pytest.mark.parametrize("full", [True, False], ids=["full rows", "packed rows"])
@pytest.mark.parametrize("name", STUDIES)
def test_steps_are_those_of_comparing_every_run_with_every_other(tmp_path, name, full):
    _, study = study_of(tmp_path, name)
    supply, size = supplies(study, full=full), shape(study.model, 384)
    works = training_steps(runs(study), supply, size, max(supply))
    slow = reference(study, supply, size)
    assert told(works) == told(slow)
    for run, stages in works.items():
        for work, other in zip(stages, slow[run], strict=True):
            assert work.plan.used() == work.layout.used == other.plan.used()
            assert work.plan.start == other.plan.start == work.segments[-1].payload.skip
            assert (work.layout.rows(0, work.batches) == other.rows).all()


@pytest.mark.parametrize("watch", ["", "validation: {tokens: 300, times: 3}"], ids=["alone", "watched"])
def test_text_alone_and_code_alone_are_two_steps(tmp_path, watch):
    """Also where the losses of both are measured, so that both are inputs of both steps."""
    alone = "      {}: {{mix: {{{}: 1}}}}\n"
    path = tmp_path / "study.yaml"
    path.write_text(TINY.replace(CODE, alone.format("code", "programs")).replace(CONTROLS, watch))
    study = load_study(path)
    supply = supplies(study, full=True)
    works = training_steps(runs(study), supply, shape(study.model, 384), max(supply))
    firsts = {
        run.partition("/")[0]: stages[0].segments[0] for run, stages in works.items() if run[-2:] == "#0"
    }
    assert set(firsts) == {"text", "code"}
    assert firsts["text"].hash != firsts["code"].hash


@pytest.mark.parametrize("name", STUDIES)
def test_counting_finds_as_many_steps_of_the_same_cost(tmp_path, name):
    _, study = study_of(tmp_path, name)
    supply, size = supplies(study, full=True), shape(study.model, 384)
    found = []
    for count in (False, True):
        works = training_steps(runs(study), supply, size, max(supply), count=count)
        steps = {s.hash: s for stages in works.values() for w in stages for s in w.segments}
        found.append((len(steps), sorted(s.cost for s in steps.values())))
        ends = {w.segments[-1].hash for stages in works.values() for w in stages}
        found[-1] += (len(ends),)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", RECORDED)
def test_hashes_are_those_that_stores_hold_already(tmp_path, name):
    _, study = study_of(tmp_path, name)
    supply = supplies(study, full=False)
    found = []
    for compiled in (True, False):
        size = replace(shape(study.model, 384), compile=compiled)
        works = training_steps(runs(study), supply, size, max(supply))
        hashes = [[s.hash for s in w.segments] for stages in works.values() for w in stages]
        found.append(hashlib.blake2b(json.dumps(hashes).encode(), digest_size=8).hexdigest())
    assert found[0] == RECORDED[name] != found[1]  # uncompiled, the rounding is another


def test_arms_are_counted_without_laying_out_their_rows(tmp_path):
    """100 tunings of 39,063 rows: laid out, they would hold 94 MB."""
    options = "".join(
        f"      t{i}: {{mix: {{chat: {2000 - i}, code_chat: {i}}}}}\n" for i in range(1, 100)
    )
    text = TINY.replace("tokens: 2k", "tokens: 2500k").replace(CHAT, options)
    (tmp_path / "large.yaml").write_text(text.replace(CONTROLS + "\n", ""))
    study = load_study(tmp_path / "large.yaml")
    supply, made = supplies(study, full=True), runs(study)
    tracemalloc.start()
    works = training_steps(made, supply, shape(study.model, 384), max(supply), count=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(works) == 400
    assert peak < 15e6


def test_arms_that_the_data_will_size_are_planned_as_arms_of_their_own(tmp_path):
    """For each of two seeds: 4k of pre-training with 2k of tuning after it, and a tuning of 2k in either size."""
    path, found = tmp_path / "study.yaml", []
    for controls in ("[]", "[flop-matched]", "[flop-matched, example-matched]"):
        path.write_text(TINY.replace(CONTROLS, f"controls: {controls}"))
        found.append(plan(path))
    without, flops, both = found
    assert flops["tokens"] == without["tokens"] + 2 * (4000 + 2000 + 2000)
    assert both["tokens"] == flops["tokens"] + 2 * 2000
    for less, more in ((without, flops), (flops, both)):
        added = more["tokens"] - less["tokens"]
        assert more["flops"] - less["flops"] == pytest.approx(added * more["flops_per_token"])
        checkpoints = more["evaluation"]["checkpoints"] - less["evaluation"]["checkpoints"]
        assert more["steps"] - less["steps"] == 2 * checkpoints  # trained in one piece, and asked
    assert [w["evaluation"]["checkpoints"] for w in found] == [12, 12 + 2 * 3, 12 + 2 * 4]


def test_a_plan_refuses_what_would_be_held_out_in_one_length_alone(tmp_path):
    path = tmp_path / "study.yaml"
    text = STUDIES["a source in two lengths"]
    path.write_text(text.replace(CONTROLS, "validation: {tokens: 300, times: 3}"))
    said = []
    for refuse in (plan, lambda path: data_steps(load_study(path), path)):
        with pytest.raises(
            UserError, match=r"study\.yaml:\d+: validation: source 'prose'.* 64 and 128"
        ) as e:
            refuse(path)
        said.append(str(e.value))
    assert said[0] == said[1]


def test_a_control_that_makes_a_stage_endless_is_refused(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(TINY.replace("programs: 1}", "programs: 1000000000000000}"))
    with pytest.raises(
        UserError, match=r"arm 'text@token-matched/text', stage 'pretrain': .* steps; give"
    ):
        plan(path)


def test_of_a_source_drawn_in_longer_rows_the_part_used_is_passed_over(tmp_path):
    """20M tokens in rows of 512, then 2M in rows of 2,048, of a source that holds 24M."""
    text = STUDIES["a source in two lengths"].replace(
        "tokens: 4k\n    seq_len: 64", "tokens: 20M\n    seq_len: 512"
    )
    text = text.replace("tokens: 3k\n    seq_len: 128", "tokens: 2M\n    seq_len: 2048")
    (tmp_path / "study.yaml").write_text(text.replace("batch_tokens: 512", "batch_tokens: 16384"))
    study = load_study(tmp_path / "study.yaml")
    supply = {
        length: Supply(
            {name: RowCounts(24 * 10**6 // length, length) for name in study.sources},
            dict.fromkeys(study.sources, str(length)),
            dict.fromkeys(study.sources, str(length)),
        )
        for length in (64, 512, 2048)
    }
    works = training_steps(runs(study), supply, shape(study.model, 384), max(supply))
    before, after, _ = works["text/text/text#0"]
    assert before.layout.used == {"prose": 39_063}  # of 46,875
    assert after.layout.start == after.segments[0].payload.skip == {"prose": 9766}  # of 11,718
    assert after.layout.used == {"prose": 9766 + 977}
    check_supply(after.layout.used, after.supply, {"prose": 1.0})


@pytest.mark.slow
@pytest.mark.parametrize("longer", ["pretrain", "tune"])
def test_learned_positions_are_those_of_the_longest_rows(tmp_path, longer):
    """The weights of one stage are those of the next, which GPT-2's table of positions is one of."""
    before, after = TINY.split(f"  {longer}:\n")
    after = after.replace("seq_len: 64", "seq_len: 128", 1)
    path = tmp_path / "study.yaml"
    path.write_text(f"{before}  {longer}:\n{after}".replace("family: llama", "family: gpt2"))
    do_run(path, tmp_path / "out", workers=2, on_event=lambda event: None)
    trained = list((tmp_path / "out" / "store" / "train").glob("*/config.json"))
    assert len(trained) > 4
    assert {json.loads(file.read_text())["n_positions"] for file in trained} == {128}


def test_a_mean_of_weights_ends_a_stage_and_nothing_goes_on_from_it(tmp_path):
    """The shorter budget is a beginning of the longer one, to the batch: without a mean they share it."""
    text = TINY.replace("tokens: 4k", "tokens: 8192\n    budgets: [4096]{}")
    text = text.replace("{schedule: wsd, warmup_tokens: 1k, decay: 0.25}", "{schedule: constant}")
    path, shared = tmp_path / "study.yaml", {}
    for more in ("", "\n    optimizer: {ema: 0.9}"):
        path.write_text(text.replace(CONTROLS, "").replace("[4096]{}", f"[4096]{more}"))
        study = load_study(path)
        supply = supplies(study, full=True)
        works = training_steps(runs(study), supply, shape(study.model, 384), max(supply))
        firsts = {name: stages[0].segments for name, stages in works.items()}
        pair = firsts["text/text#0"], firsts["text@4.096k/text#0"]
        shared[more] = {s.hash for s in pair[0]} & {s.hash for s in pair[1]}
        for segments in firsts.values() if more else ():
            ends = [s.config["ends"] for s in segments]
            assert ends == [False] * (len(ends) - 1) + [True]
    assert [bool(hashes) for hashes in shared.values()] == [True, False]
