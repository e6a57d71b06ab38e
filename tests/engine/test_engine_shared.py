"""Studies that share a store: what one has finished, no other does again; whoever is killed, the bits are the same."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import shared_fixture
from shared_fixture import STUDY, run

from codestage.engine import run as runs
from codestage.engine.export import export
from codestage.engine.gc import collect
from codestage.engine.mix import inspect, mix
from codestage.engine.progress import status
from codestage.engine.remote import Remote
from codestage.engine.sending import Sender
from codestage.engine.shared import open_store
from codestage.engine.store import VERSIONS, Store
from codestage.engine.why import why
from codestage.errors import RunError, UserError


@pytest.fixture(autouse=True, scope="module")
def no_report():
    """The page is tested elsewhere, and takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "rebuild", lambda folder: ({}, "files"))
        yield


def write(folder, text=STUDY):
    folder.mkdir(exist_ok=True)
    (folder / "small.yaml").write_text(text)
    return folder / "small.yaml"


def weights(place):
    """Hash -> bytes of the weights in a results folder or a store of one."""
    found = {p.parent.name: p for p in Path(place).glob("store/train/*/model.safetensors")}
    found |= {p.parent.parent.name: p for p in Path(place).glob("train/*/*/model.safetensors")}
    return {hash_: path.read_bytes() for hash_, path in found.items()}


def items(study):
    table = pq.read_table(study.with_suffix("") / "results" / "items.parquet")
    return table.drop(["seconds"]).to_pylist()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study that was run with a store, the store, and the steps that were done."""
    place = tmp_path_factory.mktemp("shared")
    study = write(place / "first")
    return study, str(place / "steps"), run(study, str(place / "steps"))


def test_all_that_was_done_lies_in_the_store(finished):
    study, url, done = finished
    remote, here = Remote(url), Store(study.with_suffix(""))
    there = {(kind, hash_) for kind in VERSIONS for hash_ in remote.hashes(kind)}
    assert there == {(r["kind"], r["hash"]) for r in here.finished()}
    assert len(there) == len(done)
    assert weights(url) == weights(study.with_suffix("")) != {}
    assert run(study) == []  # and needs no option any more


def test_the_same_study_elsewhere_does_nothing_and_brings_no_weights(finished, tmp_path):
    first, url, _ = finished
    study = write(tmp_path / "second")
    assert run(study, url) == []
    assert items(study) == items(first)
    assert not list(study.with_suffix("").rglob("model.safetensors"))
    assert not list(study.with_suffix("").rglob("documents.parquet"))
    assert why(study, study.with_suffix(""))["steps"] == []
    model = export(study.with_suffix(""), run="text/uniform#0", stage=None, to=tmp_path / "model")
    runs_ = json.loads((study.with_suffix("") / "results" / "runs.json").read_text())
    last = next(e for e in runs_ if e["run"] == "text/uniform#0")["stages"][-1]["steps"][-1]
    assert (model / "model.safetensors").read_bytes() == weights(url)[last]
    assert not list(study.with_suffix("").rglob("optimizer.safetensors"))


def test_another_study_trains_only_what_is_its_own(finished, tmp_path):
    _, url, done = finished
    study = write(tmp_path / "third", STUDY.replace("chat: 5, code_chat: 3", "chat: 1, code_chat: 1"))
    own = run(study, url)
    assert own == ["text/uniform#0 tune 0-3", "text/uniform#0 after tune"]
    assert set(own) < set(done)
    brought = [p.parent.name for p in (study.with_suffix("") / "store").rglob("model.safetensors")]
    records = {r["hash"]: r["label"] for r in Store(study.with_suffix("")).finished("train")}
    assert sorted(records[h] for h in brought) == ["text/text#0 pretrain 0-4", "text/uniform#0 tune 0-3"]
    assert set(brought) <= weights(url).keys()


def test_data_are_told_of_without_being_brought(finished, tmp_path):
    first, url, _ = finished
    study = write(tmp_path / "fourth")
    rows = inspect(study, out=study.with_suffix(""), store=url)
    assert rows == inspect(first, out=first.with_suffix(""))
    assert not (study.with_suffix("") / "store").exists()
    held = mix(study, arm="text/uniform", stage="tune", out=study.with_suffix(""))
    assert held["total"]["by_source"] == {"chat": 625, "code_chat": 375}
    kinds = {p.name for p in (study.with_suffix("") / "store").iterdir()}
    assert kinds == {"prepare"}


def test_interrupted_while_the_last_steps_are_sent_it_says_so(finished, tmp_path, monkeypatch):
    def interrupted(self, while_waiting):
        raise KeyboardInterrupt

    study = write(tmp_path / "interrupted")
    monkeypatch.setattr(Sender, "finish", interrupted)
    with pytest.raises(RunError, match="goes on from here"):
        run(study, finished[1])
    assert status(study.with_suffix(""))["state"] == "stopped"
    monkeypatch.undo()
    assert run(study) == []


def test_killed_while_sending_the_same_command_goes_on_to_the_same_bits(finished, tmp_path):
    first, _, done = finished
    study, place = write(tmp_path / "killed"), str(tmp_path / "steps")
    code = subprocess.run(
        [sys.executable, shared_fixture.__file__, str(study), place, "27"], check=False
    ).returncode
    assert code == -signal.SIGKILL
    remote = Remote(place)
    seen = {hash_ for kind in VERSIONS for hash_ in remote.hashes(kind)}
    assert 0 < len(seen) < len(done)
    reader = open_store(tmp_path / "reader", place)
    for kind in VERSIONS:  # what is seen is whole
        for hash_ in remote.hashes(kind):
            reader.read(kind, hash_)
    assert len(run(study)) < len(done)
    assert weights(place) == weights(study.with_suffix("")) == weights(first.with_suffix(""))
    assert items(study) == items(first)
    assert len({h for kind in VERSIONS for h in remote.hashes(kind)}) == len(done)


def test_what_the_store_has_may_go_from_the_folder_and_comes_back(finished, tmp_path):
    _, url, _ = finished
    study = write(tmp_path / "fifth")
    folder = study.with_suffix("")
    (folder / "store").mkdir(parents=True)
    with pytest.raises(UserError, match="has no remote store"):
        collect(folder, [study], cached=True)
    run(study, url)
    before = {r["hash"] for r in Store(folder).finished()}
    parts = [p.name for p in (folder / "work").glob("download-train-*")]
    assert len(parts) == 3  # of the curves
    answer = collect(folder, [study])
    assert answer["steps"] == answer["work"] == []
    write(tmp_path / "edited", STUDY.replace("chat: 5, code_chat: 3", "chat: 1, code_chat: 1"))
    shutil.rmtree(folder / "results")
    gone = collect(folder, [tmp_path / "edited" / "small.yaml"])["work"]
    assert [w["name"] in parts for w in gone] == [True]
    assert collect(folder, [study], cached=True)["steps"]
    collect(folder, [study], cached=True, delete=True)
    assert {r["kind"] for r in Store(folder).finished()} == {"items"}
    assert weights(url)  # nothing went there
    assert run(study) == []
    assert {r["hash"] for r in Store(folder).finished()} == before
