"""Processes of this very program in which jobs do their work, and which give way to the server.

Invariants: a process does one thing at a time; it ends with its server at the latest, and as long
as it has not, it holds the server's data folder, so that nobody else writes there. What kills it,
be it a lack of memory or a library's crash, leaves the server and what is stored as they are.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, BinaryIO, TypeVar

from mallard.errors import StorageError
from mallard.processes import (
    end_with,
    give_way,
    lacks_idle_time,
    pausing,
    processor_seconds,
    start,
    take_idle_time,
)

PIPE_BYTES = 1024 * 1024  # as much as Linux gives to anybody
TEXTS_AT_ONCE = 1024  # as many as Linux and macOS take in one writev(2)
END_SECONDS = 10.0  # for a process that has nothing more to do
# One in idle time that gets next to none holds up the jobs that come after it. So many looks in a
# row must find that: a single one may be at a wait for the disk, or after the machine stood still.
LOOK_SECONDS = 6.0
LOOKS = 5
CALLS_BESIDE = 20  # after one that got none, so many do not try: a core may be taken for long
_PROGRAM = "from mallard.jobs.apart import main; main()"

# That nothing was answered, or nothing that can be read; what was installed meanwhile is another
# version perhaps.
_UNHEARD = (
    *(BrokenPipeError, EOFError, pickle.UnpicklingError),
    *(AttributeError, ImportError, IndexError, TypeError),
)

_Task = TypeVar("_Task")
_Made = TypeVar("_Made")


class Ended(StorageError):
    """The process ended before it had done its work, and may have left files behind."""


class Starved(Ended):
    """The process was to work in idle time, there was none, and it was ended."""


class Apart:
    """Does one thing at a time for a thread; any thread may interrupt it."""

    def __init__(self, held: Collection[int] = (), *, stays: bool = False) -> None:
        """held: descriptors that the processes keep open while they live.

        stays: whether a process waits for the next thing until `end`, or ends after each. It ends
        with the thread that called first.
        """
        self._held = held
        self._stays = stays
        self._process: subprocess.Popen[bytes] | None = None
        self._beside = 0  # so many calls do not take idle time

    def call(self, function: Callable[[_Task], _Made], task: _Task, *, idle: bool = False) -> _Made:
        """Return what a module's function makes of a task; both can be pickled.

        idle: it is done in idle time, and only gives way for the next `CALLS_BESIDE` after
        `Starved`.

        Raises StorageError for whatever it raised, `Ended` when it did not come to an end,
        `Starved` when there was no idle time, and OSError when there can be no process.
        """
        made: _Made = self._call(function, task, None, idle=idle)
        return made

    def call_with(
        self, function: Callable[[_Task, bytes], _Made], task: _Task, texts: Sequence[bytes]
    ) -> _Made:
        """Do what `call` does with texts as well, of which the function gets one made of all.

        The system puts them together: 5 MB took Python's interpreter from others for 2 ms.
        """
        made: _Made = self._call(function, task, texts)
        return made

    def _call(
        self,
        function: Callable[..., object],
        task: object,
        texts: Sequence[bytes] | None,
        *,
        idle: bool = False,
    ) -> Any:
        if idle and self._beside:
            self._beside -= 1
            idle = False
        if self._process is None:
            self._process = start(_PROGRAM, str(os.getpid()), passed=self._held)
            _widen(self._process)
        process = self._process
        try:
            _ask(process, function, task, texts, idle=idle)
            if idle and _is_starved(process):
                self._beside = CALLS_BESIDE
                raise Starved("its process had no idle time")
            made = _answered(process)
        except _UNHEARD as error:
            self.end()
            raise Ended(f"its process ended with {process.returncode}") from error
        except BaseException:
            process.kill()
            self.end()
            raise
        if not self._stays:
            self.end()
        if isinstance(made, _Failed):
            raise StorageError(str(made))
        return made

    def interrupt(self) -> None:
        """Kill the process that is at work, if there is one."""
        if process := self._process:
            process.kill()

    def end(self) -> None:
        """Return once there is no process; not while it is at work."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin and process.stdout
        with contextlib.suppress(BrokenPipeError), process.stdin, process.stdout:
            pass  # it has nothing more to do, and ends
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # somebody has stopped it
            process.kill()
            process.wait()


def _widen(process: subprocess.Popen[bytes]) -> None:
    """Have a process told more at a time: 10 MB take 7 ms so, and 15 by Linux's usual 64 KiB."""
    if hasattr(fcntl, "F_SETPIPE_SZ") and process.stdin:
        with contextlib.suppress(OSError):  # its user may have many such pipes
            fcntl.fcntl(process.stdin, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _ask(
    process: subprocess.Popen[bytes],
    function: Callable[..., object],
    task: object,
    texts: Sequence[bytes] | None,
    *,
    idle: bool,
) -> None:
    """Tell a process what to do; raises BrokenPipeError when it is gone."""
    assert process.stdin
    size = None if texts is None else sum(map(len, texts))
    pickle.dump((function, task, size, idle), process.stdin)
    process.stdin.flush()
    texts = texts or ()
    for at in range(0, len(texts), TEXTS_AT_ONCE):
        _write(process.stdin.fileno(), texts[at : at + TEXTS_AT_ONCE])


def _write(descriptor: int, texts: Sequence[bytes]) -> None:
    """Write all of some texts."""
    written = os.writev(descriptor, texts)
    if written < sum(map(len, texts)):  # a signal came between
        rest = memoryview(b"".join(texts))[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def _answered(process: subprocess.Popen[bytes]) -> Any:
    """Return what a process answers; raises EOFError when it does not."""
    assert process.stdout
    return pickle.load(process.stdout)  # noqa: S301 - from the process that was started here


def _is_starved(process: subprocess.Popen[bytes]) -> bool:
    """Wait for the answer of a process in idle time, or for its end, while it has some."""
    assert process.stdout
    answer = select.poll()
    answer.register(process.stdout, select.POLLIN)
    had, lacking = processor_seconds(process.pid), 0
    while not answer.poll(LOOK_SECONDS * 1000):
        before, had = had, processor_seconds(process.pid)
        lacks = lacks_idle_time(process.pid, had - before, LOOK_SECONDS)
        lacking = lacking + 1 if lacks else 0
        if lacking == LOOKS:
            return True
    return False


class _Failed(str):
    """What went wrong in a process, in words."""

    __slots__ = ()


def main() -> None:
    """Do what the process that started this one asks, and send it what was made, until it ends."""
    end_with(int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM):  # a whole group's: the server will say
        signal.signal(number, signal.SIG_IGN)
    give_way()
    output = os.fdopen(os.dup(1), "wb")
    # Nothing else reaches it: DuckDB shows how far it is where it takes a program for a person.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    # A server that is killed has said half of something, or hears no answer; this one is next.
    gone = contextlib.suppress(EOFError, pickle.UnpicklingError, BrokenPipeError)
    with gone, output, os.fdopen(0, "rb") as asked:
        while asked.peek(1):
            pickle.dump(_answer(asked), output)
            output.flush()
    # At once: there is nothing to tidy up, and DuckDB's threads may take their time.
    os._exit(0)


def _answer(asked: BinaryIO) -> object:
    """Do the next thing, and return what was made, and nothing of what it was made of.

    Raises EOFError and UnpicklingError when the server did not say all of it.
    """
    function, task, size, idle = pickle.load(asked)  # noqa: S301 - from the server
    text = b"" if size is None else asked.read(size)
    if size is not None and len(text) < size:
        raise EOFError
    if idle:
        take_idle_time()  # only now: the server waits until it has said all
    try:
        with pausing():
            return function(task) if size is None else function(task, text)
    except Exception as error:  # noqa: BLE001 - the top of a process
        return _Failed(str(error) or type(error).__name__)
