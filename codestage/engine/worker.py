"""A worker process's life: steps in, results out, until it is told to end or its parent ends."""

import contextlib
import ctypes
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from codestage.engine.store import Store, disk_message
from codestage.errors import RunError, UserError

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # one core each, side by side
    # workers compile the same graph at the same time, and each waits for the kernel that another compiles: with one
    # thread they would go through them one by one
    "TORCHINDUCTOR_COMPILE_THREADS": str(min(8, len(os.sched_getaffinity(0)))),
    "TQDM_DISABLE": "1",  # libraries' own bars would write over codestage's
}
"""What holds in every worker, before torch is imported."""


class Flag:
    """Raised once, seen by the processes it is given to.

    Unlike an Event's it has no lock, which a signal's handler could find taken by the very thread it interrupts.
    """

    def __init__(self, context: Any) -> None:
        self._raised = context.RawValue(ctypes.c_bool, False)

    def set(self) -> None:
        self._raised.value = True

    def is_set(self) -> bool:
        return bool(self._raised.value)


def die_with_parent() -> None:
    """Have this process killed when the one that asked for it ends, however that ends.

    On Linux by the kernel, where that one started it itself: so a stopped process ends too.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    assert parent

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def work_loop(
    pipe: Connection,
    root: str,
    stop: Any,
    gpu: str | None,
    meet: Callable[[], Any] | None = None,
) -> None:
    """Do the steps that come through `pipe`; tell of progress, done, stopped or error (with the exception).

    `meet` joins the processes that train together with this one (`train.parallel.World`), before the first
    train step; without it this one trains alone.
    """
    die_with_parent()
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):  # torchrun's, if the parent is of a team
        os.environ.pop(name, None)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    os.environ.update(ENVIRONMENT)
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # the parent hears them too, and says what is to be saved
        signal.signal(number, signal.SIG_IGN)
    from codestage.engine.work import Workshop

    store = Store(Path(root))
    shop = Workshop(
        store=store,
        should_stop=stop.is_set,
        tell=lambda body: pipe.send(("progress", body)),
        compiled=shutil.which("g++") is not None or shutil.which("clang++") is not None,
        meet=meet,
    )
    while (step := pipe.recv()) is not None:
        began = time.monotonic()
        try:
            shop.do(step)
            pipe.send(("done", {"seconds": time.monotonic() - began}))
        except (UserError, RunError) as error:
            pipe.send(("error", error))
        except Exception as error:
            if type(error).__name__ == "Interrupted":
                pipe.send(("stopped", {}))
            elif isinstance(error, OSError) or "(os error " in str(error):  # Rust libraries' own
                place = Path(getattr(error, "filename", None) or store.root)
                pipe.send(("error", RunError(f"{step.label}: {disk_message(place, error)}")))
            else:
                import traceback

                detail = "".join(traceback.format_exception(error))
                pipe.send(("error", RunError(f"{step.label}: a bug of codestage:\n{detail}")))
