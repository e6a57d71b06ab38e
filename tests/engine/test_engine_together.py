"""A study whose training is shared by the processes that torchrun starts."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import TINY

from codestage.engine.together import launched

pytestmark = pytest.mark.slow


def start(study: Path, processes: int, *more: str) -> subprocess.Popen[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += ["--master-addr=127.0.0.1", f"--master-port={port}", "--local-addr=127.0.0.1"]
    command += ["-m", "codestage.cli", "run", str(study), "--workers=1", *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out + err


def write(folder: Path, text: str = TINY) -> Path:
    folder.mkdir()
    (folder / "tiny.yaml").write_text(text)
    return folder / "tiny.yaml"


def curves(study: Path) -> dict[str, list[dict]]:
    folder = study.with_suffix("") / "store" / "train"
    return {p.parent.name: pq.read_table(p).to_pylist() for p in folder.glob("*/curve.parquet")}


SMALL = TINY.replace("seeds: 2", "seeds: 1").replace("[token-matched, additive]", "[]")


def test_two_processes_do_the_study_that_one_does(tmp_path):
    one, two = write(tmp_path / "one", SMALL), write(tmp_path / "two", SMALL)
    alone = subprocess.run(
        [sys.executable, "-m", "codestage.cli", "run", str(one)], capture_output=True, text=True
    )
    assert alone.returncode == 0, alone.stderr
    code, said = finish(start(two, 2))
    assert code == 0, said
    assert said.count("report:") == 1
    mine, theirs = curves(one), curves(two)
    assert mine.keys() == theirs.keys()  # the number of processes is in no hash
    for name, rows in mine.items():
        for a, b in zip(rows, theirs[name], strict=True):
            assert a["source_predicted"] == b["source_predicted"]
            assert a["tokens"] == b["tokens"]
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
    items = [pq.read_table(s.with_suffix("") / "results" / "items.parquet") for s in (one, two)]
    assert len(items[0]) == len(items[1])
    code, said = finish(start(two, 2))  # nothing is left to do
    assert code == 0, said


def test_asked_to_stop_all_save_and_another_number_goes_on(tmp_path):
    text = SMALL.replace("tokens: 4k", "tokens: 120k")
    for domain in ("text", "code"):
        text = text.replace(f"domain: {domain}, proc", f"domain: {domain}, epochs: 99, proc")
    study = write(tmp_path / "long", text)
    process = start(study, 2)
    work = study.with_suffix("") / "work"
    limit = time.monotonic() + 200
    while time.monotonic() < limit and process.poll() is None:
        status = work / "status.json"
        if status.exists() and '"loss"' in status.read_text():
            break
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGTERM)
    code, said = finish(process)
    assert code != 0
    assert "stopped; everything is saved" in said, said
    (shards,) = work.glob("train-*/partial/.metadata")
    assert shards.stat().st_size
    done = subprocess.run(
        [sys.executable, "-m", "codestage.cli", "run", str(study)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [row for curve in curves(study).values() for row in curve]
    assert max(row["tokens"] for row in rows) == 120_000


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (("batch_tokens: 512", "batch_tokens: 192"), "cannot be parted evenly among 2 processes"),
        (("mix: {prose: 1}", "mix: {prosa: 1}"), "prosa"),
    ],
)
def test_what_cannot_be_done_is_said_and_ends_all(tmp_path, change, wanted):
    study = write(tmp_path / "bad", SMALL.replace(*change))
    code, said = finish(start(study, 2))
    assert code != 0
    assert wanted in said
    assert "Error: " not in said.split("ChildFailedError")[0], said


def test_only_what_torchrun_started_is_one_of_several(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert not launched()
    monkeypatch.setenv("WORLD_SIZE", "4")  # a cluster's queue may set this alone
    assert not launched()
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    assert launched()
