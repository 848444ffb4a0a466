"""A server and processes of this very program that work for it: who starts, goes first and ends."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

NICENESS = 10  # of 19: where a server wants a core too, it gets about nine tenths of it
_SHARE_MIN = 0.1  # what is left of a core for one that gives way
# What libraries look for at their start; nothing else of the server's environment is passed on.
_ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TZ")
# What was given back is not kept for later: the system counts it as taken.
_FRUGAL = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2"}
_PR_SET_PDEATHSIG = 1  # prctl(2)
PAUSE_EVERY_SECONDS = 0.002  # each takes some 70 us; a query took 8 % longer so
TURN_NS = 100_000  # the shortest that Linux gives; 1.4 ms is usual on two cores
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}  # by machine: sched_setattr(2)
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, priority, turn (ns), ...
_RESET_ON_FORK = 1


def start(
    program: str, *arguments: str, errors: int | None = None, passed: Collection[int] = ()
) -> subprocess.Popen[bytes]:
    """Start Python with a program, and return the process, whose input and output are pipes.

    It has nothing of this one's: no environment, and no open file but those passed and the
    standard error, which `errors` may put elsewhere (as in `subprocess.Popen`).
    """
    return subprocess.Popen(  # noqa: S603 - of this very program
        [sys.executable, "-P", "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        pass_fds=passed,
        env=_environment(),
    )


def give_way(niceness: int = NICENESS) -> None:
    """Lower the priority of this process, for good; does nothing where a system has none.

    What works beside a server must not slow ingestion. Linux with autogroups compares it within a
    session, and shares evenly between them (sched(7)).

    Never of a single thread of a server: one that waits for a core while it holds Python's
    interpreter would keep all others waiting.
    """
    if hasattr(os, "nice"):
        os.nice(niceness)


def take_idle_time() -> None:
    """Have this process work when nobody else wants its core, for good; else it gives way.

    With all cores wanted by others it stands nearly still: it is for one that nobody waits for but
    the person who started it, or that somebody watches by `lacks_idle_time`. Threads of it that run
    already stay as they are.

    Beside queries on all cores that only gave way, one request in a hundred took three times as
    long: Linux has those who wake up wait for a core, though one gives way, and not for idle time.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):  # no Linux, or a sandbox that does not let it
        give_way()


@contextmanager
def pausing() -> Iterator[None]:
    """Have what computes in this process pause for a moment again and again; Linux only.

    For what gives way to a server: who wakes up takes the core from it at once, but who has lost a
    core to it, be it in idle time alone, waits for the next tick, every 4 ms on many a system. A
    pause lets those go on. Its share of a wanted core stays the same, unless that is idle time: of
    the little that it has there beside one who never sleeps, pauses cost half or more. With
    sched_yield(2) instead, niceness 10 was left a fiftieth of its share.

    Of several threads mostly the main one pauses. SIGALRM no longer ends the process, for good.
    Inside: no alarm(2), no other `pausing`, no writing to what may be full (`write` may return
    early), and nothing that waits by sleeping, such as SQLite for a lock. Source: the kernel's
    sched-eevdf.
    """
    if sys.platform != "linux":
        yield
        return
    system = ctypes.CDLL(None)
    # The handler sleeps for as many microseconds as its signal has for a number, without Python.
    system.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    system.signal(signal.SIGALRM, ctypes.cast(system.usleep, ctypes.c_void_p))
    try:
        signal.setitimer(signal.ITIMER_REAL, PAUSE_EVERY_SECONDS, PAUSE_EVERY_SECONDS)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def processor_seconds(process: int) -> float:
    """Return the processor time of all threads so far; 0 where the system hides it.

    Source: proc_pid_stat(5), the 14th and 15th field.
    """
    fields = _stat(Path(f"/proc/{process}/stat"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def lacks_idle_time(process: int, had: float, seconds: float) -> bool:
    """Tell whether a process in idle time wants a core now, and got less than by giving way.

    had: its processor time in the last so many seconds. False where the system hides it.
    """
    try:
        if had > seconds * _SHARE_MIN or os.sched_getscheduler(process) != os.SCHED_IDLE:
            return False
    except (AttributeError, OSError):
        return False
    threads = Path(f"/proc/{process}/task").glob("*/stat")
    return any(fields[0] == "R" for fields in map(_stat, threads) if fields)


def cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def take_short_turns() -> None:
    """Have this thread wait less for a core when it wakes up, for turns that are shorter.

    What it gets of the cores stays the same. Threads and processes it starts are as all others.
    Does nothing where a system cannot. Source: the kernel's sched-eevdf; Linux 6.12.

    Of an event loop beside queries on all cores the slowest tenth of answers took half as long.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = (_ATTRIBUTES.size, os.SCHED_OTHER, _RESET_ON_FORK, nice, 0, TURN_NS, 0, 0)
    ctypes.CDLL(None).syscall(number, 0, _ATTRIBUTES.pack(*attributes), 0)


def end_with(parent: int) -> None:
    """Have the system kill this process when the thread that started it ends; Linux only.

    parent: the process it is of, as that one knew it: when it is gone by now, this one ends here.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)


def _stat(path: Path) -> list[str]:
    """Return what the system says of a process or thread behind its name; nothing when it hides it.

    Source: proc_pid_stat(5), from the 3rd field, the state, on.
    """
    try:
        return path.read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _environment() -> dict[str, str]:
    found = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return {**found, **_FRUGAL, "PYTHONPATH": str(Path(__file__).parents[1])}
