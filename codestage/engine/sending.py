"""Sends finished steps to a folder's remote store while others are worked on."""

import queue
import threading
import time
from collections.abc import Callable

from codestage.engine.remote import PATIENCE, Patience
from codestage.engine.shared import SharedStore
from codestage.engine.store import Step, Store
from codestage.errors import RunError

AT_ONCE = 4
"""Steps that are sent at once."""


class Sender:
    """Sends what it is given, in threads of this process. Without a remote store it has nothing to do.

    As long as there is other work, a store that refuses is asked again without end: nothing waits for it. Only
    `finish` has an end to its patience.
    """

    def __init__(self, store: Store, warn: Callable[[str], None]) -> None:
        self._store = store if isinstance(store, SharedStore) else None
        self._queue: queue.Queue[Step] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._abandoned = threading.Event()
        self._finishing: float | None = None
        self._errors: list[RunError] = []
        patience = Patience(self._gives_up, warn, self._abandoned.wait)
        self._remote = self._store.remote.with_patience(patience) if self._store else None

    def put(self, *steps: Step) -> None:
        """Send these finished steps when their turn comes."""
        if self._store is None:
            return
        for step in steps:
            self._queue.put(step)
        for _ in range(len(self._threads), min(AT_ONCE, len(self._threads) + len(steps))):
            thread = threading.Thread(target=self._work, daemon=True)
            self._threads.append(thread)
            thread.start()

    def finish(self, while_waiting: Callable[[], None]) -> None:
        """Wait until everything is sent.

        Raises:
            RunError: something could not be sent.
        """
        self._finishing = time.monotonic()
        while self._queue.unfinished_tasks:
            while_waiting()
            self._abandoned.wait(0.2)
        if self._errors:
            raise self._errors[0]

    def abandon(self) -> None:
        """Send no more; the next run sends what is missing."""
        self._abandoned.set()

    def _gives_up(self, seconds: float) -> bool:
        if self._abandoned.is_set():
            return True
        return self._finishing is not None and time.monotonic() - self._finishing > PATIENCE

    def _work(self) -> None:
        while True:
            step = self._queue.get()
            try:
                if self._store and self._remote and not self._abandoned.is_set():
                    self._store.send(step, self._remote)
            except RunError as error:
                self._errors.append(error)
            except Exception as error:  # a thread's traceback would be seen by nobody
                self._errors.append(RunError(f"{step.label}: sending it failed: {error!r}"))
            finally:
                self._queue.task_done()
