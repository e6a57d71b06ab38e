"""A notice when a run ends: on the desktop, or as JSON to an address."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from codestage.engine.progress import status
from codestage.errors import UserError

DESKTOP = "desktop"
SECONDS = 10.0
"""How long a notice may take."""


def check(to: str) -> None:
    """Whether a notice could go there, before anything is run.

    Raises:
        UserError: neither `desktop` nor an http(s) address, or a desktop without notify-send.
    """
    if to == DESKTOP:
        if shutil.which("notify-send") is None:
            raise UserError(
                "--notify desktop: there is no notify-send here (package libnotify-bin); install it, or give an address"
            )
        return
    try:
        parts = urlsplit(to)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        right = False
    if not right:
        raise UserError(
            f"--notify {to}: write desktop, or an address that begins with http:// or https://, without a user in it"
        )


def send(to: str, told: Mapping[str, Any]) -> str | None:
    """Send a notice; what went wrong if it could not be sent, for a warning: a run never fails for it."""
    try:
        if to == DESKTOP:
            text = f"{told['headline'] or told['state']}\n{told['seconds']:.0f} s"
            command = [
                "notify-send",
                "--app-name=codestage",
                "--",
                f"{told['study']}: {told['state']}",
                text,
            ]
            subprocess.run(command, check=True, timeout=SECONDS, capture_output=True)
            return None
        body = json.dumps(told).encode()
        kind = {"Content-Type": "application/json", "User-Agent": "codestage"}
        request = urllib.request.Request(to, data=body, headers=kind, method="POST")
        with _OPENER.open(request, timeout=SECONDS) as answer:
            answer.read(1)
    except (OSError, ValueError, HTTPException, subprocess.SubprocessError) as error:
        return f"the notice to {_shown(to)} was not sent: {error}"
    return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is told is told to the address that was given, and to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _shown(to: str) -> str:
    """An address without what may be secret in it: path and query."""
    parts = urlsplit(to)
    return to if to == DESKTOP else f"{parts.scheme}://{parts.hostname}"


@contextmanager
def noticed(to: str | None, folder: Path, complain: Callable[[str], None]) -> Iterator[None]:
    """Send a notice when what is done inside ends, in whatever way; `to` None: none.

    What was refused before it began sends none. `complain` hears why a notice could not be sent.

    Raises:
        UserError: no notice could go to `to`; known before anything is done.
    """
    if to is None or os.environ.get("RANK", "0") != "0":  # of torchrun's processes, the first one tells
        yield
        return
    check(to)
    began, said = time.time(), None
    try:
        yield
        said = _headline(folder)
    except BaseException as error:
        said = str(error).partition("\n")[0] or type(error).__name__
        raise
    finally:
        told = _told(folder, began, said)
        problem = send(to, told) if told else None
        if problem:
            complain(problem)


def _told(folder: Path, began: float, said: str | None) -> dict[str, Any] | None:
    """`{study, state, seconds, headline}`; state is done, stopped or failed. None if no run began."""
    path = folder / "work" / "status.json"
    try:
        if path.stat().st_mtime < began - 2:  # clocks of file servers
            return None
        told = status(folder)
    except (OSError, UserError):
        return None
    if told["state"] == "running":  # another run's, which is at work there
        return None
    return {key: told[key] for key in ("study", "state", "seconds")} | {"headline": said}


def _headline(folder: Path) -> str | None:
    """The report's first finding."""
    from codestage.report.answer import headline
    from codestage.report.records import read
    from codestage.report.view import main_view

    try:
        view = main_view(read(folder))
    except UserError:
        return None
    return headline(view) if view else None
