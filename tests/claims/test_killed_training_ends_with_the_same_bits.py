"""Claim: training killed with signal 9 at any moment goes on and ends with the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def start(out):
    code = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
        "from pathlib import Path\n"
        "from train_fixture import train, stage\n"
        f"train(Path({str(out)!r}), plan=stage(6500), checkpoint_seconds=0.02)\n"
    )
    return subprocess.Popen([sys.executable, "-c", code])


def content(folder):
    return {f.name: f.read_bytes() for f in sorted(folder.iterdir())}


def written(folder):
    """When the folder was last replaced; 0 where there is none, also between a checkpoint and the next."""
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@pytest.mark.slow
def test_killed_again_and_again(tmp_path):
    assert start(tmp_path / "straight").wait() == 0
    kills = 0
    for attempt in range(12):
        process = start(tmp_path / "killed")
        partial = tmp_path / "killed" / "partial"
        began = written(partial)
        while process.poll() is None:  # let it get one checkpoint further, then a little more
            if written(partial) not in (0, began):
                time.sleep(0.013 * attempt)
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        if process.wait() == 0:
            break
        kills += process.returncode == -signal.SIGKILL
    else:
        assert start(tmp_path / "killed").wait() == 0
    assert kills >= 3
    assert content(tmp_path / "killed" / "checkpoint") == content(tmp_path / "straight" / "checkpoint")
    assert (
        os.listdir(tmp_path / "straight") == ["checkpoint"]
        or (tmp_path / "straight" / "partial").exists()
    )
