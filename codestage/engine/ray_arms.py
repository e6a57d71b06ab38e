"""The engine on a Ray cluster: the steps of `local`, done on whatever nodes there are.

The driver proper (`engine.ray_driver`) is a process of its own, since Ray ends a process that loses the head of
its cluster; here that becomes one message.
"""

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from codestage.engine.local import Listener, Stopped
from codestage.engine.ray_worker import refused
from codestage.engine.store import Step, Store, disk_message
from codestage.engine.together import around_training, launched
from codestage.engine.worker import Flag, die_with_parent
from codestage.errors import RunError, UserError
from codestage.study.load import line_of, load_study

ALL_PLACES = sys.maxsize
"""As many workers as the cluster has places for."""
LEASE = 30.0
"""Seconds that a worker goes on without hearing of the driver."""
MARGIN = 5.0
"""Seconds beyond a lease until its end is relied on."""
HEAD_SECONDS = 40.0
"""How long the cluster's head may be silent. Ray itself ends the driver after 60."""
PATIENCE = 300.0
"""Seconds that a store may refuse to be read or written before a run gives up."""


def check_gangs(study_path: Path, processes: int | None, shard: int | None, workers: int) -> None:
    """See that each train step can be done by so many processes together, before anything is begun.

    Raises:
        UserError: it cannot, or torchrun started this process.
    """
    if launched():
        raise UserError("--ray starts its workers itself; run this without torchrun")
    if processes is None:
        if shard is not None:
            raise UserError(f"--shard {shard}: with --ray say how many train a model with --processes")
        return
    if processes < 1:
        raise UserError(f"--processes {processes}: at least one is needed")
    if shard is not None and (shard < 1 or processes % shard):
        raise UserError(f"--shard {shard} does not divide the {processes} processes")
    if 1 <= workers < processes:
        raise UserError(f"--workers {workers}: a train step needs {processes} (--processes)")
    for name, stage in load_study(study_path).stages.items():
        rows = stage.batch_tokens // stage.seq_len
        if rows % processes:
            line = line_of(study_path, ("stages", name, "batch_tokens"))
            raise UserError(
                f"{study_path}:{line}: stage {name!r}: batches of {rows} rows (batch_tokens / seq_len) cannot be "
                f"parted evenly among {processes} processes; take as many as divide it"
            )


def run_steps(
    steps: Sequence[Step],
    store: Store,
    *,
    workers: int,
    listener: Listener,
    address: str,
    processes: int = 1,
    shard: int | None = None,
) -> None:
    """Do every step that is not in the store yet on the cluster at `address`, each after its inputs.

    With `processes` every train step is done by as many workers together; `shard` of them hold one copy of the
    model, all of them if not given.

    Raises:
        UserError, RunError: from a step, as in `local.run_steps`; no cluster there, or one that cannot do
            this; the cluster's head was lost.
        Stopped: on SIGINT or SIGTERM, once the workers have saved their work.
    """
    waiting = {step.hash: step for step in steps if not store.has(step)}
    if not waiting:
        return
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    stop = Flag(context)
    gang = (processes, shard)
    asked = (
        list(waiting.values()),
        str(store.root.resolve()),
        workers,
        gang,
        address,
        LEASE,
        HEAD_SECONDS,
    )
    process = context.Process(target=_drive, args=(theirs, stop, asked))
    process.start()
    theirs.close()
    try:
        with _signals(stop, process):
            _listen(ours, waiting, _Patient(listener), address, stop)
        if stop.is_set():
            raise Stopped
    finally:
        stop.set()
        process.join(timeout=20)
        if process.is_alive():
            process.kill()
            process.join()


def _listen(
    pipe: Connection, steps: dict[str, Step], listener: Listener, address: str, stop: Flag
) -> None:
    """Pass on what the driver tells, until it has ended."""
    while True:
        try:
            event, hash_, body = pipe.recv()
        except (EOFError, OSError):
            if stop.is_set():  # asked twice: the driver was ended from here
                raise Stopped from None
            raise RunError(
                f"the Ray cluster at {address} was lost: its head has ended or was started anew; when it is "
                "there again, run again: it goes on from the checkpoints"
            ) from None
        if event == "ended":
            if body is not None:
                raise body
            return
        listener(event, steps[hash_], body)


class _Patient:
    """A listener that may fail for a while to write down what it is told."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._failing: float | None = None

    def __call__(self, event: str, step: Step, body: dict[str, Any]) -> None:
        try:
            self._listener(event, step, body)
            self._failing = None
        except RunError as error:
            now = time.monotonic()
            self._failing = self._failing or now
            if not refused(error) or now - self._failing > PATIENCE:
                raise


@contextlib.contextmanager
def _signals(stop: Any, process: Any) -> Iterator[None]:
    """SIGINT and SIGTERM ask the workers to save and stop; a second one ends the driver, and them with it."""

    def ask(number: int, _: Any) -> None:
        if stop.is_set():
            process.kill()
        stop.set()

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _drive(pipe: Connection, stop: Any, asked: tuple[Any, ...]) -> None:
    """The life of the driver's process."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from codestage.engine.ray_driver import Driver

    steps, root, workers, gang, address, lease, head = asked
    driver = None
    try:
        driver = Driver(connect(address), Path(root), lease, head, stop, pipe)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # after Ray, which has a handler of its own
        try:
            driver.probe()
            _run_parts(driver, steps, workers, gang)
        finally:
            driver.close()
    except (UserError, RunError) as error:
        pipe.send(("ended", "", error))
    except OSError as error:
        text = disk_message(Path(error.filename or root), error)
        pipe.send(("ended", "", RunError(text)))
    except Exception as error:
        import traceback

        detail = "".join(traceback.format_exception(error))
        pipe.send(("ended", "", RunError(f"a bug of codestage, or of Ray:\n{detail}")))
    else:
        pipe.send(("ended", "", None))
    if driver and driver.lost:
        os._exit(1)  # Ray would wait for it


def _run_parts(driver: Any, steps: list[Step], workers: int, gang: tuple[int, int | None]) -> None:
    """All steps by single workers; or the train steps by gangs, and before and after them the others."""
    size, shard = gang
    if size == 1:
        driver.run(steps, workers)
        return
    driver.refuse_without_room(size, driver.bare())
    before, training, rest = around_training(steps)
    for part, number in ((before, 1), (training, size), (rest, 1)):
        if part and not driver.stop.is_set():
            driver.run(part, workers, number, shard if number > 1 else None)


def connect(address: str) -> Any:
    """The module `ray`, joined to the cluster at `address` ("auto": the one this machine belongs to).

    Raises:
        UserError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed; pip install 'codestage[ray]'") from None
    if ray.is_initialized():
        return ray
    try:
        if address != "auto":  # Ray itself tries for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no Ray cluster at {address}: {error}; start one with `ray start --head`, "
            "and name it by HOST:PORT, or auto for the one that this machine belongs to"
        ) from None
    return ray


def note(root: Path, lease: float) -> None:
    """Write down that workers on a cluster may be at work until a lease from now has run out."""
    path = root / "work" / "ray-lease"
    with contextlib.suppress(OSError):  # a store that refuses this refuses what those workers write
        if path.exists():
            os.utime(path)
        else:
            path.write_text(json.dumps({"seconds": lease * 7 / 6 + MARGIN}))  # noted every sixth


def forget(root: Path) -> None:
    """All workers on the cluster are known to have ended."""
    with contextlib.suppress(OSError):
        (root / "work" / "ray-lease").unlink(missing_ok=True)


def wait_out(root: Path) -> None:
    """Wait until no worker of an earlier run on a cluster can still be at work, if that run was cut off.

    Times are those of the file system, whoever wrote them.
    """
    path, clock = root / "work" / "ray-lease", root / "work" / ".clock"
    try:
        seconds, noted = float(json.loads(path.read_text())["seconds"]), path.stat().st_mtime
        clock.write_text("")
        now = clock.stat().st_mtime
        clock.unlink()
    except (OSError, ValueError, KeyError):
        return
    time.sleep(min(seconds, max(0.0, noted + seconds - now)))
    forget(root)
