"""Several processes train what one does: FSDP2, HSDP, stops, and other numbers of processes."""

import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from many_fixture import job, start, together
from safetensors.torch import load_file
from train_fixture import content

from codestage.train.parallel import World, alone
from codestage.train.partials import in_shards

pytestmark = pytest.mark.slow
ONE = World(torch.device("cpu"))
MUON = {"name": "muon", "lr": 1e-2, "ema": 0.9}
LORA = {"kind": "dora", "rank": 2}


def weights(folder: Path):
    return load_file(folder / "checkpoint" / "model.safetensors")


def curve(folder: Path):
    return pq.read_table(folder / "checkpoint" / "curve.parquet").to_pylist()


def assert_same(a: Path, b: Path, tolerance=2e-4):
    """The same training but for rounding: weights, optimizer, curve."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        mine, other = (load_file(x / "checkpoint" / name) for x in (a, b))
        assert mine.keys() == other.keys()
        for key, tensor in mine.items():
            torch.testing.assert_close(
                tensor, other[key], rtol=1e-2, atol=tolerance, msg=lambda m, k=key: f"{k}: {m}"
            )
    for x, y in zip(curve(a), curve(b), strict=True):
        assert (x["batch"], x["tokens"], x["lr"]) == (y["batch"], y["tokens"], y["lr"])
        assert x["source_predicted"] == y["source_predicted"]
        assert x["loss"] == pytest.approx(y["loss"], rel=1e-4)
        assert x["grad_norm"] == pytest.approx(y["grad_norm"], rel=1e-3)


def test_two_and_four_processes_train_what_one_does(tmp_path):
    jobs = {
        "plain": {},
        "muon": {"optimizer": MUON, "tokens": 130},  # its rounding to bf16 makes small differences large
        "micro": {"micro_batch_tokens": 16},
        "gpt2": {"family": "gpt2", "shape": {"kv_heads": 4}},
        "recompute": {"shape": {"recompute": True}},
        "wide": {"shape": {"vocab_size": 61}},
    }
    for name, changes in jobs.items():
        job(ONE, tmp_path / "one" / name, **changes)
    for world, shard in ((2, None), (4, 2)):
        asked = [{"out": str(tmp_path / str(world) / n), **c} for n, c in jobs.items()]
        together(world, asked, shard=shard)
        for name in jobs:
            assert_same(tmp_path / "one" / name, tmp_path / str(world) / name)


def test_adapters_and_chains_of_stages_go_over_processes(tmp_path):
    tune = {"tokens": 300, "name": "tune", "kind": "tune", "adapter": LORA}
    for place, run in (
        ("one", lambda jobs: [job(ONE, **j) for j in jobs]),
        ("two", lambda jobs: together(2, jobs)),
    ):
        root = tmp_path / place
        chained = {"out": str(root / "b"), "init": str(root / "a" / "checkpoint"), **tune}
        run([{"out": str(root / "a")}, chained])
    assert_same(tmp_path / "one" / "a", tmp_path / "two" / "a")
    assert_same(tmp_path / "one" / "b", tmp_path / "two" / "b")


def test_stopped_and_taken_up_by_as_many_processes_it_ends_with_the_same_bits(tmp_path):
    changes = {"optimizer": MUON, "shape": {"precision": "bf16"}}
    stops = [{"out": str(tmp_path / "stopped"), "stop_after": n, **changes} for n in (3, 0, 4)]
    together(2, [{"out": str(tmp_path / "whole"), **changes}, *stops])
    assert in_shards(tmp_path / "stopped" / "partial")
    together(2, [{"out": str(tmp_path / "stopped"), **changes}])
    whole, last = (content(tmp_path / x / "checkpoint") for x in ("whole", "stopped"))
    assert whole == last


def test_killed_with_shards_half_written_it_ends_with_the_same_bits(tmp_path):
    changes = {"optimizer": MUON, "tokens": 3200}
    together(2, [{"out": str(tmp_path / "straight"), **changes}])
    out, kills = tmp_path / "killed", 0
    order = {"out": str(out), "checkpoint_seconds": 0.0, **changes}
    for attempt in range(2):
        processes = start(2, [order])
        metadata = out / "partial" / ".metadata"
        began = metadata.stat().st_mtime_ns if metadata.exists() else 0
        limit = time.monotonic() + 60
        while time.monotonic() < limit and all(p.poll() is None for p in processes):
            if metadata.exists() and metadata.stat().st_mtime_ns != began:
                time.sleep(0.007 * attempt)
                break
            time.sleep(0.001)
        for process in processes:
            process.kill()
        codes = [process.wait() for process in processes]
        kills += codes == [-9, -9]
        for process in processes:
            process.stderr.close()
    assert kills
    together(2, [order])
    assert content(out / "checkpoint") == content(tmp_path / "straight" / "checkpoint")


def test_other_numbers_of_processes_go_on_with_the_same_data(tmp_path):
    out = tmp_path / "wandering"
    changes = {"optimizer": {"ema": 0.9}}
    job(ONE, tmp_path / "straight", **changes)
    job(ONE, out, stop_after=2, **changes)
    assert not in_shards(out / "partial")
    together(2, [{"out": str(out), "stop_after": 2, **changes}])
    assert in_shards(out / "partial")
    together(4, [{"out": str(out), "stop_after": 1, **changes}], shard=2)
    job(ONE, out, **changes)
    assert_same(tmp_path / "straight", out)


def test_alone_a_process_takes_its_own_device():
    assert alone().device.type == ("cuda" if torch.cuda.is_available() else "cpu")
