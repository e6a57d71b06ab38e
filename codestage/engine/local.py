"""The local engine: one worker process a core, each step on one core, ready steps in order of need."""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from codestage.engine.ready import Ready
from codestage.engine.store import Step, Store
from codestage.engine.worker import ENVIRONMENT, Flag, work_loop
from codestage.errors import RunError

RETRIES = 2
"""Times a step is tried again after its worker was killed."""
HEAVY = ("train", "evaluate")
"""Kinds of steps that need torch."""
LIBRARIES = (
    "codestage.train.loop",
    "codestage.train.model",
    "codestage.evaluate.run",
    "torch._inductor.compile_fx",
)
Listener = Callable[[str, Step, dict[str, Any]], None]
"""Called with an event, its step, and what it says: started, progress (how far), done (seconds), warning (text),
retried (why)."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    number: int
    step: Step | None = None


class Stopped(Exception):
    """The run was asked to stop; every worker has saved its work."""


def run_steps(steps: Sequence[Step], store: Store, *, workers: int, listener: Listener) -> None:
    """Do every step that is not in the store yet, each after its inputs.

    Raises:
        UserError, RunError: from a step; the others in hand are stopped and saved first.
        Stopped: on SIGINT or SIGTERM, once the workers have saved their work.
    """
    waiting = {step.hash: step for step in steps if not store.has(step)}
    if not waiting:
        return
    fork = not gpus() and any(step.kind in HEAVY for step in waiting.values())
    if fork:
        load_ahead()
    pool = _Pool(store, min(workers, len(waiting)), "forkserver" if fork else "spawn")
    try:
        with _signals(pool):
            pool.run(Ready(list(waiting.values())), listener)
    finally:
        pool.close()


def load_ahead() -> None:
    """Have one process import what training needs, from which workers are forked: nothing is imported twice.

    It goes on beside the preparation of the data. Not where there are GPUs: a process that has seen them
    must not be forked.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["codestage.engine.work", *LIBRARIES])
    # A signal to all processes of a run must not end this one, and workers with it: a mask is inherited. The tracker
    # comes first: where it is started, it takes the mask away again.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with _environment(**ENVIRONMENT):
            multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(**given: str) -> Iterator[None]:
    """Those variables, for what is started inside."""
    before = dict(os.environ)
    os.environ.update(given)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class _Pool:
    """Worker processes and the steps that wait for them."""

    def __init__(self, store: Store, size: int, method: str) -> None:
        self.store = store
        self.context: Any = multiprocessing.get_context(method)
        self.stop = Flag(self.context)
        self.gpus = gpus()
        self.workers = [self._start(number) for number in range(size)]
        self.failures: dict[str, int] = {}
        self.error: Exception | None = None

    def _start(self, number: int) -> _Worker:
        ours, theirs = self.context.Pipe()
        gpu = self.gpus[number % len(self.gpus)] if self.gpus else None
        process = self.context.Process(
            target=_work, args=(theirs, str(self.store.root), self.stop, gpu, dict(os.environ))
        )
        process.start()
        theirs.close()
        return _Worker(process, ours, number)

    def run(self, ready: Ready, listener: Listener) -> None:
        while True:
            if not self.stop.is_set():
                self._dispatch(ready, listener)
            busy = [w for w in self.workers if w.step]
            if not busy:
                break
            told = wait([w.pipe for w in busy] + [w.process.sentinel for w in busy], timeout=1.0)
            for worker in busy:
                if worker.pipe in told or worker.process.sentinel in told:
                    self._hear(worker, ready, listener)
        if self.error:
            raise self.error
        if self.stop.is_set():
            raise Stopped

    def _dispatch(self, ready: Ready, listener: Listener) -> None:
        """Hand ready steps to idle workers."""
        for worker in self.workers:
            if worker.step is None and (step := ready.take()):
                worker.step = step
                with contextlib.suppress(OSError):  # it died while it waited: `_hear` replaces it
                    worker.pipe.send(step)
                listener("started", step, {})

    def _hear(self, worker: _Worker, ready: Ready, listener: Listener) -> None:
        """Take one message of a busy worker, or its death."""
        step = worker.step
        assert step
        try:
            event, body = worker.pipe.recv()
        except (EOFError, OSError):
            self._replace(worker, step, ready, listener)
            return
        if event == "progress":
            listener("progress", step, body)
            return
        worker.step = None
        if event == "done":
            ready.done(step)
            listener("done", step, body)
        elif event == "error":
            self.error = self.error or body
            self.stop.set()

    def _replace(self, worker: _Worker, step: Step, ready: Ready, listener: Listener) -> None:
        """A worker died under a step: start another and try the step again from its checkpoint."""
        worker.process.join()
        code = worker.process.exitcode
        self.workers.remove(worker)
        if self.stop.is_set():
            return
        failures = self.failures[step.hash] = self.failures.get(step.hash, 0) + 1
        if failures > RETRIES:
            self.error = RunError(
                f"{step.label}: its worker died {failures} times (exit {code}; -9 is often a lack of "
                "memory); free memory or run with fewer --workers, then run again: finished steps "
                "are kept"
            )
            self.stop.set()
            return
        ready.put(step)
        self.workers.append(self._start(worker.number))
        listener("retried", step, {"why": f"its worker died (exit {code})"})

    def close(self) -> None:
        """End the workers; one that is still at work saves what it has."""
        self.stop.set()
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.pipe.send(None)
        for worker in self.workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()


def _work(pipe: Connection, root: str, stop: Any, gpu: str | None, environment: dict[str, str]) -> None:
    """A worker's life in the environment of the process that asked for it, not of the one it was forked from."""
    os.environ.clear()
    os.environ.update(environment)
    work_loop(pipe, root, stop, gpu)


@contextlib.contextmanager
def _signals(pool: _Pool) -> Iterator[None]:
    """SIGINT and SIGTERM ask the workers to save and stop; a second one kills them."""

    def ask(number: int, _: Any) -> None:
        if pool.stop.is_set():
            for worker in pool.workers:
                worker.process.kill()
        pool.stop.set()

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them; found without torch."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if seen is not None:
        return [name for name in seen.split(",") if name and name != "-1"]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i in range(len(list(folder.iterdir())))] if folder.is_dir() else []
