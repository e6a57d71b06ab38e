"""Several processes that train together: run as a script, one process each, by `together`."""

import faulthandler
import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

HANGS = float(os.environ.get("HANGS", "120"))
"""Seconds after which a process says where it waits, and gives up."""


def together(size: int, jobs: list[dict], *, shard: int | None = None) -> None:
    """Do `jobs` (arguments of `job`) one after the other in `size` processes; each must end well."""
    processes = start(size, jobs, shard)
    said = [process.communicate(timeout=2 * HANGS)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert not any(codes), "\n".join(text[-3000:] for text in said)


def start(size: int, jobs: list[dict], shard: int | None = None) -> list[subprocess.Popen[str]]:
    """The processes of `together`, at work."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(size):
        env = os.environ | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, __file__, json.dumps({"shard": shard, "jobs": jobs})]
        processes.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    return processes


def job(
    world,
    out,
    *,
    family="llama",
    stop_after=None,
    shape=None,
    compiled=False,
    checkpoint_seconds=30.0,
    **changes,
):
    """Train the toy stage in `out`; stopped after some steps, if asked."""
    from train_fixture import SHAPE, stage, train

    from codestage.study.schema import AdapterSpec, OptimizerSpec
    from codestage.train.loop import Interrupted
    from codestage.train.model import ModelPool

    if "optimizer" in changes:
        changes["optimizer"] = OptimizerSpec(**changes["optimizer"])
    if "adapter" in changes:
        changes["adapter"] = AdapterSpec(**changes["adapter"])
    init = changes.pop("init", None)
    size = replace(SHAPE, family=family, **(shape or {}))
    left = iter(range(10**6))
    with suppress(Interrupted):
        train(
            Path(out),
            plan=stage(**changes),
            shape=size,
            init=Path(init) if init else None,
            world=world,
            pool=ModelPool(compiled=compiled),
            checkpoint_seconds=checkpoint_seconds,
            should_stop=lambda: stop_after is not None and next(left) >= stop_after,
        )


def main() -> None:
    from codestage.train.parallel import join

    faulthandler.dump_traceback_later(HANGS, exit=True)
    order = json.loads(sys.argv[1])
    world = join(order["shard"])
    for arguments in order["jobs"]:
        job(world, **arguments)
    world.leave()


if __name__ == "__main__":
    main()
