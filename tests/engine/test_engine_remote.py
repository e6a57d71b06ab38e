"""A store that several folders share: whole steps or none, from a folder and from a bucket, whoever fails."""

import json
import multiprocessing
import os
import secrets
import signal
import sys
import time
from pathlib import Path

import fsspec
import pytest
from buckets_fixture import gs_server, s3_server

from codestage.engine import remote as remotes
from codestage.engine import sending
from codestage.engine.gc_remote import collect_remote
from codestage.engine.remote import Refused, Remote, patient
from codestage.engine.sending import Sender
from codestage.engine.shared import open_store
from codestage.engine.store import Step, Store
from codestage.errors import RunError, UserError


@pytest.fixture(scope="module")
def bucket():
    with s3_server("steps") as address:
        yield address


@pytest.fixture(scope="module")
def google():
    with gs_server("steps") as address:
        yield address


@pytest.fixture(params=["folder", "s3", "gs"])
def url(request, tmp_path):
    """An empty place for a store."""
    if request.param == "folder":
        return str(tmp_path / "shared")
    place = request.getfixturevalue("bucket" if request.param == "s3" else "google")
    return f"{place}/{secrets.token_hex(4)}"


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "shared")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(remotes, "PAUSES", (0.01, 0.02))


def step(name="one", kind="items", **inputs):
    return Step(kind, f"{kind} {name}", {"name": name}, inputs)


def finish(store, one, text="some"):
    """Finish a step in a results folder, as a worker does."""
    here = Store(store.root)
    result = here.work(one) / "result"
    (result / "deep").mkdir(parents=True)
    (result / "a.bin").write_text(text)
    (result / "deep" / "b.bin").write_text(text)
    here.commit(one, result, 2.5)
    return one


def send(store, *steps):
    sender = Sender(store, lambda text: None)
    sender.put(*steps)
    sender.finish(lambda: None)


def sent(tmp_path, url, *steps):
    """A folder that has finished these steps and sent them."""
    store = open_store(tmp_path / "a", url)
    send(store, *(finish(store, one) for one in steps))
    return store


def files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_a_step_finished_in_one_folder_is_there_in_another(url, tmp_path):
    first = sent(tmp_path, url, step())
    other = open_store(tmp_path / "b", url)
    assert other.has(step())
    assert other.record(step())["seconds"] == 2.5
    assert other.file("items", step().hash, "deep/b.bin").read_text() == "some"
    assert not (tmp_path / "b" / "store").exists()  # not more was brought than was asked for
    folder = other.read("items", step().hash)
    assert (
        files(folder) == files(first.path("items", step().hash)) == {"a.bin", "deep/b.bin", "step.json"}
    )
    assert Store(tmp_path / "b").read("items", step().hash) == folder
    assert not list((tmp_path / "b" / "work").glob("download-*"))
    assert [r["label"] for r in open_store(tmp_path / "c", url).finished()] == ["items one"]


def test_the_folder_remembers_its_store_and_takes_no_other(place, tmp_path):
    sent(tmp_path, place, step())
    assert open_store(tmp_path / "a").has(step("one"))
    open_store(tmp_path / "a", f"file://{place}/")
    with pytest.raises(UserError, match="would be done again") as told:
        open_store(tmp_path / "a", str(tmp_path / "elsewhere"))
    assert str(tmp_path / "a" / "store.json") in str(told.value)
    (tmp_path / "a" / "store.json").unlink()
    open_store(tmp_path / "a", str(tmp_path / "elsewhere"))


def test_a_store_that_is_not_mounted_is_not_taken_for_an_empty_one(place, tmp_path):
    sent(tmp_path, place, step())
    Path(place).rename(tmp_path / "away")
    store = open_store(tmp_path / "a")
    assert store.has(step())  # what is here is
    for ask in (
        lambda: store.has(step("two")),
        lambda: store.begin("study", [step("two")]),
        lambda: list(store.finished("train")),
        lambda: collect_remote(tmp_path / "a", []),
    ):
        with pytest.raises(UserError, match="see that it is mounted"):
            ask()
    assert not Path(place).exists()
    (tmp_path / "away").rename(place)
    assert not store.has(step("two"))
    (Path(place) / "codestage.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match="needs another codestage"):
        open_store(tmp_path / "a").has(step("two"))


def test_an_address_that_can_be_no_store_is_one_message(bucket, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for url, words in {
        "xyz://a/b": "Protocol not known",
        f"{bucket}-not/x": "bucket does not exist",
        f"{tmp_path}/file/x": "cannot be used as a store",
        "simplecache::s3://a": "chained",
    }.items():
        with pytest.raises(UserError, match=words):
            open_store(tmp_path / "a", url)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    known = sys.modules["fsspec.registry"]._registry
    monkeypatch.delitem(known, "s3", raising=False)  # as if it had not been imported yet
    with pytest.raises(UserError, match=r"pip install 'codestage\[s3\]'"):
        open_store(tmp_path / "a", "s3://a/b")
    assert not (tmp_path / "a").exists()


def test_a_thousand_steps_cost_one_listing(place, tmp_path, monkeypatch):
    sent(tmp_path, place, step())
    asked = []
    for name in ("ls", "cat_file", "info", "exists"):
        real = getattr(fsspec.get_filesystem_class("file"), name)
        monkeypatch.setattr(
            fsspec.get_filesystem_class("file"),
            name,
            lambda self, *a, real=real, name=name, **k: (asked.append(name), real(self, *a, **k))[1],
        )
    store = open_store(tmp_path / "b", place)
    asked.clear()
    assert [store.has(step(f"{i}")) for i in range(1000)] + [store.has(step())] == [False] * 1000 + [
        True
    ]
    assert asked.count("ls") == asked.count("cat_file") == 1
    assert not set(asked) - {"ls", "cat_file", "info"}


def die_sending(root, url, one):
    """Send a step, and be killed after the first of its files."""
    store = open_store(Path(root), url)
    cls = fsspec.get_filesystem_class("file")
    real = cls.put_file
    cls.put_file = lambda self, *a, **k: (real(self, *a, **k), os.kill(os.getpid(), signal.SIGKILL))
    store.send(one, store.remote)


def test_killed_while_sending_nothing_is_seen_and_the_next_run_sends_it(place, tmp_path):
    store = open_store(tmp_path / "a", place)
    one = finish(store, step())
    victim = multiprocessing.get_context("fork").Process(
        target=die_sending, args=(str(tmp_path / "a"), place, one)
    )
    victim.start()
    victim.join(30)
    assert victim.exitcode == -signal.SIGKILL
    left = [Path(p).name for p in Remote(place).sizes()]
    assert sorted(left) == ["a.bin", "codestage.json"]  # half of it lies there
    assert not open_store(tmp_path / "b", place).has(one)
    unsent = store.begin("study", [one, step("not finished")])
    assert unsent == [one]
    send(store, *unsent)
    assert store.begin("study", [one]) == []
    other = open_store(tmp_path / "b")
    more = step("more")
    assert not other.has(more)
    send(store, finish(store, more))
    assert not other.has(more)  # by what was listed before
    assert other.begin("another", [more]) == []
    assert other.has(more)
    assert other.read("items", one.hash).joinpath("a.bin").read_text() == "some"


def race(root, url, start):
    store = open_store(Path(root), url)
    start.wait()
    for i in range(10):
        one = finish(store, step(f"{i}"), text=f"of {Path(root).name}" * 1000)
        store.remote.put(
            store.path("items", one.hash), store.record(one)
        )  # as if none had looked before


def test_two_that_finish_the_same_steps_at_once_leave_one_of_the_two_whole(place, tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    racers = [context.Process(target=race, args=(str(tmp_path / name), place, start)) for name in "xyz"]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0, 0]
    store = open_store(tmp_path / "b", place)
    for i in range(10):
        folder = store.read("items", step(f"{i}").hash)
        assert (folder / "a.bin").read_text() == (folder / "deep" / "b.bin").read_text()


def test_who_reads_while_another_attempt_takes_its_place_gets_one_of_the_two(place, tmp_path):
    first = sent(tmp_path, place, step())
    old = first.remote.record("items", step().hash)
    second = open_store(tmp_path / "x", place)
    finish(second, step(), "other")
    second.remote.put(second.path("items", step().hash), second.record(step()))
    reader = open_store(tmp_path / "b", place)
    real, given = reader.remote.record, [old]
    reader.remote.record = lambda *a: given.pop() if given else real(*a)
    first.remote.remove([f"items/{step().hash}/{old['attempt']}/a.bin"])  # and the old one goes
    folder = reader.read("items", step().hash)
    assert [(folder / n).read_text() for n in ("a.bin", "deep/b.bin")] == ["other", "other"]


@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_what_is_damaged_there_is_named_and_mended_as_the_message_says(url, how, tmp_path):
    first = sent(tmp_path, url, step())
    fs, root = fsspec.core.url_to_fs(url)
    damaged = next(p for p in fs.find(root) if p.endswith("b.bin"))
    fs.pipe_file(damaged, b"sone") if how == "flipped" else fs.rm_file(damaged)
    fs.invalidate_cache()
    other = open_store(tmp_path / "b", url)
    with pytest.raises(RunError, match="damaged") as told:
        other.read("items", step().hash)
    record = f"{url}/items/{step().hash}.json"
    assert "deep/b.bin" in str(told.value)
    assert f"remove {record} and run again" in str(told.value)
    assert not (tmp_path / "b" / "store").exists()
    fs.rm_file(fs._strip_protocol(record))
    assert not open_store(tmp_path / "c", url).has(step())
    send(first, *first.begin("study", [step()]))  # the folder that still has it
    assert other.read("items", step().hash).joinpath("deep/b.bin").read_text() == "some"


def test_records_that_lead_out_of_the_store_are_refused(place, tmp_path):
    first = sent(tmp_path, place, step())
    path = Path(place) / "items" / f"{step().hash}.json"
    record = json.loads(path.read_text())
    for change in (
        {"checksums": {"../../../../escaped": "0" * 32}},
        {"checksums": {"/tmp/escaped": "0" * 32}},
        {"attempt": "../x"},
        {"hash": "0" * 32},
        {"checksums": [1]},
    ):
        path.write_text(json.dumps(record | change))
        with pytest.raises(RunError, match="not readable; remove it"):
            open_store(tmp_path / "b", place).read("items", step().hash)
    assert list(first.remote.records("items")) == []


class Flaky:
    """A store that refuses its next so many requests of some kinds."""

    def __init__(self, monkeypatch, *names, times, error):
        cls = fsspec.get_filesystem_class("file")
        self.times = times
        for name in names:
            monkeypatch.setattr(cls, name, self.refusing(getattr(cls, name), error))

    def refusing(self, real, error):
        def call(fs, *args, **kwargs):
            if self.times > 0:
                self.times -= 1
                raise error
            return real(fs, *args, **kwargs)

        return call


@pytest.mark.parametrize("error", [TimeoutError("timed out"), OSError("503"), ValueError("odd")])
def test_a_store_that_refuses_for_a_while_is_asked_again_with_warnings(
    place, tmp_path, monkeypatch, error
):
    warnings = []
    sent(tmp_path, place, step())
    store = open_store(tmp_path / "b", place, patient(warnings.append))
    third = open_store(tmp_path / "c", place, patient(warnings.append))
    flaky = Flaky(monkeypatch, "ls", "cat_file", "get_file", times=3, error=error)
    assert store.read("items", step().hash)
    assert len(warnings) == 3
    assert str(error) in warnings[0]
    assert "tried again in" in warnings[0]
    flaky.times = 10**9
    monkeypatch.setattr(remotes, "PATIENCE", 0.05)
    with pytest.raises(Refused, match="the same command goes on from there"):
        third.has(step())


def test_sending_waits_out_a_refusal_and_in_the_end_says_so(place, tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "PATIENCE", 0.1)
    store, warnings = open_store(tmp_path / "a", place), []
    flaky = Flaky(monkeypatch, "put_file", times=10**9, error=OSError("no route"))
    sender = Sender(store, warnings.append)
    sender.put(finish(store, step()))
    time.sleep(0.3)  # beyond its patience, but other work goes on meanwhile
    flaky.times = 0
    sender.finish(lambda: None)
    assert store.remote.record("items", step().hash)
    assert "no route; tried again" in warnings[0]
    flaky.times = 10**9
    one = finish(store, step("two"))
    with pytest.raises(RunError, match=r"no route; what is finished is kept"):
        send(store, one)
    assert store.has(one)
    assert store.remote.record("items", one.hash) is None
    flaky.times = 0
    send(store, *store.begin("study", [one]))
    assert store.remote.record("items", one.hash)


def test_only_inputs_of_what_is_not_finished_are_brought(place, tmp_path):
    data, other = step("rows", "prepare"), step("words", "tokenizer")
    trained = step("text", "train", data=data.hash)
    sent(tmp_path, place, data, other, trained)
    store = open_store(tmp_path / "b", place)
    tuned = step("tuned", "train", parent=trained.hash)
    assert store.begin("b", [trained, tuned]) == []
    store.bring([data, other, trained])
    assert not (tmp_path / "b" / "store").exists()
    store.bring([data, other, trained, tuned])
    assert [p.name for p in (tmp_path / "b" / "store").glob("*/*")] == [trained.hash]


def test_a_download_that_was_cut_off_goes_on(place, tmp_path, monkeypatch):
    sent(tmp_path, place, step())
    store = open_store(tmp_path / "b", place)
    real = store.remote.get
    store.remote.get = lambda record, name, to: real(record, name, to) if name == "a.bin" else 1 / 0
    with pytest.raises(ZeroDivisionError):
        store.read("items", step().hash)
    assert not (tmp_path / "b" / "store").exists()
    store.remote.get = lambda record, name, to: real(record, name, to) if name != "a.bin" else 1 / 0
    assert store.read("items", step().hash).joinpath("a.bin").read_text() == "some"


def gone(store, **how):
    answer = collect_remote(store.root, [], **how)
    return {s["label"] for s in answer["steps"]}, answer


def test_nothing_goes_there_that_a_study_wanted_when_it_last_ran(url, tmp_path):
    one, two, three = step("one"), step("two"), step("three")
    store = sent(tmp_path, url, one, two, three)
    store.begin("mine", [one])
    store.end()
    other = open_store(tmp_path / "b", url)
    other.begin("theirs", [two])
    other.end()
    lost, answer = gone(store)
    assert lost == {"items three"}
    assert answer["kept"]["steps"] == 2
    assert sum("which ran on" in note for note in answer["notes"]) == 2
    assert other.remote.record("items", three.hash)  # only shown
    assert gone(store, delete=True)[0] == lost
    assert not any(three.hash in path for path in store.remote.sizes())
    assert gone(store)[0] == set()
    # a study's next run protects what it wanted before until it knows what it wants now
    again = open_store(tmp_path / "b")
    again.begin("theirs", [one])
    assert gone(store)[0] == set()
    again.end()
    assert gone(store)[0] == {"items two"}
    study = next(note for note in gone(store)[1]["notes"] if "theirs" in note)
    fs, _ = fsspec.core.url_to_fs(url)
    fs.rm_file(fs._strip_protocol(study.split("remove ")[1].split(" to give")[0]))
    assert gone(store)[0] == {"items two"}  # the first wants `one` as well


def test_what_was_sent_in_part_goes_after_a_day_and_not_before(place, tmp_path, monkeypatch):
    store = sent(tmp_path, place, step())
    store.begin("mine", [step()])
    left = Path(place) / "items" / step().hash / "20200101T000000Z-00000000"
    young = left.with_name(time.strftime("%Y%m%dT%H%M%SZ-00000000", time.gmtime()))
    for folder in (left, young):
        folder.mkdir()
        (folder / "a.bin").write_text("so")
    lost, answer = gone(store, delete=True)
    assert (lost, [w["name"] for w in answer["work"]]) == (set(), [f"items/{step().hash}/{left.name}"])
    assert not (left / "a.bin").exists()
    assert (young / "a.bin").exists()
    assert open_store(tmp_path / "b", place).read("items", step().hash)


def test_what_cannot_be_told_to_be_needed_stops_the_deletion(place, tmp_path):
    store = sent(tmp_path, place, step())
    store.begin("mine", [step()])
    study = next((Path(place) / "studies").iterdir())
    held = study.read_text()
    study.write_text("{")
    with pytest.raises(RunError, match="what that study wants cannot be told"):
        gone(store, delete=True)
    study.write_text(held)
    (Path(place) / "items" / f"{step().hash}.json").write_text("{")
    with pytest.raises(RunError, match="what it stands on cannot be told"):
        gone(store, delete=True)
    with pytest.raises(UserError, match="has no remote store"):
        collect_remote(tmp_path / "nowhere", [])
