"""From arms to training segments: what arms share is one segment, trained once.

Two arms share batches as long as these hold the same rows at the same learning rates on top of the same
checkpoint. That is looked up in the plans of their rows, not in the names of their options.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from codestage.data.mixture import MixturePlan, RowCounts
from codestage.engine.layout import Layout
from codestage.engine.store import Step
from codestage.errors import UserError
from codestage.study.expand import Arm, Run, StagePlan
from codestage.study.identity import digest, plain
from codestage.study.models import ModelShape, shape_told
from codestage.study.schema import MOST_STEPS, ValidationSpec
from codestage.study.seeds import child

WORTH_SHARING = 0.05
"""A shared beginning shorter than this share of a stage is trained by each arm: a segment of its own
would cost a checkpoint and a start."""
PLANNED = "planned"
"""Stands for a segment whose rows were counted and compared but not all laid out."""


@dataclass
class StageWork:
    """One stage of one run: what it draws, and in the end the segments that train it."""

    run: Run
    stage: StagePlan
    layout: Layout
    way: Hashable
    """The same for stages that train in the same way, their data and learning rate apart."""
    supply: Mapping[str, RowCounts]
    segments: list[Step] = field(default_factory=list)

    @property
    def plan(self) -> MixturePlan:
        """The rows of the stage; made anew each time, since a plan of packed rows holds a table."""
        seed, start = child(self.run.seed, "order"), self.layout.start
        return MixturePlan(self.stage.phases, self.stage.order, self.supply, seed=seed, skip=start)

    @property
    def batches(self) -> int:
        return self.layout.batches


@dataclass(frozen=True)
class Supply:
    """Prepared sources of one row length: their rows, the steps that made them, and digests of what those hold."""

    rows: Mapping[str, RowCounts]
    hashes: Mapping[str, str]
    contents: Mapping[str, str]
    validation: ValidationSpec | None = None


def training_steps(
    runs: Sequence[Run],
    supply: Mapping[int, Supply],
    shape: ModelShape,
    seq_len: int,
    model: Step | None = None,
    *,
    count: bool = False,
) -> dict[str, list[StageWork]]:
    """Run name -> its stages, each with the segments that train it, shared where they are the same.

    `model` is the step that gives the weights to begin with; None: fresh ones, by the seed. With `count`
    the steps are as many and as large as without, but cannot be done: what their rows are is not told.
    """
    graph = _Graph(supply, shape, seq_len, count)
    result: dict[str, list[StageWork]] = {run.name: [] for run in runs}
    depth = max(len(run.arm.stages) for run in runs)
    for position in range(depth):
        groups: dict[tuple[int, str], tuple[Step | None, list[StageWork]]] = {}
        for run in runs:
            if position >= len(run.arm.stages):
                continue
            before = result[run.name]
            work = graph.work(run, run.arm.stages[position], before)
            parent = before[-1].segments[-1] if before else model
            key = (run.seed, parent.hash if parent else "")
            groups.setdefault(key, (parent, []))[1].append(work)
            before.append(work)
        for parent, group in groups.values():
            graph.split(group, 0, parent)
    return result


class _Graph:
    """What the stages of all runs share, found by comparing what they draw."""

    def __init__(
        self, supply: Mapping[int, Supply], shape: ModelShape, seq_len: int, count: bool
    ) -> None:
        self.supply, self.seq_len, self.count = supply, seq_len, count
        self.shape, self.told_shape = shape, shape_told(shape)
        names = sorted({n for s in supply.values() for n in s.rows})
        self.numbers = {name: i for i, name in enumerate(names)}
        self.layouts: dict[Hashable, Layout] = {}
        self.kept: OrderedDict[int, MixturePlan] = OrderedDict()
        self.stages: dict[int, tuple[StagePlan, Hashable, Hashable, dict[str, Any]]] = {}
        self.shared: dict[tuple[int, int], int] = {}
        self.made = 0

    def work(self, run: Run, stage: StagePlan, before: Sequence[StageWork]) -> StageWork:
        """One stage of one run, on the layout of all stages that draw the same.

        Raises:
            UserError: a control has made the stage longer than any table of its batches can be.
        """
        if stage.tokens > MOST_STEPS * stage.batch_tokens:
            raise UserError(
                f"arm {run.arm.name!r}, stage {stage.name!r}: {stage.tokens:,} tokens in batches of "
                f"{stage.batch_tokens:,} are more than {MOST_STEPS:,} steps; give code a smaller share of the option, "
                "or drop the control that makes this arm"
            )
        supply = self.supply[stage.seq_len].rows
        _, draws, way, _ = self._known(stage)
        used = {n: (r, w.supply[n].rows) for w in before for n, r in w.layout.used.items()}
        names = {n for p in stage.phases for n, tokens in p.by_source.items() if tokens}
        # of a source drawn in rows of another length before, the same part of it is used, in whole rows
        skip = tuple(
            (n, -(-used[n][0] * supply[n].rows // used[n][1])) for n in sorted(names) if n in used
        )
        # full rows in even order stand in the same places whatever the seed
        by_seed = stage.order == "random" or any(supply[n].counts is not None for n in names)
        seed = child(run.seed, "order") if by_seed else 0
        key = (draws, skip, seed)
        if key not in self.layouts:
            self.layouts[key] = Layout(stage, supply, seed, dict(skip), self.numbers, self.kept)
        return StageWork(run, stage, self.layouts[key], way, supply)

    def _known(self, stage: StagePlan) -> tuple[StagePlan, Hashable, Hashable, dict[str, Any]]:
        """The stage, what its rows and rates follow from, how else it trains, and what steps tell of it."""
        if id(stage) not in self.stages:
            size = (stage.seq_len, stage.batch_tokens)
            parts = tuple((p.tokens, tuple(p.by_source.items())) for p in stage.phases)
            draws = (parts, stage.order, *size, stage.lr, stage.optimizer.lr)
            micro = (stage.micro_batch_tokens, stage.lower_micro_batch)
            how = (stage.optimizer, stage.adapter, stage.kind, stage.name)
            # one that the data has not sized yet draws as its option does only until then
            way = (*size, *micro, *how, stage.matched)
            told = {
                "kind": stage.kind,
                "seq_len": stage.seq_len,
                "batch_tokens": stage.batch_tokens,
                "micro_batch_tokens": stage.micro_batch_tokens,
                "optimizer": plain(stage.optimizer),
                **({"lower_micro_batch": True} if stage.lower_micro_batch else {}),
                **({"adapter": plain(stage.adapter)} if stage.adapter else {}),
                **({"matched": stage.matched} if stage.matched else {}),
            }
            self.stages[id(stage)] = (stage, draws, way, told)
        return self.stages[id(stage)]

    def split(self, group: Sequence[StageWork], start: int, parent: Step | None) -> None:
        """Give every work of `group` its segments from `start` on; all stand on checkpoint `parent`.

        The first one left is joined by those that share enough with it, up to where the first of them parts.
        """
        waiting = [work for work in group if work.batches > start]
        beginnings = _by_beginning(waiting, start)
        done: set[int] = set()
        for first in waiting:
            if id(first) in done:
                continue
            cluster = [w for w in beginnings(first) if id(w) not in done] or [first]
            if (
                first.stage.optimizer.ema
            ):  # a mean ends a stage: what is still under way does not go on from it
                cluster = [w for w in cluster if self._ends_with(first, w)]
            done.update(map(id, cluster))
            end = min(self._common(first.layout, work.layout) for work in cluster)
            step = self._segment(first, start, end, parent)
            for work in cluster:
                work.segments.append(step)
            self.split(cluster, end, step)

    def _ends_with(self, first: StageWork, work: StageWork) -> bool:
        """Whether neither of the two is over where the other goes on."""
        if work.batches == first.batches:
            return True
        return self._common(first.layout, work.layout) < min(work.batches, first.batches)

    def _common(self, a: Layout, b: Layout) -> int:
        key = (id(a), id(b))
        if key not in self.shared:
            self.shared[key] = a.common(b)
        return self.shared[key]

    def _segment(self, work: StageWork, start: int, end: int, parent: Step | None) -> Step:
        """The step that trains batches `start` to `end`; its identity is the work itself."""
        stage, layout, held = work.stage, work.layout, self.supply[work.stage.seq_len]
        config, drawn = self._config(work, start, end)
        watched = held.hashes if held.validation else {}
        used = {*drawn, *watched}
        inputs = {name: held.hashes[name] for name in used}
        if parent:
            inputs["model" if parent.kind == "model" else "parent"] = parent.hash
        return Step(
            kind="train",
            label=f"{work.run.arm.name}#{work.run.seed} {stage.name} {start}-{end}",
            config=config,
            inputs=inputs,
            holds={name: held.contents[name] for name in used},
            payload=SegmentPayload(
                shape=self.shape,
                stage=stage,
                start=start,
                stop=end,
                seed=work.run.seed,
                skip=layout.start,
                shards={name: held.hashes[name] for name in sorted({*layout.names, *watched})},
                validation=held.validation,
                positions=self.seq_len,
            ),
            cost=float(layout.tokens(start, end)),
        )

    def _config(self, work: StageWork, start: int, end: int) -> tuple[dict[str, Any], list[str]]:
        """What a segment is, and the sources that it draws from.

        Where steps are only counted, it is enough that no other segment is the same. One could be that is too
        short to be shared: that one is laid out.
        """
        stage, layout, held = work.stage, work.layout, self.supply[work.stage.seq_len]
        if self.count and end - start >= _worth(layout.batches):
            self.made += 1
            return {PLANNED: self.made}, []
        rows, drawn = layout.told(start, end)
        config = {
            "shape": self.told_shape,
            "positions": self.seq_len,
            "seed": work.run.seed,
            "stage": self._known(stage)[3],
            # rows are numbered among the sources drawn from: where others are watched beside them, which ones is told
            **({"validation": plain(held.validation), "drawn": drawn} if held.validation else {}),
            **({"ends": end == work.batches} if stage.optimizer.ema else {}),
            "start": start,
            "stop": end,
            "rows": rows,
            "rates": digest(layout.rates[start:end].tobytes().hex()),
        }
        return config, drawn


def _worth(batches: int) -> int:
    """Batches that a shared beginning must have in a stage of `batches`."""
    return max(1, math.ceil(WORTH_SHARING * batches))


def _by_beginning(works: Sequence[StageWork], start: int) -> Callable[[StageWork], list[StageWork]]:
    """A look-up: the works that share enough with one of them from `start` on, that one among them."""
    near: dict[Hashable, list[StageWork]] = {}
    for work in works:
        near.setdefault((work.way, work.layout.mark(start, start + 1)), []).append(work)
    tables: dict[int, dict[int, list[StageWork]]] = {}

    def table(need: int) -> dict[int, list[StageWork]]:
        found: dict[Hashable, list[StageWork]] = {}
        for key, group in near.items():
            long = [work for work in group if work.batches >= start + need]
            alone = len({id(work.layout) for work in long}) == 1  # nothing to compare with
            for work in long:
                mark = b"" if alone else work.layout.mark(start, start + need)
                found.setdefault((key, mark), []).append(work)
        return {id(work): group for group in found.values() for work in group}

    def alike(work: StageWork) -> list[StageWork]:
        need = _worth(work.batches)
        if need not in tables:
            tables[need] = table(need)
        return tables[need].get(id(work), [])

    return alike


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
    positions: int = 0
    """Of the model: those of the study's longest rows, so that all stages train the same weights."""


def arms_of(runs: Sequence[Run]) -> list[Arm]:
    """The arms of `runs`, once each, in order."""
    return list({run.arm.name: run.arm for run in runs}.values())
