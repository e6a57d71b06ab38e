"""What `codestage run --ray` has on a node: a worker process as the local engine has them, and its keeper.

A worker works on a lease. The driver asks its keeper again and again how it is getting on; that it asks again
shows that it heard the answer before, and renews the lease from the moment of that answer. A worker whose
lease has run out ends itself. The driver, which heard the last answer later than it was given, has a step
tried elsewhere only when the lease must have run out by its own clock. So no two workers are at one step,
however long messages take or whoever is cut off from whom, as long as clocks go at about the same rate
(Gray and Cheriton 1989). A gang of workers that train together is of several keepers; each of its processes has
a lease of its own.
"""

import contextlib
import ctypes
import math
import multiprocessing
import os
import shutil
import socket
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from codestage.engine.store import Step
from codestage.engine.worker import Flag, work_loop
from codestage.errors import RunError, UserError

LAPSED = 75
"""Exit status of a worker whose lease ran out."""
LOOK_SECONDS = 1.0
"""How long a keeper waits for news before it answers that there is none."""
LIBRARIES = ("codestage", "numpy", "tokenizers", "torch", "transformers")
Event = tuple[str, Any]


@dataclass(frozen=True)
class Place:
    """The place of a process among those that train one model together, and where they meet."""

    rank: int
    size: int
    shard: int | None
    """Processes that hold one copy of the model; None: all."""
    address: str
    port: int
    own_address: str
    """By which the cluster knows the node of this process."""


class Keeper:
    """Keeps one worker process; a Ray actor, called by the driver alone and one call after the other."""

    def __init__(self, root: str, lease: float, environment: dict[str, str]) -> None:
        os.environ.update(environment)
        self._root, self._lease = root, lease
        self._context = multiprocessing.get_context("spawn")
        self._stop = Flag(self._context)
        self._until: Any = self._context.RawValue(ctypes.c_double, math.inf)
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._busy = False
        self._answered = -math.inf

    def hello(self) -> tuple[str, str, int]:
        """The node's id and its address, and a port that is free there."""
        import ray

        address = ray.util.get_node_ip_address()
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as free:
            free.bind((address, 0))
            port = free.getsockname()[1]
        self._answered = time.monotonic()
        return ray.get_runtime_context().get_node_id(), address, port

    def look(
        self, step: Step | None = None, stop: bool = False, place: Place | None = None
    ) -> list[Event]:
        """Begin a step if one is given, and tell what has happened since the last call.

        Events are those of `worker.work_loop`, and `refused` (the store could not be read or written, with the
        RunError), `broken` (of a gang: what may come from another's end, with the RunError), `died` (with the
        exit status) and `lapsed` (the lease ran out; the worker has ended).
        """
        renewed = self._answered
        events: list[Event] = []
        if step is not None:
            if time.monotonic() > renewed + self._lease:
                events.append(("lapsed", {}))
            else:
                self._begin(step, place)
        if self._busy:
            self._until.value = renewed + self._lease
        if stop:
            self._stop.set()
        events += self._news()
        self._answered = time.monotonic()
        return events

    def end(self, seconds: float) -> list[Event]:
        """End the worker, which may say why it fails for so long; the last event is its last word, `ended` if it
        had none. It is known then to write nothing more."""
        limit, events = time.monotonic() + seconds, self._news()
        while self._busy and time.monotonic() < limit:
            events += self._news()
        if self._process:
            self._process.kill()
            self._process.join()
        if self._busy:
            self._rest()
            events.append(("ended", {}))
        self._answered = time.monotonic()
        return events

    def _begin(self, step: Step, place: Place | None) -> None:
        if self._process is None or not self._process.is_alive():
            self._pipe, theirs = self._context.Pipe()
            self._process = self._context.Process(
                target=_work,
                args=(theirs, self._root, self._stop, self._until, self._lease, place),
            )
            self._process.start()
            theirs.close()
        assert self._pipe
        self._busy = True
        with contextlib.suppress(OSError):  # it has died: `_news` says so
            self._pipe.send(step)

    def _news(self) -> list[Event]:
        """What the worker said; waits a while for it if it is at work."""
        found: list[Event] = []
        if self._busy and self._pipe and self._process:
            wait([self._pipe, self._process.sentinel], timeout=LOOK_SECONDS)
        while self._busy and self._pipe and self._process:
            if not self._pipe.poll():
                if self._process.is_alive():
                    break
                found.append(self._death())
                break
            try:
                event, body = self._pipe.recv()
            except (EOFError, OSError):
                found.append(self._death())
                break
            found.append((event, body))
            if event != "progress":
                self._rest()
        return found

    def _death(self) -> Event:
        assert self._process
        self._process.join()
        code = self._process.exitcode
        self._process = None
        self._rest()
        return ("lapsed", {}) if code == LAPSED else ("died", {"exit": code})

    def _rest(self) -> None:
        self._busy = False
        self._until.value = math.inf


def _work(
    pipe: Connection,
    root: str,
    stop: Any,
    until: Any,
    lease: float,
    place: Place | None,
) -> None:
    """The life of a worker process."""
    threading.Thread(target=_end_with_lease, args=(until, lease / 20), daemon=True).start()
    meet = partial(_meet, place) if place else None
    work_loop(_Sorting(pipe, place is not None), root, stop, None, meet)  # type: ignore[arg-type]


def _meet(place: Place) -> Any:
    """The processes of a gang (`train.parallel.World`), joined as if torchrun had started this one of them."""
    os.environ |= {
        "MASTER_ADDR": place.address,
        "MASTER_PORT": str(place.port),
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.size),
        "LOCAL_RANK": "0",  # of the GPUs that it sees: Ray shows it its own alone
    }
    if name := _interface(place.own_address):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
    from codestage.train.parallel import join

    return join(place.shard)


def _interface(own: str) -> str | None:
    """The network interface that has this address."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(own == a.address for a in addresses):
            return name
    return None


def _end_with_lease(until: Any, interval: float) -> None:
    while time.monotonic() < until.value:
        time.sleep(interval)
    os._exit(LAPSED)


class _Sorting:
    """A pipe on which errors of a store that cannot be read or written are told apart from the others; those of
    one of a gang also from what other processes' ends bring about."""

    def __init__(self, pipe: Connection, gang: bool) -> None:
        self._pipe, self._gang = pipe, gang
        self.recv = pipe.recv

    def send(self, message: Event) -> None:
        event, body = message
        error = sys.exception()
        if event == "error" and refused(error):
            event = "refused"
        elif event == "error" and self._gang and not isinstance(error, UserError | RunError):
            event = "broken"
        self._pipe.send((event, body))


def refused(error: BaseException | None) -> bool:
    """Whether an error comes from files that cannot be read or written, for now perhaps."""
    if isinstance(error, UserError):
        return False
    while error is not None:
        if isinstance(error, OSError) or "(os error " in str(error):  # the latter of Rust libraries
            return True
        error = error.__context__
    return False


def probe(path: str, text: str, mark: str) -> dict[str, Any]:
    """On a node: whether it sees what the driver wrote and can write beside it, and what is installed there."""
    file = Path(path)
    try:
        problem = None if file.read_text() == text else f"{path} holds something else there"
        file.with_name(f"{file.name}.{mark}").write_text(text)
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}"
    return {"problem": problem, "installed": installed()}


def installed() -> dict[str, str]:
    """What results depend on beside the processor."""
    compiler = shutil.which("g++") is not None or shutil.which("clang++") is not None
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        **{name: metadata.version(name) for name in LIBRARIES},
        "C++ compiler": "there" if compiler else "missing",
    }
