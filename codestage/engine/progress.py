"""Where a study stands: counted by the running process, kept in a file that anyone may read."""

import fcntl
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codestage.engine.store import Step, write_atomically
from codestage.errors import UserError

KINDS = ("items", "documents", "tokenizer", "prepare", "train", "evaluate")
EVALUATION_TOKENS = 60_000
"""What evaluating a checkpoint counts for beside tokens trained, before one has been timed."""


@dataclass
class Progress:
    """Counts of steps and tokens, and what is running; written to `work/status.json`."""

    folder: Path
    study: str
    steps: dict[str, Step] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    running: dict[str, dict[str, Any]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    pace_from: float = 0.0
    cost_at_start: float = 0.0
    seconds_before: float = 0.0
    """Seconds that earlier calls of `codestage run` worked on this study."""
    warnings: list[str] = field(default_factory=list)
    written: float = 0.0

    def __post_init__(self) -> None:
        with suppress(OSError, ValueError, TypeError):
            before = json.loads((self.folder / "work" / "status.json").read_text())
            self.seconds_before = float(before.get("seconds", 0.0))

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of this and all earlier calls."""
        return self.seconds_before + time.monotonic() - self.began

    def expect(self, steps: Iterable[Step], finished: set[str]) -> None:
        """Add steps to what there is to do; `finished` are in the store already."""
        for step in steps:
            if step.hash not in self.steps:
                self.steps[step.hash] = step
                if step.hash in finished:
                    self.done.add(step.hash)
        self.pace_from = time.monotonic()
        self.cost_at_start = sum(self.steps[h].cost for h in self.done)

    def hear(self, event: str, step: Step, body: dict[str, Any]) -> None:
        """Take in one event of the engine."""
        if event == "started":
            self.running[step.hash] = {"since": time.monotonic()}
        elif event == "progress":
            if warning := body.get("warning"):
                self.warnings.append(str(warning))
            self.running.setdefault(step.hash, {}).update(body)
        elif event == "retried":
            self.running.pop(step.hash, None)
            self.warnings.append(f"{step.label}: worker died (exit {body['exit']}), tried again")
        elif event == "done":
            self.running.pop(step.hash, None)
            self.done.add(step.hash)

    def snapshot(self, state: str) -> dict[str, Any]:
        """The answer of `codestage status --json`."""
        total = sum(s.cost for s in self.steps.values())
        finished = sum(self.steps[h].cost for h in self.done)
        under_way = sum(self._partial(h) for h in self.running)
        elapsed = time.monotonic() - self.pace_from
        worked = finished + under_way - self.cost_at_start
        left = (total - finished - under_way) * elapsed / worked if worked > total / 100 else None
        tokens = [s for s in self.steps.values() if s.kind == "train"]
        rates = [r.get("tokens_per_second", 0) for r in self.running.values()]
        return {
            "study": self.study,
            "state": state,
            "steps": {
                "done": len(self.done),
                "running": len(self.running),
                "waiting": len(self.steps) - len(self.done) - len(self.running),
            },
            "tokens_done": round(sum(self._tokens(s) for s in tokens)),
            "tokens_total": round(sum(s.cost for s in tokens)),
            "tokens_per_second": round(sum(rates)),
            "seconds": round(self.seconds, 1),
            "seconds_left": None if left is None or state != "running" else round(left),
            "running": [self._shown(h) for h in self.running],
            "warnings": self.warnings[-20:],
        }

    def _tokens(self, step: Step) -> float:
        return step.cost if step.hash in self.done else self._partial(step.hash)

    def _partial(self, hash_: str) -> float:
        """Tokens done of a step that is running."""
        step, now = self.steps[hash_], self.running.get(hash_, {})
        if step.kind != "train" or "tokens" not in now:
            return 0.0
        first = now.setdefault("first_tokens", now["tokens"])
        return float(min(step.cost, max(0, now["tokens"] - first)))

    def _shown(self, hash_: str) -> dict[str, Any]:
        now = self.running[hash_]
        shown: dict[str, Any] = {k: now[k] for k in ("tokens", "loss", "tokens_per_second") if k in now}
        return {"kind": self.steps[hash_].kind, "step": self.steps[hash_].label} | dict(shown)

    def write(self, state: str, *, force: bool = False) -> None:
        """Write the status file, at most once a second unless forced."""
        if force or time.monotonic() - self.written > 1.0:
            self.written = time.monotonic()
            text = json.dumps(self.snapshot(state), indent=1)
            write_atomically(self.folder / "work" / "status.json", text)


def status(folder: Path) -> dict[str, Any]:
    """How far the study in `folder` is.

    Raises:
        UserError: if no study was ever run there.
    """
    path = folder / "work" / "status.json"
    try:
        answer: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        raise UserError(
            f"{folder}: no study was run here; start one with `codestage run STUDY`"
        ) from None
    if answer["state"] == "running" and not _locked(folder):
        answer |= {"state": "stopped", "running": [], "seconds_left": None, "tokens_per_second": 0}
    return answer


def _locked(folder: Path) -> bool:
    with (folder / "work" / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the results folder: one run at a time. The kernel lets go when the process ends.

    Raises:
        UserError: if another `codestage run` holds it.
    """
    (folder / "work").mkdir(parents=True, exist_ok=True)
    with (folder / "work" / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"{folder}: another `codestage run` works here; wait for it, or name another --out"
            ) from None
        yield
