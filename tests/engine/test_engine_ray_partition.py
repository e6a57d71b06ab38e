"""A cluster whose nodes are in network namespaces of their own; the link of one is cut while it trains."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from clusters import (
    LONG,
    begun,
    command,
    finish,
    same,
    start,
    status,
    training,
    undisturbed,
    until,
    workers,
    write,
)

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.slow
HEAD, A, B = (f"codestage-{os.getpid()}-{name}" for name in ("head", "a", "b"))
ADDRESSES = {HEAD: "10.213.7.1", A: "10.213.7.2", B: "10.213.7.3"}  # seen inside these namespaces alone
ENDS = {A: "to-a", B: "to-b"}
LEASE = 3.0
ONE_ARM = LONG.replace("      text+code: {mix: {prose: 2, programs: 1}}\n", "")
ONE_ARM = ONE_ARM.replace("      uniform: {mix: {chat: 5, code_chat: 3}}\n", "")
RAY = str(Path(sys.executable).with_name("ray"))


def ip(*words: str) -> str:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20)
    except OSError as error:
        pytest.skip(f"no network namespaces here: {error}")
    if done.returncode and "add" in words:
        pytest.skip(f"no network namespaces here: ip {' '.join(words)}: {done.stderr.strip()}")
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


def inside(namespace: str) -> list[psutil.Process]:
    found = []
    for pid in ip("netns", "pids", namespace).split():
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(int(pid)))
    return found


@pytest.fixture
def namespaces():
    """Three joined by a bridge in the head's; they and all that runs in them are gone at the end."""
    try:
        for name in ADDRESSES:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", HEAD, "link", "add", "br0", "type", "bridge")
        ip("-n", HEAD, "address", "add", f"{ADDRESSES[HEAD]}/24", "dev", "br0")
        ip("-n", HEAD, "link", "set", "br0", "up")
        for name, end in ENDS.items():
            ip("-n", HEAD, "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", HEAD, "link", "set", end, "master", "br0", "up")
            ip("-n", name, "address", "add", f"{ADDRESSES[name]}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield
    finally:
        for name in ADDRESSES:
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout
            for pid in pids.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def begin(namespace: str, arguments: list[str]) -> "subprocess.Popen[str]":
    here = ["env", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=1"]  # other tests of this process say 0
    return start(["ip", "netns", "exec", namespace, *here, *arguments])


def node(namespace: str, *more: str) -> "subprocess.Popen[str]":
    own = [f"--node-ip-address={ADDRESSES[namespace]}", "--disable-usage-stats", "--block"]
    return begin(namespace, [RAY, "start", *own, *more])


def test_a_node_cut_off_ends_its_work_before_another_takes_it(namespaces, tmp_path):
    wanted = undisturbed(write(tmp_path / "wanted", ONE_ARM))
    study, head = begun(wanted, tmp_path / "own", ONE_ARM), f"{ADDRESSES[HEAD]}:6379"
    started = [node(HEAD, "--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false")]
    until(lambda: "gcs_server" in {p.name() for p in inside(HEAD)}, started[0], 30)
    time.sleep(2)
    for name in (A, B):  # one after the other: on one machine they take files of like names
        started.append(node(name, f"--address={head}", "--num-cpus=1"))
        until(lambda name=name: "raylet" in {p.name() for p in inside(name)}, started[-1], 30)
        time.sleep(3)
    assert [process.poll() for process in started] == [None] * 3
    run = begin(HEAD, command(study, "--ray", head, lease=LEASE))
    until(lambda: training(study), run)
    at_work = {name: workers(inside(name)) for name in (A, B)}
    cut, other = (A, B) if at_work[A] else (B, A)
    (worker,) = at_work[cut]
    assert not at_work[other]  # one arm: one step at a time
    began = time.monotonic()
    ip("-n", HEAD, "link", "set", ENDS[cut], "down")
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert not status(study)["warnings"], "given to another while it was at work"
        assert time.monotonic() - began < LEASE + 3
        time.sleep(0.05)
    assert time.monotonic() - began > LEASE - 3  # it did work on for a while
    (warning,) = until(lambda: status(study)["warnings"], run)
    assert f"{ADDRESSES[cut]} was lost" in warning
    until(lambda: workers(inside(other)), run, 30)
    ip("-n", HEAD, "link", "set", ENDS[cut], "up")
    code, said = finish(run)
    assert code == 0, said
    same(study, wanted)
