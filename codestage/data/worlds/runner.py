"""Run in a process of its own: programs as JSON on standard input, what they print as JSON back.

It imports nothing of codestage, so that it starts fast and in any environment.
"""

import contextlib
import io
import json
import sys


def outputs(programs: list[str]) -> list[str]:
    """What each program prints, and what it raises if it fails."""
    printed = []
    for source in programs:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            try:
                exec(compile(source, "<program>", "exec"), {"__name__": "__main__"})
            except Exception as error:  # the caller compares, and tells which program it was
                out.write(repr(error))
        printed.append(out.getvalue())
    return printed


if __name__ == "__main__":
    sys.stdout.write(json.dumps(outputs(json.load(sys.stdin))))
