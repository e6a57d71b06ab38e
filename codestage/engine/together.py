"""Many processes that torchrun started: the first one runs the study, all of them train.

    torchrun --nproc-per-node 8 -m codestage.cli run STUDY

Data is prepared and checkpoints are evaluated by the first process's workers, as without torchrun; each train
step is done by all processes together, one step after the other.
"""

import gc
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codestage.engine import local
from codestage.engine.local import Listener, Stopped
from codestage.engine.store import Step, Store


def launched() -> bool:
    """Whether this process is one of several that torchrun started."""
    told = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")
    return all(name in os.environ for name in told) and int(os.environ["WORLD_SIZE"]) > 1


def around_training(steps: Sequence[Step]) -> tuple[list[Step], list[Step], list[Step]]:
    """(those that need no train step of `steps`, the train steps, those that need one)"""
    training = [step for step in steps if step.kind == "train"]
    trained = {step.hash for step in training}
    others = [step for step in steps if step.kind != "train"]
    before = [step for step in others if trained.isdisjoint(step.inputs.values())]
    return before, training, [step for step in others if not trained.isdisjoint(step.inputs.values())]


class Team:
    """This process among the others."""

    def __init__(self, folder: Path, shard: int | None) -> None:
        """Meet the others; `shard` of them hold one copy of a model.

        Raises:
            UserError: `shard` does not divide their number.
        """
        from codestage.engine.work import Workshop
        from codestage.train.parallel import join

        self.world = join(shard)
        self._asked_to_stop = False
        self._at_work = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hear_signal)
        self._listener: Listener = lambda event, step, body: None
        self._step: Step | None = None
        self.shop = Workshop(
            store=Store(folder),
            should_stop=lambda: self._asked_to_stop,
            tell=self._progress,
            compiled=shutil.which("g++") is not None or shutil.which("clang++") is not None,
            world=self.world,
        )

    def _hear_signal(self, number: int, frame: Any) -> None:
        self._asked_to_stop = True

    def _progress(self, body: Any) -> None:
        if self._step:
            self._listener("progress", self._step, dict(body))

    def follow(self) -> None:
        """Of every process but the first: train what that one says, until it says no more.

        Raises:
            RunError: training failed, here or everywhere.
        """
        while (step := self.world.tell(None)) is not None:
            if not self._train(step):
                break
        self.world.leave()

    def run_steps(
        self, steps: Sequence[Step], store: Store, *, workers: int, listener: Listener
    ) -> None:
        """Of the first process: like `local.run_steps`, with every train step done by all processes.

        Raises:
            UserError, RunError: from a step.
            Stopped: on SIGINT or SIGTERM, once all work is saved.
        """
        waiting = [step for step in steps if not store.has(step)]
        before, training, rest = around_training(waiting)
        local.run_steps(before, store, workers=workers, listener=listener)
        self._listener = listener
        for step in training:  # a run's segments stand in their order
            self.world.tell(step)
            began, self._step = time.monotonic(), step
            listener("started", step, {})
            if not self._train(step):
                self.world.leave()
                raise Stopped
            listener("done", step, {"seconds": time.monotonic() - began})
        local.run_steps(rest, store, workers=workers, listener=listener)

    def _train(self, step: Step) -> bool:
        """Whether a step was done; not if all were asked to stop. What fails here ends the team."""
        from codestage.train.loop import Interrupted
        from codestage.train.parallel import let_go

        self._at_work = True
        try:
            self.shop.do(step)
        except Interrupted:
            return False
        gc.collect()  # a model in shards holds itself; the next would be built beside it
        let_go()
        self._at_work = False
        return True

    def dismiss(self) -> None:
        """Of the first process: let the others go, if they wait for orders."""
        if not self._at_work:
            self.world.tell(None)
            self.world.leave()
