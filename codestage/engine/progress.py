"""Where a study stands: counted by the running process, kept in a file that anyone may read."""

import errno
import fcntl
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from codestage.engine.pace import Left, Timed, time_left
from codestage.engine.store import Step, write_atomically
from codestage.errors import UserError

KINDS = ("items", "documents", "tokenizer", "prepare", "train", "evaluate")
EVALUATION_TOKENS = 60_000
"""What evaluating a checkpoint counts for beside tokens trained, before one has been timed."""


@dataclass
class Progress:
    """Counts of steps and tokens, and what is running; written to `work/status.json`.

    Totals are kept, not counted again, so that an event costs as much in a study of ten thousand arms as in a
    small one.
    """

    folder: Path
    study: str
    done: set[str] = field(default_factory=set)
    running: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Step hash -> since when, and what it told last."""
    began: float = field(default_factory=time.monotonic)
    pace_from: float = 0.0
    seconds_before: float = 0.0
    """Seconds that earlier calls of `codestage run` worked on this study."""
    warnings: list[str] = field(default_factory=list)
    more: bool = False
    """Whether steps will be added that are not known yet: then the time left is not known either."""
    written: float = 0.0
    _steps: dict[str, Step] = field(default_factory=dict)
    _kinds: dict[str, Timed] = field(default_factory=dict)
    _tokens_total: float = 0.0
    _tokens_done: float = 0.0
    _worked: float = 0.0
    """Seconds of steps finished since `pace_from`, added up."""

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
            if step.hash in self._steps:
                continue
            self._steps[step.hash] = step
            if step.kind == "train":
                self._tokens_total += step.cost
            if step.hash in finished:
                self._finish(step)
            else:
                kind = self._kinds.setdefault(step.kind, Timed())
                kind.left += step.cost
                kind.steps_left += 1
        self.pace_from, self._worked = time.monotonic(), 0.0

    def _finish(self, step: Step) -> None:
        self.done.add(step.hash)
        if step.kind == "train":
            self._tokens_done += step.cost

    def hear(self, event: str, step: Step, body: dict[str, Any]) -> None:
        """Take in one event of the engine."""
        if event == "started":
            self.running[step.hash] = {"since": time.monotonic()}
        elif event == "progress":
            if warning := body.get("warning"):
                self.warnings.append(str(warning))
            now = self.running.setdefault(step.hash, {"since": time.monotonic()})
            now.update(body)
            if "tokens" in now:
                now.setdefault("first_tokens", now["tokens"])
                now.setdefault("first_told", time.monotonic())  # compiling is over
        elif event == "retried":
            self.running.pop(step.hash, None)
            pause = body.get("in", 0.0)
            soon = f" in {pause:.0f} s" if pause >= 1 else ""
            self.warnings.append(f"{step.label}: {body['why']}; tried again{soon}")
        elif event == "warning":
            self.warnings.append(str(body["text"]))
        elif event == "done":
            told = self.running.pop(step.hash, {})
            if step.hash not in self.done:
                self._finish(step)
                self._time(step, float(body["seconds"]), float(told.get("begun", 0)))

    def _time(self, step: Step, seconds: float, begun: float) -> None:
        """Take a finished step out of what is left, and learn from how long it took, but for what was `begun` before."""
        kind = self._kinds[step.kind]
        kind.left -= step.cost
        kind.steps_left -= 1
        if begun < step.cost:
            kind.add(step.cost - begun, seconds)
        self._worked += seconds

    def snapshot(self, state: str) -> dict[str, Any]:
        """The answer of `codestage status --json`."""
        under_way = sum(self._partial(h) for h in self.running)
        left = self._left() if state == "running" and not self.more else None
        rates = [r.get("tokens_per_second", 0) for r in self.running.values()]
        return {
            "study": self.study,
            "state": state,
            "steps": {
                "done": len(self.done),
                "running": len(self.running),
                "waiting": len(self._steps) - len(self.done) - len(self.running),
            },
            "tokens_done": round(self._tokens_done + under_way),
            "tokens_total": round(self._tokens_total),
            "tokens_per_second": round(sum(rates)),
            "seconds": round(self.seconds, 1),
            "seconds_left": None if left is None else round(left.seconds),
            "seconds_left_range": None if left is None else left.range,
            "running": [self._shown(h) for h in self.running],
            "warnings": self.warnings[-20:],
        }

    def _left(self) -> Left | None:
        """The time left by what is finished, and by how far the steps that run have come."""
        now = time.monotonic()
        kinds = {name: replace(timed) for name, timed in self._kinds.items()}
        for hash_, told in self.running.items():
            step, partial = self._steps[hash_], self._partial(hash_)
            kind = kinds[step.kind]
            kind.left -= partial
            here = partial - told.get("begun", 0)
            if not kind.finished and here > 0:  # the first of its kind: better than nothing
                kind.cost += here
                kind.seconds += now - told["first_told"]
        under_way = sum(now - told["since"] for told in self.running.values())
        elapsed = max(1e-9, now - self.pace_from)
        return time_left(kinds, at_once=(self._worked + under_way) / elapsed)

    def _partial(self, hash_: str) -> float:
        """Tokens done of a step that is running."""
        step, now = self._steps[hash_], self.running[hash_]
        if step.kind != "train" or "tokens" not in now:
            return 0.0
        return float(min(step.cost, now.get("begun", 0) + max(0, now["tokens"] - now["first_tokens"])))

    def _shown(self, hash_: str) -> dict[str, Any]:
        now = self.running[hash_]
        shown: dict[str, Any] = {k: now[k] for k in ("tokens", "loss", "tokens_per_second") if k in now}
        return {"kind": self._steps[hash_].kind, "step": self._steps[hash_].label} | dict(shown)

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
        answer = {}
    if not isinstance(answer, dict) or "state" not in answer:
        raise UserError(f"{folder}: no study was run here; start one with `codestage run STUDY`")
    if answer["state"] == "running" and not _locked(folder):
        answer |= {"state": "stopped", "running": [], "tokens_per_second": 0}
        answer |= {"seconds_left": None, "seconds_left_range": None}
    return answer


def _locked(folder: Path) -> bool:
    """Whether a run works there; where that cannot be asked, what its status says is believed.

    A shared lock, since that one needs no right to write, on NFS either.
    """
    try:
        with (folder / "work" / "lock").open() as file:
            return not _lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except (OSError, UserError):
        return True


def _lock(file: IO[str], kind: int = fcntl.LOCK_EX) -> bool:
    """Whether the lock could be taken; the kernel lets go when the file is closed, however that comes about.

    On network file systems this is the server's lock, which other machines see (NFS; Lustre mounted with flock).

    Raises:
        UserError: the file system gives no locks.
    """
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise UserError(
            f"{file.name}: this file system gives no locks ({error.strerror}), so two runs could not be kept apart; mount "
            "it with locks (Lustre: -o flock), or name another folder with --out"
        ) from None
    return True


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the results folder: one run at a time.

    Raises:
        UserError: if another `codestage run` holds it, or its file system gives no locks.
    """
    try:
        (folder / "work").mkdir(parents=True, exist_ok=True)
        file = (folder / "work" / "lock").open("a")
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); name another folder with --out"
        ) from None
    with file:
        if not _lock(file):
            raise UserError(
                f"{folder}: another `codestage run` works here; wait for it, or name another --out"
            )
        yield
