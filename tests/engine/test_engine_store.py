"""The store: whole or not there, verified when read, safe for several processes, honest about locks."""

import errno
import fcntl
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from codestage.engine import store as stores
from codestage.engine.progress import only_one, status
from codestage.engine.store import Step, Store, write_atomically
from codestage.errors import RunError, UserError


def step(name="one"):
    return Step("items", f"items {name}", {"name": name}, {})


def finish(store, made=None, text="some"):
    one = made or step()
    store.work(one)
    result = store.root / "work" / f"{one.label}-{os.getpid()}"
    (result / "deep").mkdir(parents=True)
    (result / "items.json").write_text(text)
    (result / "deep" / "more.json").write_text(text)
    store.commit(one, result, 2.5)
    return store.path(one.kind, one.hash)


def test_a_step_is_there_whole_with_its_checksums_and_what_made_it(tmp_path):
    store = Store(tmp_path)
    folder = finish(store)
    record = json.loads((folder / "step.json").read_text())
    assert record["checksums"].keys() == {"items.json", "deep/more.json"}
    assert record["config"] == {"name": "one"}
    assert {"torch", "numpy", "tokenizers"} <= record["libraries"].keys()
    assert store.read("items", step().hash) == folder
    assert not (tmp_path / "work" / f"items-{step().hash}").exists()
    assert (
        [r["hash"] for r in store.finished()]
        == [r["hash"] for r in store.finished("items")]
        == [step().hash]
    )


def test_versions_of_libraries_are_noted_and_are_no_part_of_the_hash(tmp_path, monkeypatch):
    before = step().hash
    monkeypatch.setattr(stores, "libraries", lambda: {"torch": "9.9"})
    folder = finish(Store(tmp_path))
    assert folder.name == before
    assert json.loads((folder / "step.json").read_text())["libraries"] == {"torch": "9.9"}


def flip(path):
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(bytes(held))


@pytest.mark.parametrize("name", ["items.json", "deep/more.json"])
def test_one_flipped_bit_is_found_named_and_mended_as_the_message_says(tmp_path, name):
    folder = finish(Store(tmp_path), text="x" * 10_000)
    flip(folder / name)
    with pytest.raises(RunError, match="damaged") as told:
        Store(tmp_path).read("items", step().hash)
    assert str(folder / name) in str(told.value)
    assert f"remove {folder} and run again" in str(told.value)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.rmdir()
    assert not Store(tmp_path).has(step())
    finish(Store(tmp_path))
    Store(tmp_path).read("items", step().hash)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda folder: (folder / "items.json").unlink(),
        lambda folder: (folder / "step.json").unlink(),
        lambda folder: (folder / "step.json").write_text("{"),
        lambda folder: (folder / "step.json").write_text("[]"),
        lambda folder: (folder / "step.json").write_text('{"checksums": [1]}'),
        lambda folder: (folder / "step.json").write_bytes(b"\xff\xfe"),
    ],
)
def test_whatever_is_broken_is_one_message(tmp_path, break_it):
    folder = finish(Store(tmp_path))
    break_it(folder)
    with pytest.raises(RunError, match="remove it and run again"):
        Store(tmp_path).read("items", step().hash)


def race(root, number, start):
    start.wait()
    for i in range(10):
        finish(Store(Path(root)), step(f"{i}"), text=f"of {number}")


def test_processes_that_finish_the_same_steps_at_once_leave_each_whole(tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Event()
    racers = [context.Process(target=race, args=(str(tmp_path), n, start)) for n in range(4)]
    for racer in racers:
        racer.start()
    start.set()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0] * 4
    for i in range(10):
        folder = Store(tmp_path).read("items", step(f"{i}").hash)
        assert (folder / "items.json").read_text() == (folder / "deep" / "more.json").read_text()


def test_a_rename_that_was_done_though_its_answer_was_lost_is_no_failure(tmp_path, monkeypatch):
    """A file server that is asked again says that the folder is not there any more."""
    real = Path.rename

    def twice(self, target):
        real(self, target)
        raise OSError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(Path, "rename", twice)
    finish(Store(tmp_path))
    monkeypatch.undo()
    Store(tmp_path).read("items", step().hash)

    def never(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", never)
    with pytest.raises(RunError, match="make room"):
        finish(Store(tmp_path), step("two"))
    assert not Store(tmp_path).has(step("two"))


def test_everything_is_on_disk_before_the_name_is(tmp_path, monkeypatch):
    events = []
    real_sync, real_rename = stores.sync, Path.rename
    monkeypatch.setattr(
        stores, "sync", lambda path: (events.append(("sync", path.name)), real_sync(path))
    )
    monkeypatch.setattr(
        Path, "rename", lambda a, b: (events.append(("rename", b.name)), real_rename(a, b))[1]
    )
    folder = finish(Store(tmp_path))
    named = events.index(("rename", folder.name))
    before = {name for kind, name in events[:named] if kind == "sync"}
    assert {"items.json", "more.json", "step.json", "deep"} <= before
    assert events[named + 1] == ("sync", "items")  # the folder that holds the name


def test_a_small_file_is_replaced_whole_and_leaves_nothing_behind(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a.json", "old")

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stores, "sync", full)
    with pytest.raises(RunError, match="make room"):
        write_atomically(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_second_run_is_refused_and_the_lock_goes_with_the_first(tmp_path):
    with only_one(tmp_path), pytest.raises(UserError, match="another"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass


def test_whether_a_run_goes_on_is_asked_without_writing(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "status.json").write_text(
        '{"state": "running", "study": "x", "running": [1], "tokens_per_second": 9}'
    )
    assert status(tmp_path)["state"] == "stopped"  # no lock, no run
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["status.json"]
    real = Path.open

    def reading(self, mode="r", *args, **kwargs):
        if set(mode) & set("wax+"):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return real(self, mode, *args, **kwargs)

    with only_one(tmp_path):
        monkeypatch.setattr(Path, "open", reading)
        assert status(tmp_path)["state"] == "running"
    assert status(tmp_path)["state"] == "stopped"
    monkeypatch.setattr(fcntl, "flock", lambda *_: 1 / 0)
    (tmp_path / "work" / "lock").unlink()
    assert status(tmp_path)["state"] == "stopped"


def test_a_file_system_without_locks_is_told_as_that(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(UserError, match="gives no locks"), only_one(tmp_path):
        pass


def test_status_reads_one_small_file_however_many_steps_there_are(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "status.json").write_text('{"state": "done", "study": "x"}')
    for i in range(50):
        (tmp_path / "store" / "train" / f"{i:032}").mkdir(parents=True)
    opened = []
    real = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, *a, **k: (opened.append(self.name), real(self, *a, **k))[1]
    )
    assert status(tmp_path)["state"] == "done"
    assert opened == ["status.json"]
