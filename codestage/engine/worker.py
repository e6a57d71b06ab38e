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
    os.environ["OMP_NUM_THREADS"] = "1"  # one core each, side by side: before torch is imported
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    os.environ["TQDM_DISABLE"] = "1"  # libraries' own bars would write over codestage's
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
