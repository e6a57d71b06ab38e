"""Studies on Ray clusters of one machine: starting, watching, disturbing and comparing them."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from conftest import TINY

LONG = TINY.replace("seeds: 2", "seeds: 1").replace("[token-matched, additive]", "[]")
LONG = LONG.replace("tokens: 4k", "tokens: 300k")
for domain in ("text", "code"):
    LONG = LONG.replace(f"domain: {domain}, proc", f"domain: {domain}, epochs: 999, proc")
LEASE = 4.0
RUN = """
from pathlib import Path
from types import SimpleNamespace
import codestage.engine.ray_arms as arms, codestage.engine.run as run
from codestage.cli import main
arms.LEASE, arms.HEAD_SECONDS = LEASE, 10
run.rebuild = lambda folder: (None, SimpleNamespace(html=Path("none")))  # a report takes 10 s and shows nothing here
main()
"""
HEAD = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False}
DATA = ("items", "documents", "tokenizer", "prepare")


@contextlib.contextmanager
def two_nodes() -> Iterator[Any]:
    """A cluster of two nodes with a core each on this machine, gone at the end."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # so that 127.0.0.1 is left as it is
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=HEAD)
    try:
        made.add_node(num_cpus=1, node_ip_address="127.0.0.1")
        yield made
    finally:
        made.shutdown()


def write(folder: Path, text: str = LONG) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.yaml").write_text(text)
    return folder / "tiny.yaml"


def begun(reference: Path, folder: Path, text: str = LONG) -> Path:
    """A study of which only the data is there: it begins with training."""
    study = write(folder, text)
    for kind in DATA:
        shutil.copytree(reference / "store" / kind, study.with_suffix("") / "store" / kind)
    return study


def command(study: Path, *more: str, lease: float = LEASE) -> list[str]:
    return [sys.executable, "-c", RUN.replace("= LEASE", f"= {lease}"), "run", str(study), *more]


def start(arguments: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: "subprocess.Popen[str]", seconds: float = 110) -> tuple[int, str]:
    """(exit status, all that was said) of a process that ends in time."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"no end after {seconds} s: {out}{err}")
    return process.returncode, out + err


def says(process: "subprocess.Popen[str]", text: str, heard: list[str]) -> bool:
    """Whether a process that goes on has said this on stdout; `heard` holds what it had said before."""
    assert process.stdout
    while select.select([process.stdout], [], [], 0)[0] and (
        new := os.read(process.stdout.fileno(), 4096)
    ):
        heard.append(new.decode())
    return text in "".join(heard)


def undisturbed(study: Path) -> Path:
    """The study's folder after a local run."""
    code, said = finish(start(command(study)))
    assert code == 0, said
    return study.with_suffix("")


def status(study: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((study.with_suffix("") / "work" / "status.json").read_text())
    except (OSError, ValueError):
        return {"running": [], "warnings": []}
    return found


def until(condition: Callable[[], Any], process: "subprocess.Popen[str]", seconds: float = 100) -> Any:
    """Wait for a condition while the run goes on; what it was."""
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, finish(process)
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.1)
    return found


def training(study: Path) -> int:
    """Train steps under way."""
    return sum("loss" in step for step in status(study)["running"])


def both_train(study: Path) -> bool:
    return training(study) == 2


def workers(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that do steps."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if "spawn_main" in " ".join(process.cmdline()):
                found.append(process)
    return found


def of_node(node: Any) -> list[psutil.Process]:
    """What a node of `two_nodes` has started."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return raylet.children(recursive=True)


def weights(folder: Path) -> dict[str, bytes]:
    """The bytes of all weights and learning curves."""
    files = [
        p
        for pattern in ("train/*/*.safetensors", "train/*/curve.parquet")
        for p in (folder / "store").glob(pattern)
    ]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def found(folder: Path) -> tuple[Any, ...]:
    """Every result: hashes of all steps, weights and learning curves, the item records."""
    steps = {(p.parent.name, p.name) for p in (folder / "store").glob("*/*")}
    items = pq.read_table(folder / "results" / "items.parquet").drop(["seconds"]).to_pylist()
    return steps, weights(folder), items


def same(study: Path, reference: Path) -> None:
    mine, wanted = found(study.with_suffix("")), found(reference)
    for part, its in zip(mine, wanted, strict=True):
        assert part == its
    assert not list((study.with_suffix("") / "work").glob("*-*"))  # no unfinished work, no lease
