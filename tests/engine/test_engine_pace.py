"""The order of steps, the counts of a running study, and the time left with its range."""

import json

import numpy as np
import pytest
from conftest import TINY

from codestage.engine import run as running
from codestage.engine.display import left_text
from codestage.engine.pace import COVERED, Timed, time_left
from codestage.engine.progress import Progress, status
from codestage.engine.ready import Ready
from codestage.engine.store import Step
from codestage.errors import RunError


def step(name, *, cost=1.0, inputs=(), kind="train"):
    return Step(kind, name, {"name": name}, {f"in{i}": s.hash for i, s in enumerate(inputs)}, cost=cost)


def graph(seed, n=60):
    rng = np.random.default_rng(seed)
    steps = []
    for i in range(n):
        before = [steps[j] for j in rng.choice(i, min(i, int(rng.integers(0, 3))), replace=False)]
        steps.append(step(f"s{i}", cost=float(rng.integers(1, 9)), inputs=before))
    return steps


def behind(one, steps):
    """Work on the longest chain from `one` on, found by walking all of them."""
    users = [s for s in steps if one.hash in s.inputs.values()]
    return one.cost + max((behind(u, steps) for u in users), default=0.0)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_ready_with_most_work_behind_it_comes_first(seed):
    steps = graph(seed)
    ready, done, taken = Ready(steps), set(), []
    inside = {s.hash for s in steps}
    while (one := ready.take()) is not None:
        able = [s for s in steps if s not in taken and set(s.inputs.values()) & inside <= done]
        assert one in able
        assert behind(one, steps) == max(behind(s, steps) for s in able)
        taken.append(one)
        done.add(one.hash)
        ready.done(one)
    assert len(taken) == len(steps)


def test_inputs_that_are_there_already_are_not_waited_for():
    first = step("first")
    assert Ready([step("second", inputs=[first])]).take().label == "second"


@pytest.mark.parametrize(("n", "m", "spread"), [(3, 30, 0.2), (10, 3, 0.2), (20, 200, 0.3)])
def test_the_range_of_the_time_left_holds_it_nine_times_in_ten(n, m, spread):
    rng = np.random.default_rng(n)
    inside = 0
    for _ in range(1000):
        cost = rng.uniform(1, 3, n + m)
        seconds = cost * rng.lognormal(0, spread, n + m)
        timed = Timed(left=cost[n:].sum(), steps_left=m)
        for c, s in zip(cost[:n], seconds[:n], strict=True):
            timed.add(c, s)
        left = time_left({"train": timed}, at_once=1)
        inside += left.low <= seconds[n:].sum() <= left.high
    assert abs(inside / 1000 - COVERED) < 0.035


def test_the_variance_is_that_of_the_finished_steps_themselves():
    cost, seconds = np.array([1.0, 2.0, 4.0]), np.array([3.0, 5.0, 13.0])
    timed = Timed(left=10.0, steps_left=5)
    for c, s in zip(cost, seconds, strict=True):
        timed.add(c, s)
    rate = seconds.sum() / cost.sum()
    off = seconds / (rate * cost) - 1
    assert timed.relative_variance == pytest.approx((off**2).sum() / 2 * (1 / 3 + 1 / 5))
    assert time_left({"x": timed}, at_once=2).seconds == pytest.approx(10 * rate / 2)


def test_no_range_is_told_before_every_kind_that_is_left_was_finished_twice():
    train, judge = Timed(left=5.0, steps_left=2), Timed(left=1.0, steps_left=1)
    assert time_left({"train": train, "evaluate": judge}, at_once=1) is None
    train.add(1.0, 2.0)
    train.add(1.0, 3.0)
    told = time_left({"train": train, "evaluate": judge}, at_once=1)
    assert (told.seconds, told.low, told.high) == (pytest.approx(6 * 2.5), None, None)
    judge.steps_left, judge.left = 0, 0.0
    assert time_left({"train": train, "evaluate": judge}, at_once=1).low is not None


def test_more_workers_than_steps_do_not_make_them_end_sooner():
    timed = Timed(left=4.0, steps_left=1)
    timed.add(1.0, 1.0)
    assert time_left({"x": timed}, at_once=8).seconds == 4.0


def test_kept_totals_are_those_of_counting_again(tmp_path):
    steps = [*graph(1, 40), *(step(f"e{i}", kind="evaluate", cost=6.0) for i in range(9))]
    progress = Progress(tmp_path, "some")
    finished = {s.hash for s in steps[:7]}
    progress.expect(steps, finished)
    progress.expect(steps, finished)  # again: nothing is counted twice
    progress.hear("started", steps[10], {})
    progress.hear("progress", steps[10], {"tokens": 1000, "loss": 1.0, "tokens_per_second": 7})
    progress.hear("progress", steps[10], {"tokens": 1000.5, "loss": 1.0, "tokens_per_second": 7})
    for one in (steps[11], steps[11], steps[12], steps[45]):
        progress.hear("started", one, {})
        progress.hear("done", one, {"seconds": 2.0})
    told = progress.snapshot("running")
    train = [s for s in steps if s.kind == "train"]
    done = [*steps[:7], steps[11], steps[12]]
    assert told["steps"] == {"done": 10, "running": 1, "waiting": len(steps) - 11}
    assert told["tokens_total"] == sum(s.cost for s in train)
    assert told["tokens_done"] == round(sum(s.cost for s in done) + 0.5)
    assert told["tokens_per_second"] == 7
    low, high = told["seconds_left_range"] or (None, None)
    assert low is None  # one evaluation alone is finished
    progress.hear("done", steps[46], {"seconds": 4.0})
    low, high = progress.snapshot("running")["seconds_left_range"]
    assert low < progress.snapshot("running")["seconds_left"] < high
    assert progress.snapshot("done")["seconds_left"] is None
    json.dumps(told, allow_nan=False)


def test_the_time_left_is_told_with_its_range():
    assert (
        left_text({"seconds_left": 600, "seconds_left_range": [480, 900]})
        == "about 10 min (8 min to 15 min)"
    )
    assert left_text({"seconds_left": 20, "seconds_left_range": None}) == "about 20 s"
    assert left_text({"seconds_left": 4e5, "seconds_left_range": [4e5, 4e5]}) == "about 4.6 days"


def test_what_was_compiled_or_prepared_says_nothing_of_how_long_training_takes(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("codestage.engine.progress.time.monotonic", lambda: now)
    progress = Progress(tmp_path, "some")
    documents, train = step("prose", kind="documents"), step("text#0", cost=1e6)
    progress.expect([documents], set())
    progress.hear("started", documents, {})
    progress.hear("done", documents, {"seconds": 5.0})
    progress.expect([train], set())
    progress.hear("started", train, {})
    assert progress.snapshot("running")["seconds_left"] is None
    now = 60.0  # compiled, and one batch
    progress.hear("progress", train, {"tokens": 1000})
    now = 70.0
    progress.hear("progress", train, {"tokens": 101_000})
    assert progress.snapshot("running")["seconds_left"] == pytest.approx(90, rel=0.02)


def test_what_a_checkpoint_held_is_not_counted_as_work_done_now(tmp_path):
    one, other = step("one", cost=1000.0), step("other", cost=1000.0)
    progress = Progress(tmp_path, "some")
    progress.expect([one, other], set())
    progress.hear("started", one, {})
    progress.hear("progress", one, {"tokens": 910, "begun": 900})
    assert progress.snapshot("running")["tokens_done"] == 900
    progress.hear("done", one, {"seconds": 10.0})  # for a hundred tokens
    assert progress.snapshot("running")["seconds_left"] == pytest.approx(100, rel=0.01)


def test_the_time_left_is_not_told_before_all_steps_are_known(tmp_path):
    steps = [step(name, kind="documents") for name in ("one", "other")]
    progress = Progress(tmp_path, "some", more=True)
    progress.expect(steps, set())
    progress.hear("done", steps[0], {"seconds": 2.0})
    assert progress.snapshot("running")["seconds_left"] is None
    progress.more = False
    assert progress.snapshot("running")["seconds_left"] == 2


def test_status_names_a_step_as_soon_as_it_has_begun(tmp_path, monkeypatch):
    """Though the status was written a moment before, and the step says nothing for long (it compiles)."""
    told = []

    def engine(steps, *, listener, **_):
        listener("started", steps[0], {})
        told.extend(status(tmp_path / "tiny")["running"])
        raise RunError("enough")

    monkeypatch.setattr(running, "run_steps", engine)
    monkeypatch.setattr(running, "load_ahead", lambda: None)
    (tmp_path / "tiny.yaml").write_text(TINY)
    with pytest.raises(RunError, match="enough"):
        running.run(tmp_path / "tiny.yaml", tmp_path / "tiny", workers=1, on_event=lambda snapshot: None)
    assert len(told) == 1
