"""A study on two Ray nodes, disturbed in every way that can be had on one machine, ends with the bits of `local`."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clusters import (
    HEAD,
    LONG,
    begun,
    both_train,
    command,
    finish,
    of_node,
    same,
    says,
    start,
    status,
    training,
    two_nodes,
    until,
    workers,
    write,
)

from codestage.engine.ray_arms import note, wait_out
from codestage.engine.ray_worker import Keeper, refused
from codestage.engine.store import Step
from codestage.errors import RunError, UserError

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    """One that tests leave as they found it."""
    with two_nodes() as made:
        yield made


@pytest.fixture
def prepared(reference, tmp_path):
    return begun(reference, tmp_path / "own")


def on(cluster, study: Path, *more: str) -> "subprocess.Popen[str]":
    return start(command(study, "--ray", cluster.address, *more))


def test_two_nodes_give_the_bits_of_local(cluster, reference, tmp_path):
    study = write(tmp_path / "own")
    process = on(cluster, study)
    until(lambda: both_train(study), process)
    assert [len(workers(of_node(node))) for node in cluster.list_all_nodes()] == [1, 1]
    code, said = finish(process)
    assert code == 0, said
    same(study, reference)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with little room."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def test_stopped_then_killed_then_refused_by_a_full_disk_it_ends_the_same(
    cluster, reference, small_disk
):
    study = begun(reference, small_disk / "own")
    process = on(cluster, study)
    until(lambda: both_train(study), process)
    os.kill(process.pid, signal.SIGTERM)
    code, said = finish(process, 30)
    assert code == 1
    assert "stopped; everything is saved" in said
    work = study.with_suffix("") / "work"
    saved = list(work.glob("train-*/partial/state.json"))
    assert len(saved) == 2
    assert not (work / "ray-lease").exists()
    limit = time.monotonic() + 10
    while any(workers(of_node(node)) for node in cluster.list_all_nodes()):
        assert time.monotonic() < limit
        time.sleep(0.1)

    tokens = min(json.loads(path.read_text())["tokens"] for path in saved)
    process = on(cluster, study)
    until(lambda: both_train(study), process)
    for node in cluster.list_all_nodes():
        for worker in workers(of_node(node)):
            worker.kill()
    until(lambda: len(status(study)["warnings"]) == 2, process)
    assert "its worker died (exit -9 on 127.0.0.1" in status(study)["warnings"][0]
    first = until(lambda: [s["tokens"] for s in status(study)["running"] if "tokens" in s], process)
    assert min(first) >= tokens > 2_000  # not from the beginning

    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        for _ in range(12 << 10):
            file.write(b"\0" * 1024)
    assert shutil.disk_usage(small_disk).free < 4096
    heard: list[str] = []
    until(
        lambda: says(process, "No space left", heard), process
    )  # at once, though no status can be written
    filler.unlink()
    until(lambda: any("No space left" in w for w in status(study)["warnings"]), process)
    code, said = finish(process)
    assert code == 0, said
    same(study, reference)


def test_no_cluster_and_no_room_are_one_message(cluster, prepared):
    code, said = finish(start(command(prepared, "--ray", "127.0.0.1:1")), 60)
    assert code == 2, said
    assert "no Ray cluster at 127.0.0.1:1" in said
    assert "Traceback" not in said
    large = LONG.replace("hidden_size: 32, layers: 1, heads: 2", "size: 7B")
    prepared.write_text(large)
    code, said = finish(on(cluster, prepared), 60)
    assert code == 2, said
    assert "no node of the Ray cluster has room for one worker (num_cpus 1, memory 1" in said


def test_a_node_is_lost_then_the_head_and_local_goes_on(reference, prepared):
    with two_nodes() as cluster:
        process = on(cluster, prepared)
        until(lambda: both_train(prepared), process)
        cluster.remove_node(cluster.list_all_nodes()[1], allow_graceful=False)
        until(lambda: status(prepared)["warnings"], process)
        assert "127.0.0.1 was lost" in status(prepared)["warnings"][0]
        trained = prepared.with_suffix("") / "store" / "train"
        until(lambda: list(trained.glob("*")) and training(prepared), process)  # the lost one again
        cluster.head_node.kill_gcs_server()
        cluster.head_node.kill_raylet()  # or what is left might come to the end without a head
        code, said = finish(process, 40)
    assert code == 1, said
    assert "run again: it goes on from the checkpoints" in said
    code, said = finish(start(command(prepared)))
    assert code == 0, said
    same(prepared, reference)


def test_a_node_that_does_not_see_the_folder_is_refused(prepared):
    from ray.cluster_utils import Cluster

    folder = prepared.with_suffix("")
    made = Cluster(initialize_head=True, head_node_args=HEAD)
    ray = Path(sys.executable).with_name("ray")
    join = f"{ray} start --address={made.address} --node-ip-address=127.0.0.1 --num-cpus=1 --block"
    blind = start(["unshare", "-m", "sh", "-c", f"mount -t tmpfs tmpfs {folder} && exec {join}"])
    try:
        limit = time.monotonic() + 30
        while sum(node["Alive"] for node in made.global_state.node_table()) < 2:
            if blind.poll() is not None:
                pytest.skip("a node without the folder cannot be made here")
            assert time.monotonic() < limit, "the node does not join"
            time.sleep(0.2)
        code, said = finish(start(command(prepared, "--ray", made.address)), 60)
        assert code == 2, said
        assert f"node 127.0.0.1 of the Ray cluster does not share {folder}" in said
        assert "--out" in said
        assert not list((folder / "work").glob(".probe*"))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(blind.pid, signal.SIGKILL)
        blind.communicate()
        made.shutdown()


def test_a_keeper_whose_lease_ran_out_begins_nothing(tmp_path):
    keeper = Keeper(str(tmp_path), 0.2, {})
    assert keeper.look(Step("train", "never asked before", {})) == [("lapsed", {})]
    keeper._answered = time.monotonic()
    time.sleep(0.4)
    assert keeper.look(Step("train", "asked too late", {})) == [("lapsed", {})]
    assert keeper._process is None


def test_a_worker_ends_when_nobody_asks_for_it(tmp_path):
    keeper = Keeper(str(tmp_path), 4.0, {})
    keeper.look()
    heard = keeper.look(Step("train", "", {}, {}, payload=None))
    worker = keeper._process
    assert worker
    limit = time.monotonic() + 60
    while not heard:  # asked for, it lives longer than its lease: it says what is wrong with this step
        heard = keeper.look()
        assert time.monotonic() < limit
    assert heard[0][0] == "error"
    assert worker.is_alive()
    keeper._busy, keeper._until.value = True, time.monotonic() + 0.5  # as if at a long step
    worker.join(timeout=5)
    assert keeper.look() == [("lapsed", {})]


def test_only_files_that_cannot_be_used_are_tried_again():
    def raised(error, inner=None):
        try:
            try:
                raise inner or error
            except type(inner or error):
                raise error from None
        except Exception as found:
            return found

    assert refused(OSError(28, "No space left on device"))
    assert refused(raised(RunError("cannot be written"), OSError(28, "No space left on device")))
    assert refused(raised(RunError("not written"), ValueError("I/O error (os error 28)")))
    assert not refused(raised(RunError("the loss is not finite")))
    assert not refused(raised(UserError("no such file"), FileNotFoundError(2, "No such file")))


def test_a_run_that_was_cut_off_is_waited_for_until_its_leases_have_ended(tmp_path):
    (tmp_path / "work").mkdir()
    began = time.monotonic()
    wait_out(tmp_path)  # none
    assert time.monotonic() - began < 0.5
    note(tmp_path, 0.0)
    path = tmp_path / "work" / "ray-lease"
    assert json.loads(path.read_text())["seconds"] == pytest.approx(5.0)
    os.utime(path, (time.time() - 3, time.time() - 3))
    wait_out(tmp_path)
    assert 1.5 < time.monotonic() - began < 3
    assert not path.exists()
