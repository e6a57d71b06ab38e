"""Every benchmark still runs, at its smallest, and ends with its figures as JSON. Nothing is timed here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SMALLEST = {
    "small_to_large.py": ["--studies", "5"],
    "analysis.py": ["--arms", "8", "--rounds", "1"],
    "batches.py": ["--tokens", "200000"],
    "prepare.py": ["--documents", "1000", "--rounds", "1"],
    "engine.py": ["--arms", "20", "--steps", "8", "--seconds", "0.1", "--workers", "2"],
    "evaluate.py": ["--items", "2", "--prompts", "2", "--new", "4", "--shots", "1", "--rounds", "1"],
    "presets.py": ["--only", "midtraining"],
    "sandbox.py": ["--programs", "5", "--rounds", "1"],
    "train_compile.py": ["--sizes", "150k", "--steps", "3"],
    "train_speed.py": ["--sizes", "150k", "--steps", "5", "--rounds", "1"],
}


@pytest.mark.slow
@pytest.mark.timeout(900)  # it compiles
@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_prints_its_figures(name):
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *SMALLEST[name]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures


def test_all_that_are_quick_enough_are_tried():
    slow = {"coverage.py", "time_to_answer.py", "train_many.py"}  # minutes at any size
    assert {f.name for f in FOLDER.glob("*.py")} - SMALLEST.keys() == slow
