"""The commands. Each is thin: it calls one part and shows what comes back.

Exit status: 0 done, 1 failed under way, 2 bad input. Parts are imported inside the commands, so
that `codestage --help` answers at once.
"""

import io
import sys

from codestage import terminal

from codestage.cli import before, running, after  # noqa: F401  # isort: skip
from codestage.cli.app import app
from codestage.errors import RunError, UserError

__all__ = ["app", "main"]


def main() -> None:
    """Entry point: turns the two errors meant for people into one message and an exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # what the terminal's encoding lacks is shown as a number
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except UserError as error:
        terminal.say(f"error: {error}", error=True)
        sys.exit(2)
    except RunError as error:
        terminal.say(f"failed: {error}", error=True)
        sys.exit(1)
