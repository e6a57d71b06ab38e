"""The view of a running study: a live one on a terminal, plain lines when piped, JSON lines if asked."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

LINE_SECONDS = 15.0
"""Time between two plain lines."""


class Display:
    """Shows snapshots of `engine.progress`; a context manager."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = Console(file=sys.stderr if as_json else sys.stdout)
        self.live: Live | None = None
        self.last = 0.0
        self.last_shown: dict[str, Any] = {}
        self.warned: set[str] = set()
        if self.console.is_terminal and not as_json:
            self.live = Live(console=self.console, refresh_per_second=2, transient=True)

    def __enter__(self) -> "Display":
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self.live:
            self.live.stop()

    def event(self, snapshot: dict[str, Any]) -> None:
        """Show where the study stands."""
        changed = snapshot["state"] != self.last_shown.get("state")
        if self.live:
            self.live.update(_panel(snapshot))
        elif changed or time.monotonic() - self.last > LINE_SECONDS:
            self.last = time.monotonic()
            line = json.dumps(snapshot) if self.as_json else _line(snapshot)
            self.console.file.write(line + "\n")
            self.console.file.flush()
        if not self.as_json:
            self._warn(snapshot["warnings"])
        self.last_shown = snapshot

    def _warn(self, warnings: Sequence[str]) -> None:
        """Show each warning once, above the live view or as a line; JSON has them in every snapshot."""
        for text in warnings:
            if text not in self.warned:
                self.warned.add(text)
                self.console.print(Text(f"warning: {text}"), soft_wrap=True)


def _line(s: dict[str, Any]) -> str:
    """One plain line."""
    total = sum(s["steps"].values())
    parts = [
        f"{s['study']}: {s['state']}",
        f"{s['steps']['done']}/{total} steps",
        f"{s['tokens_done'] / 1e6:.2f}M of {s['tokens_total'] / 1e6:.2f}M tokens",
    ]
    if s["tokens_per_second"]:
        parts.append(f"{s['tokens_per_second']:,} tokens/s")
    if s["seconds_left"] is not None:
        parts.append(f"{left_text(s)} left")
    return ", ".join(parts)


def left_text(s: Mapping[str, Any]) -> str:
    """The time left as people read it, with the range that holds it nine times in ten where that is known."""
    about = f"about {_time(s['seconds_left'])}"
    if s.get("seconds_left_range") is None:
        return about
    low, high = map(_time, s["seconds_left_range"])
    return about if low == high else f"{about} ({low} to {high})"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _panel(s: dict[str, Any]) -> Group:
    """The live view: a bar for the whole, a row for each running step."""
    total = max(1, s["tokens_total"])
    table = Table.grid(padding=(0, 2))
    for step in s["running"]:
        speed = f"{step['tokens_per_second']:,} tok/s" if "tokens_per_second" in step else ""
        loss = f"loss {step['loss']:.3f}" if "loss" in step else ""
        table.add_row(Text(step["kind"]), Text(step["step"]), Text(loss), Text(speed))
    bar = ProgressBar(total=total, completed=s["tokens_done"], width=60)
    return Group(Text(_line(s)), bar, table)


class PartsBar:
    """A bar for one evaluation's parts on a terminal, plain lines when piped; a context manager."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn())
        self._bar = RichProgress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
        self._row: TaskID | None = None

    def __enter__(self) -> "PartsBar":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, name: str, done: int, total: int) -> None:
        """The part begun, how many are done, and of how many."""
        if not self._console.is_terminal:
            if name:
                self._console.print(f"{done + 1} of {total}: {name}", highlight=False, markup=False)
            return
        if self._row is None:
            self._row = self._bar.add_task(name, total=total)
        self._bar.update(self._row, description=name, completed=done, total=total)
