"""A worker ends with the process that asked for it."""

import subprocess
import sys
import time

import psutil
import pytest

ASKS = """
import multiprocessing, sys, time
from codestage.engine.worker import work_loop

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    ours, theirs = context.Pipe()
    stop = context.Event()
    process = context.Process(target=work_loop, args=(theirs, sys.argv[2], stop, None))
    process.start()
    theirs.close()
    print(process.pid, flush=True)
    time.sleep(120)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_worker_is_killed_when_its_parent_is(tmp_path, method):
    script = tmp_path / "asks.py"
    script.write_text(ASKS)
    command = [sys.executable, str(script), method, str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        worker = psutil.Process(int(parent.stdout.readline()))
        while worker.num_threads() < 2:  # it watches
            assert worker.status() != psutil.STATUS_ZOMBIE
            time.sleep(0.01)
        parent.kill()
    gone, alive = psutil.wait_procs([worker], timeout=20)
    assert gone
    assert not alive
