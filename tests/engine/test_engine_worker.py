"""A worker ends with the process that asked for it."""

import subprocess
import sys
import time

import psutil
import pytest

from codestage.engine import local
from codestage.engine.data_steps import data_steps
from codestage.engine.ready import Ready
from codestage.engine.store import Step, Store
from codestage.engine.work import Workshop
from codestage.train.loop import Interrupted

ASKS = """
import multiprocessing, sys, time
from codestage.engine.worker import Flag, work_loop

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    ours, theirs = context.Pipe()
    stop = Flag(context)
    process = context.Process(target=work_loop, args=(theirs, sys.argv[2], stop, None))
    process.start()
    theirs.close()
    print(process.pid, flush=True)
    time.sleep(120)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_worker_is_killed_when_its_parent_is(tmp_path, method):
    script = tmp_path / "asks.py"
    script.write_text(ASKS)
    command = [sys.executable, str(script), method, str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        worker = psutil.Process(int(parent.stdout.readline()))
        while worker.num_threads() < 2:  # it watches
            assert worker.status() != psutil.STATUS_ZOMBIE
            time.sleep(0.01)
        parent.kill()
    gone, alive = psutil.wait_procs([worker], timeout=20)
    assert gone
    assert not alive


STORM = """
import multiprocessing, signal, time
from codestage.engine.worker import Flag

flag, heard = Flag(multiprocessing.get_context("spawn")), []
def ask(number, frame):
    heard.append(flag.is_set())
    flag.set()
signal.signal(signal.SIGALRM, ask)
signal.setitimer(signal.ITIMER_REAL, 1e-5, 1e-5)
ends = time.monotonic() + 1.5
while time.monotonic() < ends:
    flag.is_set()
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)  # one that another thread has still to take
assert len(heard) > 100 and heard[-1]
"""


def test_a_signal_may_come_while_the_flag_is_looked_at():
    """With an Event, whose lock the interrupted thread holds, this never ends."""
    assert subprocess.run([sys.executable, "-c", STORM], check=False, timeout=60).returncode == 0


def test_a_worker_that_died_while_it_waited_is_replaced(tmp_path, tiny, tiny_study):
    pool, heard = local._Pool(Store(tmp_path / "out"), 1, "spawn"), []
    pool.workers[0].process.kill()
    pool.workers[0].process.join()
    step = data_steps(tiny_study, tiny).items
    try:
        pool.run(Ready([step]), lambda event, *_: heard.append(event))
    finally:
        pool.close()
    assert "retried" in heard
    assert heard[-1] == "done"


def test_an_evaluation_that_is_asked_to_stop_begins_no_other_part(tmp_path, monkeypatch):
    made, asked = [], []
    monkeypatch.setattr(
        "codestage.evaluate.records.kept",
        lambda folder, name, make: made.append(name) or asked.append(1),
    )
    monkeypatch.setattr("codestage.evaluate.backend.Backend.load", lambda *a, **k: None)
    monkeypatch.setattr(
        "codestage.evaluate.run.Evaluation.parts", lambda *a: iter([("one", None), ("two", None)])
    )
    monkeypatch.setattr("codestage.engine.work.load_tokenizer", lambda folder: None)
    monkeypatch.setattr("codestage.engine.data_work.frozen_items", lambda *a: {})
    monkeypatch.setattr(Store, "read", lambda self, kind, hash_: tmp_path)
    shop = Workshop(Store(tmp_path), lambda: bool(asked), lambda body: None, compiled=False)
    config = {"tasks": {}, "cot": ["off"]}
    inputs = dict.fromkeys(("tokenizer", "checkpoint", "items"), "x")
    step = Step("evaluate", "some", config, inputs, payload=("unconfined", ()))
    with pytest.raises(Interrupted):
        shop.do(step)
    assert made == ["one"]
