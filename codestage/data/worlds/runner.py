"""Runs a list of programs given as JSON on standard input; prints a JSON list of their output."""

import contextlib
import io
import json
import sys


def run_all(programs: list[str]) -> list[str]:
    """What each program prints, without the last newline."""
    outputs = []
    for source in programs:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(source, "program", "exec"), {})
        outputs.append(printed.getvalue().removesuffix("\n"))
    return outputs


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run_all(json.load(sys.stdin))))
