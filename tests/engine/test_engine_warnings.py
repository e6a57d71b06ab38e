"""What goes wrong under way is said in the status file, on the screen, and once."""

import io
import json

import pytest
from rich.console import Console

from codestage.engine.display import Display
from codestage.engine.progress import Progress
from codestage.engine.store import Step, Store
from codestage.engine.versions import Versions

STEP = Step("train", "text/text#0 pretrain", {"seed": 0}, {}, cost=10.0)


def test_a_retried_step_and_a_warning_say_why(tmp_path):
    progress = Progress(tmp_path, "tiny")
    progress.expect([STEP], set())
    progress.hear("started", STEP, {})
    progress.hear("retried", STEP, {"why": "10.0.0.2 was lost", "in": 9.2})
    progress.hear("retried", STEP, {"why": "its worker died (exit -9)"})
    progress.hear("warning", STEP, {"text": "waiting for room"})
    told = progress.snapshot("running")
    assert told["running"] == []
    assert told["warnings"] == [
        "text/text#0 pretrain: 10.0.0.2 was lost; tried again in 9 s",
        "text/text#0 pretrain: its worker died (exit -9); tried again",
        "waiting for room",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_each_warning_is_shown_once(tmp_path, terminal):
    progress = Progress(tmp_path, "tiny")
    shown = Display()
    shown.console = Console(file=io.StringIO(), force_terminal=terminal, width=60)
    progress.warnings.append("[disk] is full " + 60 * "x")
    for _ in range(2):
        shown.event(progress.snapshot("running"))
    assert shown.console.file.getvalue().count("warning: [disk] is full " + 60 * "x") == 1


def finished(store, seed, **versions):
    step = Step("train", f"run {seed}", {"seed": seed})
    folder = store.path("train", step.hash)
    folder.mkdir(parents=True)
    (folder / "step.json").write_text(json.dumps({"libraries": versions}))
    return step


def test_steps_made_with_other_versions_are_told_once(tmp_path, monkeypatch):
    here = {"torch": "2.13.0", "transformers": "5.0", "numpy": "2.4", "pyarrow": "26"}
    monkeypatch.setattr("codestage.engine.versions.libraries", lambda: here)
    monkeypatch.setattr("codestage.engine.versions.LOOKED_AT", 4)
    store, versions = Store(tmp_path), Versions()
    same = [finished(store, seed, **here | {"pyarrow": "1"}) for seed in range(8)]
    assert versions.warning(same, store) is None
    other = [finished(store, seed, **here | {"torch": "2.12.0"}) for seed in range(8, 16)]
    damaged = finished(store, 99)
    (store.path("train", damaged.hash) / "step.json").write_text("[")
    text = versions.warning([*same, *other, damaged], store)
    assert text is not None
    assert text.startswith(
        "of 4 finished steps looked at, some were made with torch 2.12.0 (2); here is torch 2.13.0"
    )
    assert versions.warning(other, store) is None
