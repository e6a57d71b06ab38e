"""What `codestage run --ray` has on a node: a worker process as the local engine has them, and its keeper.

A worker works on a lease. The driver asks its keeper again and again how it is getting on; that it asks again
shows that it heard the answer before, and renews the lease from the moment of that answer. A worker whose
lease has run out ends itself. The driver, which heard the last answer later than it was given, has a step
tried elsewhere only when the lease must have run out by its own clock. So no two workers are at one step,
however long messages take or whoever is cut off from whom, as long as clocks go at about the same rate
(Gray and Cheriton 1989).
"""

import contextlib
import ctypes
import math
import multiprocessing
import os
import shutil
import sys
import threading
import time
from importlib import metadata
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from codestage.engine.local import work_loop
from codestage.engine.store import Step
from codestage.errors import UserError

LAPSED = 75
"""Exit status of a worker whose lease ran out."""
LOOK_SECONDS = 1.0
"""How long a keeper waits for news before it answers that there is none."""
LIBRARIES = ("codestage", "numpy", "tokenizers", "torch", "transformers")
Event = tuple[str, Any]


class Keeper:
    """Keeps one worker process; a Ray actor, called by the driver alone and one call after the other."""

    def __init__(self, root: str, lease: float, environment: dict[str, str]) -> None:
        os.environ.update(environment)
        self._root, self._lease = root, lease
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()
        self._until: Any = self._context.RawValue(ctypes.c_double, math.inf)
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._busy = False
        self._answered = -math.inf

    def hello(self) -> tuple[str, str]:
        """The node's id and its address."""
        import ray

        context = ray.get_runtime_context()
        self._answered = time.monotonic()
        return context.get_node_id(), ray.util.get_node_ip_address()

    def look(self, step: Step | None = None, stop: bool = False) -> list[Event]:
        """Begin a step if one is given, and tell what has happened since the last call.

        Events are those of `local.work_loop`, and `refused` (the store could not be read or written, with the
        RunError), `died` (with the exit status) and `lapsed` (the lease ran out; the worker has ended).
        """
        renewed = self._answered
        events: list[Event] = []
        if step is not None:
            if time.monotonic() > renewed + self._lease:
                events.append(("lapsed", {}))
            else:
                self._begin(step)
        if self._busy:
            self._until.value = renewed + self._lease
        if stop:
            self._stop.set()
        events += self._news()
        self._answered = time.monotonic()
        return events

    def _begin(self, step: Step) -> None:
        if self._process is None or not self._process.is_alive():
            self._pipe, theirs = self._context.Pipe()
            self._process = self._context.Process(
                target=_work,
                args=(theirs, self._root, self._stop, os.getpid(), self._until, self._lease),
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


def _work(pipe: Connection, root: str, stop: Any, parent: int, until: Any, lease: float) -> None:
    """The life of a worker process."""
    threading.Thread(target=_end_with_lease, args=(until, lease / 20), daemon=True).start()
    work_loop(_Sorting(pipe), root, stop, parent, None)  # type: ignore[arg-type]


def _end_with_lease(until: Any, interval: float) -> None:
    while time.monotonic() < until.value:
        time.sleep(interval)
    os._exit(LAPSED)


class _Sorting:
    """A pipe on which errors of a store that cannot be read or written are told apart from the others."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.recv = pipe.recv

    def send(self, message: Event) -> None:
        event, body = message
        if event == "error" and refused(sys.exception()):
            event = "refused"
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
