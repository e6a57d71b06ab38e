"""From arms to training segments: what arms share is one segment, trained once.

Two arms share batches as long as these hold the same rows at the same learning rates on top of the same
checkpoint. That is looked up in the plans of their rows, not in the names of their options.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from codestage.data.mixture import MixturePlan, RowCounts
from codestage.engine.store import Step
from codestage.study.expand import Arm, Run, StagePlan
from codestage.study.identity import digest, plain
from codestage.study.lr import lr_at
from codestage.study.models import ModelShape
from codestage.study.schema import ValidationSpec
from codestage.study.seeds import child

WORTH_SHARING = 0.05
"""A shared beginning shorter than this share of a stage is trained by each arm: a segment of its own
would cost a checkpoint and a start."""


@dataclass
class StageWork:
    """One stage of one run: its rows, its learning rates, and in the end its segments."""

    run: Run
    stage: StagePlan
    plan: MixturePlan
    rows: np.ndarray
    """`[batches, rows, 3]` int64: source number, ordinal, tokens; -1 where a batch is not full."""
    rates: np.ndarray
    """`[batches]` float64 learning rates."""
    segments: list[Step] = field(default_factory=list)

    @property
    def batches(self) -> int:
        return len(self.rates)

    def common(self, other: "StageWork") -> int:
        """Batches from the beginning that are the same in both."""
        n = min(self.batches, other.batches)
        same = (self.rows[:n] == other.rows[:n]).all(axis=(1, 2))
        same &= self.rates[:n] == other.rates[:n]
        return n if same.all() else int(np.argmin(same))


@dataclass(frozen=True)
class Supply:
    """Prepared sources of one row length: what they hold, and the steps that made them."""

    rows: Mapping[str, RowCounts]
    hashes: Mapping[str, str]
    validation: ValidationSpec | None = None


def stage_work(
    run: Run,
    stage: StagePlan,
    rows: Mapping[str, RowCounts],
    skip: Mapping[str, int],
    numbers: Mapping[str, int],
) -> StageWork:
    """Lay out one stage of one run."""
    plan = MixturePlan(stage.phases, stage.order, rows, seed=child(run.seed, "order"), skip=skip)
    width = stage.batch_tokens // stage.seq_len
    table = plan.rows(0, plan.n_rows)
    batches = -(-plan.n_rows // width)
    laid = np.full((batches * width, 3), -1, dtype=np.int64)
    number = np.array([numbers[name] for name in plan.names])
    laid[: plan.n_rows] = np.stack([number[table.source], table.ordinal, table.tokens], axis=1)
    before = np.concatenate([[0], np.cumsum(table.tokens, dtype=np.int64)])
    edges = np.minimum(np.arange(batches) * width, plan.n_rows)
    rates = [lr_at(stage.lr, stage.optimizer.lr, int(t), int(before[-1])) for t in before[edges]]
    return StageWork(run, stage, plan, laid.reshape(batches, width, 3), np.array(rates))


def training_steps(
    runs: Sequence[Run],
    supply: Mapping[int, Supply],
    shape: ModelShape,
    seq_len: int,
    model: Step | None = None,
) -> dict[str, list[StageWork]]:
    """Run name -> its stages, each with the segments that train it, shared where they are the same.

    `model` is the step that gives the weights to begin with; None: fresh ones, by the seed.
    """
    numbers = {n: i for i, n in enumerate(sorted({n for s in supply.values() for n in s.rows}))}
    result: dict[str, list[StageWork]] = {run.name: [] for run in runs}
    depth = max(len(run.arm.stages) for run in runs)
    for position in range(depth):
        groups: dict[tuple[int, str], tuple[Step | None, list[StageWork]]] = {}
        for run in runs:
            if position >= len(run.arm.stages):
                continue
            stage, before = run.arm.stages[position], result[run.name]
            skip = {n: r for work in before for n, r in work.plan.used().items()}
            work = stage_work(run, stage, supply[stage.seq_len].rows, skip, numbers)
            parent = before[-1].segments[-1] if before else model
            key = (run.seed, parent.hash if parent else "")
            groups.setdefault(key, (parent, []))[1].append(work)
            before.append(work)
        for parent, group in groups.values():
            _split(group, 0, parent, shape, seq_len, supply)
    return result


def _split(
    group: list[StageWork],
    start: int,
    parent: Step | None,
    shape: ModelShape,
    seq_len: int,
    supply: Mapping[int, Supply],
) -> None:
    """Give every work of `group` its segments from `start` on; all stand on checkpoint `parent`."""
    waiting = [work for work in group if work.batches > start]
    while waiting:
        first = waiting[0]
        cluster, end = [first], first.batches
        for other in waiting[1:]:
            shared = min(end, first.common(other)) if _compatible(first, other) else 0
            if shared - start >= max(1, WORTH_SHARING * first.batches):
                cluster.append(other)
                end = shared
        waiting = [work for work in waiting if work not in cluster]
        step = _segment(first, start, end, parent, shape, seq_len, supply)
        for work in cluster:
            work.segments.append(step)
        _split(cluster, end, step, shape, seq_len, supply)


def _compatible(a: StageWork, b: StageWork) -> bool:
    """Whether two stages train in the same way, their data and learning rate apart."""
    x, y = a.stage, b.stage
    size = ("seq_len", "batch_tokens", "micro_batch_tokens", "lower_micro_batch")
    alike = (*size, "optimizer", "adapter", "kind", "name")
    return all(getattr(x, field) == getattr(y, field) for field in alike)


def _segment(
    work: StageWork,
    start: int,
    end: int,
    parent: Step | None,
    shape: ModelShape,
    seq_len: int,
    supply: Mapping[int, Supply],
) -> Step:
    """The step that trains batches `start` to `end`; its identity is the work itself."""
    stage, rows = work.stage, work.rows[start:end]
    names = sorted(work.plan.names)
    local, drawn = _renumbered(rows, supply)
    held = supply[stage.seq_len]
    watched = held.hashes if held.validation else {}
    inputs = {name: held.hashes[name] for name in {*drawn, *watched}}
    if parent:
        inputs["model" if parent.kind == "model" else "parent"] = parent.hash
    label = f"{work.run.arm.name}#{work.run.seed} {stage.name} {start}-{end}"
    return Step(
        kind="train",
        label=label,
        config={
            "shape": plain(shape),
            "positions": seq_len,
            "seed": work.run.seed,
            "stage": {
                "kind": stage.kind,
                "seq_len": stage.seq_len,
                "batch_tokens": stage.batch_tokens,
                "micro_batch_tokens": stage.micro_batch_tokens,
                "optimizer": plain(stage.optimizer),
                **({"lower_micro_batch": True} if stage.lower_micro_batch else {}),
                **({"adapter": plain(stage.adapter)} if stage.adapter else {}),
            },
            **({"validation": plain(held.validation)} if held.validation else {}),
            **({"ends": end == work.batches} if stage.optimizer.ema else {}),
            "start": start,
            "stop": end,
            "rows": digest(local.tobytes().hex()),
            "rates": digest(work.rates[start:end].tobytes().hex()),
        },
        inputs=inputs,
        payload=SegmentPayload(
            shape=shape,
            stage=stage,
            start=start,
            stop=end,
            seed=work.run.seed,
            skip=dict(work.plan.start),
            shards={name: held.hashes[name] for name in sorted({*names, *watched})},
            validation=held.validation,
        ),
        cost=float(rows[:, :, 2].clip(min=0).sum()),
    )


def _renumbered(rows: np.ndarray, supply: Mapping[int, Supply]) -> tuple[np.ndarray, list[str]]:
    """Rows with their sources numbered among those drawn from, and these sources' names, sorted.

    A source that a study has beside them does not change what these rows are.
    """
    known = sorted({n for s in supply.values() for n in s.rows})
    drawn = [known[i] for i in np.unique(rows[:, :, 0]) if i >= 0]
    number = np.full(len(known) + 1, -1, dtype=np.int64)
    number[[known.index(name) for name in drawn]] = np.arange(len(drawn))
    local = rows.copy()
    local[:, :, 0] = number[rows[:, :, 0]]  # -1 looks up the last place, which stays -1
    return local, drawn


@dataclass(frozen=True)
class SegmentPayload:
    """How to do a train step: enough to lay its stage out again."""

    shape: ModelShape
    stage: StagePlan
    start: int
    stop: int
    seed: int
    skip: Mapping[str, int]
    shards: Mapping[str, str]
    """Source -> hash of its prepared rows: all of the stage's, though a segment may draw from fewer; with
    validation, all of the study's."""
    validation: ValidationSpec | None = None


def arms_of(runs: Sequence[Run]) -> list[Arm]:
    """The arms of `runs`, once each, in order."""
    return list({run.arm.name: run.arm for run in runs}.values())
