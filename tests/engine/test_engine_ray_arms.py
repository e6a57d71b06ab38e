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

import psutil
import pyarrow.parquet as pq
import pytest
from conftest import TINY

from codestage.engine.ray_arms import note, wait_out
from codestage.engine.ray_worker import Keeper, refused
from codestage.engine.store import Step
from codestage.errors import RunError, UserError

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # so that 127.0.0.1 is left as it is
pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.slow
LONG = TINY.replace("seeds: 2", "seeds: 1").replace("[token-matched, additive]", "[]")
LONG = LONG.replace("tokens: 4k", "tokens: 300k")
for domain in ("text", "code"):
    LONG = LONG.replace(f"domain: {domain}, proc", f"domain: {domain}, epochs: 999, proc")
LEASE = 8.0
RUN = f"import codestage.engine.ray_arms as a; a.LEASE = {LEASE}; a.HEAD_SECONDS = 10; from codestage.cli import main; main()"
HEAD = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False}
DATA = ("items", "documents", "tokenizer", "prepare")


@contextlib.contextmanager
def two_nodes():
    """A cluster of two nodes on this machine, gone at the end."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=HEAD)
    try:
        made.add_node(num_cpus=1, node_ip_address="127.0.0.1")
        yield made
    finally:
        made.shutdown()


@pytest.fixture(scope="module")
def cluster():
    """One that tests leave as they found it."""
    with two_nodes() as made:
        yield made


@pytest.fixture
def own_cluster():
    """One that a test may break."""
    with two_nodes() as made:
        yield made


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The study's folder after an undisturbed local run."""
    study = write(tmp_path_factory.mktemp("reference"))
    done = subprocess.run(
        [sys.executable, "-m", "codestage.cli", "run", str(study)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return study.with_suffix("")


@pytest.fixture
def prepared(reference, tmp_path):
    """A study of which only the data is there: it begins with training."""
    return begun(reference, tmp_path / "own")


def write(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.yaml").write_text(LONG)
    return folder / "tiny.yaml"


def begun(reference: Path, folder: Path) -> Path:
    study = write(folder)
    for kind in DATA:
        shutil.copytree(reference / "store" / kind, study.with_suffix("") / "store" / kind)
    return study


def start(study: Path, address: str | None, *more: str) -> subprocess.Popen[str]:
    on = [] if address is None else ["--ray", address]
    return subprocess.Popen(
        [sys.executable, "-c", RUN, "run", str(study), *on, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], seconds: float = 110) -> tuple[int, str]:
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"no end after {seconds} s: {out}{err}")
    return process.returncode, out + err


def status(study: Path) -> dict:
    try:
        return json.loads((study.with_suffix("") / "work" / "status.json").read_text())
    except (OSError, ValueError):
        return {"running": [], "warnings": []}


def until(condition, process: subprocess.Popen[str], seconds: float = 100):
    """Wait for a condition while the run goes on; what it was."""
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, finish(process)
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.1)
    return found


def both_train(study: Path) -> bool:
    return sum("loss" in step for step in status(study)["running"]) == 2


def workers(node) -> list[psutil.Process]:
    """Processes of a node that do steps."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [p for p in raylet.children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]


def found(folder: Path):
    """Every result: hashes of all steps, the bytes of all weights and learning curves, the item records."""
    steps = {(p.parent.name, p.name) for p in (folder / "store").glob("*/*")}
    files = [
        p
        for pattern in ("train/*/*.safetensors", "train/*/curve.parquet")
        for p in (folder / "store").glob(pattern)
    ]
    items = pq.read_table(folder / "results" / "items.parquet").drop(["seconds"]).to_pylist()
    return steps, {str(p.relative_to(folder)): p.read_bytes() for p in files}, items


def same(study: Path, reference: Path) -> None:
    mine, wanted = found(study.with_suffix("")), found(reference)
    for part, its in zip(mine, wanted, strict=True):
        assert part == its
    assert not list((study.with_suffix("") / "work").glob("*-*"))  # no unfinished work, no lease


def test_two_nodes_give_the_bits_of_local(cluster, reference, tmp_path):
    study = write(tmp_path / "own")
    process = start(study, cluster.address)
    until(lambda: both_train(study), process)
    assert [len(workers(node)) for node in cluster.list_all_nodes()] == [1, 1]
    code, said = finish(process)
    assert code == 0, said
    same(study, reference)


def test_a_killed_worker_is_replaced_and_goes_on_from_the_checkpoint(cluster, reference, prepared):
    process = start(prepared, cluster.address)
    until(lambda: both_train(prepared), process)
    time.sleep(2)
    process.terminate()  # so that there are checkpoints
    assert finish(process)[0] == 1
    saved = list((prepared.with_suffix("") / "work").glob("train-*/partial/state.json"))
    tokens = min(json.loads(path.read_text())["tokens"] for path in saved)
    process = start(prepared, cluster.address)
    until(lambda: any("loss" in step for step in status(prepared)["running"]), process)
    for node in cluster.list_all_nodes():
        for worker in workers(node):
            worker.kill()
    until(lambda: status(prepared)["warnings"], process)
    assert "worker died (exit -9 on 127.0.0.1)" in status(prepared)["warnings"][0]
    first = until(lambda: [s["tokens"] for s in status(prepared)["running"] if "tokens" in s], process)
    assert min(first) >= tokens > 2_000  # not from the beginning
    code, said = finish(process)
    assert code == 0, said
    same(prepared, reference)


def test_a_lost_node_s_work_is_done_by_the_other(own_cluster, reference, prepared):
    process = start(prepared, own_cluster.address)
    until(lambda: both_train(prepared), process)
    lost = own_cluster.list_all_nodes()[1]
    own_cluster.remove_node(lost, allow_graceful=False)
    until(lambda: status(prepared)["warnings"], process)
    code, said = finish(process)
    assert code == 0, said
    same(prepared, reference)


def test_a_node_that_is_cut_off_ends_its_work_before_another_takes_it(own_cluster, reference, prepared):
    """Everything on the node is halted but the process that trains: as if its network were gone."""
    process = start(prepared, own_cluster.address)
    until(lambda: both_train(prepared), process)
    node = own_cluster.list_all_nodes()[1]
    (worker,) = workers(node)
    keeper, raylet = worker.parent(), psutil.Process(node.all_processes["raylet"][0].process.pid)
    began = time.monotonic()
    for halted in (raylet, keeper):
        halted.suspend()
    try:
        while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
            assert not status(prepared)["warnings"], "given to another while it was at work"
            assert time.monotonic() - began < LEASE + 3
            time.sleep(0.05)
        assert time.monotonic() - began > LEASE - 3  # it did work on for a while
        until(lambda: status(prepared)["warnings"], process)
        code, said = finish(process)
    finally:
        for halted in (keeper, raylet):
            with contextlib.suppress(psutil.NoSuchProcess):
                halted.resume()
    assert code == 0, said
    same(prepared, reference)


def test_asked_to_stop_all_save_and_local_goes_on(cluster, reference, prepared):
    process = start(prepared, cluster.address)
    until(lambda: both_train(prepared), process)
    os.kill(process.pid, signal.SIGTERM)
    code, said = finish(process, 30)
    assert code == 1
    assert "stopped; everything is saved" in said
    work = prepared.with_suffix("") / "work"
    assert len(list(work.glob("train-*/partial/state.json"))) == 2
    assert not (work / "ray-lease").exists()
    until_gone = time.monotonic() + 10
    while any(workers(node) for node in cluster.list_all_nodes()):
        assert time.monotonic() < until_gone
        time.sleep(0.1)
    code, said = finish(start(prepared, None))
    assert code == 0, said
    same(prepared, reference)


def test_a_store_that_refuses_for_a_while_is_waited_for(cluster, reference, prepared):
    folder = prepared.with_suffix("") / "store"
    (folder / "train").write_text("in the way")  # works against root too, unlike permissions
    process = start(prepared, cluster.address)
    until(lambda: any("tried again in" in w for w in status(prepared)["warnings"]), process)
    (folder / "train").unlink()
    code, said = finish(process)
    assert code == 0, said
    same(prepared, reference)


def test_a_full_disk_is_waited_for(cluster, reference, tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        study = begun(reference, place / "own")
        process = start(study, cluster.address)
        until(lambda: both_train(study), process)
        filler = place / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            for _ in range(12 << 10):
                file.write(b"\0" * 1024)
        assert shutil.disk_usage(place).free < 4096
        time.sleep(25)  # until both steps have come to their end
        assert process.poll() is None, finish(process)
        filler.unlink()
        until(lambda: any("No space left" in w for w in status(study)["warnings"]), process)
        code, said = finish(process)
        assert code == 0, said
        same(study, reference)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def test_the_head_is_lost_and_with_another_it_goes_on(own_cluster, reference, prepared):
    process = start(prepared, own_cluster.address)
    until(lambda: both_train(prepared), process)
    own_cluster.head_node.kill_gcs_server()
    own_cluster.head_node.kill_raylet()  # or what is left might come to the end without a head
    code, said = finish(process, 40)
    assert code == 1, said
    assert "run again: it goes on from the checkpoints" in said
    own_cluster.shutdown()
    with two_nodes() as another:
        code, said = finish(start(prepared, another.address))
    assert code == 0, said
    same(prepared, reference)


def test_a_node_that_does_not_see_the_folder_is_refused(prepared):
    from ray.cluster_utils import Cluster

    folder = prepared.with_suffix("")
    made = Cluster(initialize_head=True, head_node_args=HEAD)
    ray = Path(sys.executable).with_name("ray")
    join = f"{ray} start --address={made.address} --node-ip-address=127.0.0.1 --num-cpus=1 --block"
    blind = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f"mount -t tmpfs tmpfs {folder} && exec {join}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        time.sleep(12)
        if blind.poll() is not None:
            pytest.skip("a node without the folder cannot be made here")
        code, said = finish(start(prepared, made.address), 60)
        assert code == 2, said
        assert f"node 127.0.0.1 of the Ray cluster does not share {folder}" in said
        assert "--out" in said
        assert not list((folder / "work").glob(".probe*"))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(blind.pid, signal.SIGKILL)
        blind.communicate()
        made.shutdown()


def test_no_cluster_and_no_room_are_one_message(cluster, prepared):
    code, said = finish(start(prepared, "127.0.0.1:1"), 60)
    assert code == 2, said
    assert "no Ray cluster at 127.0.0.1:1" in said
    assert "Traceback" not in said
    large = LONG.replace("hidden_size: 32, layers: 1, heads: 2", "size: 7B")
    prepared.write_text(large)
    code, said = finish(start(prepared, cluster.address), 60)
    assert code == 2, said
    assert "no node of the Ray cluster has room for one worker (num_cpus 1, memory 1" in said


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
