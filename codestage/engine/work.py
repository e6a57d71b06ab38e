"""How each kind of step is done, inside a worker process."""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codestage.data.batches import Batches, Validation
from codestage.data.instruct import PLAIN, Chat
from codestage.data.mixture import MixturePlan
from codestage.data.own_code import admit
from codestage.data.tokenizer import load_tokenizer
from codestage.engine import data_work, model_steps
from codestage.engine.data_steps import read_shard
from codestage.engine.graph import SegmentPayload
from codestage.engine.store import Step, Store
from codestage.study.schedule import Phase
from codestage.study.seeds import child

CHECKPOINT_SECONDS = 20.0


@dataclass
class Workshop:
    """What a worker keeps between steps: the store, and models compiled once for each shape."""

    store: Store
    should_stop: Callable[[], bool]
    tell: Callable[[Mapping[str, Any]], None]
    compiled: bool
    world: Any = None
    """The processes that train together (`train.parallel.World`); None: not known before the first train step."""
    meet: Callable[[], Any] | None = None
    """Joins those processes; None: this one is alone."""
    spread: data_work.Spread = field(default_factory=data_work.Here)
    _pool: Any = field(default=None, repr=False)

    def do(self, step: Step) -> None:
        """Do a step and commit its result."""
        began = time.monotonic()
        if step.code:
            admit(step.code)
        out = self.store.work(step)
        if step.kind == "train":
            self._train(step, out)
            self.world.by_first(
                lambda: self.store.commit(step, out / "checkpoint", time.monotonic() - began)
            )
            return
        fresh = out / "result"
        shutil.rmtree(fresh, ignore_errors=True)  # of an attempt that ended while it was committed
        fresh.mkdir()
        self._make(step, fresh)
        self.store.commit(step, fresh, time.monotonic() - began)

    def _make(self, step: Step, out: Path) -> None:
        if step.kind == "items":
            data_work.make_items(step, out)
        elif step.kind == "documents":
            data_work.make_documents(step, self.store, out, self.spread)
        elif step.kind == "model":
            model_steps.make_model(step, out)
        elif step.kind == "tokenizer":
            data_work.make_tokenizer(step, self.store, out)
        elif step.kind == "prepare":
            data_work.make_prepared(step, self.store, out, self.spread)
        else:
            self._evaluate(step, out)

    def _train(self, step: Step, out: Path) -> None:
        from codestage.train.loop import Runtime, Segment, train_segment
        from codestage.train.model import ModelPool
        from codestage.train.parallel import alone

        self.world = self.world or (self.meet or alone)()
        payload: SegmentPayload = step.payload
        self._pool = self._pool or ModelPool(compiled=self.compiled, device=self.world.device)
        inputs = step.inputs
        init = None
        if "parent" in inputs or "model" in inputs:
            kind, hash_ = (
                ("train", inputs["parent"]) if "parent" in inputs else ("model", inputs["model"])
            )
            init = self.store.read(kind, hash_)
        segment = Segment(
            shape=payload.shape,
            stage=payload.stage,
            start=payload.start,
            stop=payload.stop,
            init=init,
            seed=payload.seed,
            positions=payload.positions,
        )
        batches = segment_batches(step, self.store)
        told, begun = 0.0, -1

        def on_step(log: Any) -> None:
            nonlocal told, begun
            if begun < 0:  # what a checkpoint held already
                begun = batches.tokens_before(log.batch - 1) - batches.tokens_before(payload.start)
            if time.monotonic() - told > 0.5:
                told = time.monotonic()
                self.tell(
                    {
                        "tokens": log.tokens,
                        "begun": begun,
                        "loss": round(log.loss, 4),
                        "tokens_per_second": round(log.tokens_per_second),
                    }
                )

        train_segment(
            segment,
            batches,
            out=out,
            pool=self._pool,
            runtime=Runtime(
                checkpoint_seconds=CHECKPOINT_SECONDS,
                should_stop=self.should_stop,
                report=lambda message: self.tell({"warning": message}),
                world=self.world,
            ),
            on_step=on_step,
            validation=validation_of(step, self.store),
        )

    def _evaluate(self, step: Step, out: Path) -> None:
        """Records of all parts; those made before an interruption are not made again."""
        import torch

        from codestage.evaluate.backend import Backend
        from codestage.evaluate.records import CHECKPOINT_SCHEMA, kept
        from codestage.evaluate.run import Evaluation
        from codestage.evaluate.sandbox import Sandbox
        from codestage.evaluate.tasks import tasks_of
        from codestage.train.loop import Interrupted

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        folder = self.store.read("tokenizer", step.inputs["tokenizer"])
        template = Chat(folder) if step.config.get("chat_template") else PLAIN
        checkpoint = self.store.read("train", step.inputs["checkpoint"])
        sandbox, own = step.payload
        tasks = tasks_of(step.config["tasks"], own)
        items = data_work.frozen_items(self.store.read("items", step.inputs["items"]), tasks)
        evaluation = Evaluation(
            Backend.load(checkpoint, load_tokenizer(folder), marked=template.marked),
            template=template,
            samples=step.config.get("samples", 0),
            sandbox=lambda: Sandbox(sandbox),
        )
        parts = evaluation.parts(items, step.config["cot"])
        tables = [CHECKPOINT_SCHEMA.empty_table()]  # after a stage that no mode asks about
        for name, make in parts:
            if self.should_stop():
                raise Interrupted
            tables.append(kept(out.parent, name, make))
        pq.write_table(pa.concat_tables(tables), out / "items.parquet")


def segment_batches(step: Step, store: Store) -> Batches:
    """The batches of a train step's stage, from the shards among its inputs."""
    payload: SegmentPayload = step.payload
    names = dict.fromkeys(n for p in payload.stage.phases for n, t in p.by_source.items() if t)
    shards = {n: read_shard(store, payload.shards[n], payload.validation) for n in names}
    plan = MixturePlan(
        payload.stage.phases,
        payload.stage.order,
        {n: s.counts for n, s in shards.items()},
        seed=child(payload.seed, "order"),
        skip=payload.skip,
    )
    width = payload.stage.batch_tokens // payload.stage.seq_len
    return Batches(plan, shards, rows_per_batch=width)


def validation_of(step: Step, store: Store) -> Validation | None:
    """What every source holds out, in batches of the size that the step computes at once."""
    payload: SegmentPayload = step.payload
    if payload.validation is None:
        return None
    width = payload.stage.micro_batch_tokens // payload.stage.seq_len
    batches = {}
    for name, hash_ in payload.shards.items():
        rest = read_shard(store, hash_, payload.validation).held_out()
        if rest.rows:
            tokens = rest.counts.tokens
            plan = MixturePlan([Phase(tokens, {name: tokens})], "even", {name: rest.counts}, seed=0)
            batches[name] = Batches(plan, {name: rest}, rows_per_batch=width)
    return Validation(batches, payload.validation.times)
