"""What it costs to try the presets: every study of each, at the scale `smoke`, run to its report in a folder of its own.

Processor time is that of `codestage run` and all that it starts, looked at every tenth of a second, so it is a little
less than what was used; on a machine that does other things too it is more than on one that does not. Bytes are those
of the folder when all is done, and the most that it held.

    python benchmarks/presets.py [--only petty2024 midtraining]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from codestage.study.presets import load_preset, preset_names, preset_studies

SMALL = [name for name in preset_names() if "smoke" in load_preset(name).scales]


def watch(command: list[str], folder: Path) -> dict[str, float]:
    """Runs a command in a folder; its processor time, clock time and the folder's bytes.

    Raises:
        CalledProcessError: it fails.
    """
    began, used, most = time.perf_counter(), dict[tuple[int, float], float](), 0
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as started:
        whole = psutil.Process(started.pid)
        while started.poll() is None:
            with suppress(psutil.NoSuchProcess):
                for process in (whole, *whole.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        times = process.cpu_times()
                        used[process.pid, process.create_time()] = times.user + times.system
            most = max(most, size(folder))
            time.sleep(0.1)
        if started.returncode:
            raise subprocess.CalledProcessError(started.returncode, command)
    return {
        "processor_seconds": sum(used.values()),
        "seconds": time.perf_counter() - began,
        "bytes": size(folder),
        "most_bytes": most,
    }


def size(folder: Path) -> int:
    """Bytes of what lies there; what is renamed meanwhile is left out."""
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, file)).st_size
    return total


def told(study: Path) -> dict[str, Any]:
    """What the status says of a run that is done."""
    command = [sys.executable, "-m", "codestage.cli", "status", str(study.with_suffix("")), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SMALL, default=SMALL)
    asked = parser.parse_args()
    print(f"{'study':<28} | processor, s | clock, s | trained tokens | GB at the end, at most")
    found = []
    for name in asked.only:
        for file, text in preset_studies(name, scale="smoke").items():
            with tempfile.TemporaryDirectory() as place:
                study = Path(place) / file
                study.write_text(text)
                row = watch([sys.executable, "-m", "codestage.cli", "run", str(study)], Path(place))
                row["tokens"] = told(study)["tokens_done"]
            print(
                f"{study.stem:<28} | {row['processor_seconds']:12.1f} | {row['seconds']:8.1f} | {row['tokens']:14,} | "
                f"{row['bytes'] / 1e9:.3f} {row['most_bytes'] / 1e9:.3f}",
                flush=True,
            )
            found.append({"study": study.stem, **row})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
