"""The programs of the small world are run, so that a corpus holds nothing but true output."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from codestage.data.worlds.episode import Episode
from codestage.errors import RunError

SECONDS = 120
"""Most time for one call; a thousand programs take about a tenth of a second."""


def printed(programs: Sequence[str], *, seconds: float = SECONDS) -> list[str]:
    """What each program prints, run one after the other in one process.

    For the project's own programs alone: the process is separate but not locked in. Raises RunError
    if the process fails or takes longer than `seconds`.
    """
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("runner.py"))]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(list(programs)),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=seconds,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(
            f"{len(programs):,} programs of a generated corpus did not end within {seconds:g} s. "
            "Nothing was written; run again when the machine is less busy."
        ) from error
    except subprocess.CalledProcessError as error:
        raise RunError(
            f"the process that runs the programs of a generated corpus failed: "
            f"{error.stderr.strip()[-500:]}"
        ) from error
    outputs: list[str] = json.loads(done.stdout)
    return outputs


def check(episodes: Sequence[Episode]) -> None:
    """Run each episode's program; RunError if one prints anything but the answer and a line end."""
    for episode, output in zip(episodes, printed([e.program for e in episodes]), strict=True):
        if output != episode.answer + "\n":
            raise RunError(
                f"a generated program prints {output!r}, but its story's answer is "
                f"{episode.answer!r} (skill {episode.skill}, {episode.key}):\n{episode.program}\n"
                "This is a bug of codestage; leave the skill out of the study's skills for now."
            )
