"""Processes of a benchmark: servers on processor cores of their own, the load client on another.

Invariant: whatever is started here has ended when its `with` is over.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import IO, Self

import orjson

from mallard.cli.benchmark.load import Plan, Result
from mallard.cli.benchmark.traffic import EVENT_PATH, back_end_request
from mallard.errors import MallardError
from mallard.processes import processor_seconds
from mallard.settings import variable

_SERVES = re.compile(rb"serves http://127\.0\.0\.1:(\d+)")
_RING = re.compile(rb"^mallard_ring_events (\S+)$", re.MULTILINE)
START_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.002  # between two looks at a process that is about to be ready
FIRST_EVENT = b'{"d": "site-0.example", "n": "first", "u": "https://site-0.example/"}'


class Cores:
    """Which processor cores the server and the client run on, the same for every top rate.

    The server has all of them, as in earnest: its log syncs beside its event loop. The client stays
    on the last one, so that it never drives the event loop off the others.
    """

    def __init__(self) -> None:
        self.all: set[int] = set()
        if hasattr(os, "sched_getaffinity"):
            self.all = os.sched_getaffinity(0)
        self.client = set(sorted(self.all)[-1:])

    def __str__(self) -> str:
        if len(self.all) < 2:
            return "server and client share the machine"
        return f"server on cores {sorted(self.all)}, client on {sorted(self.client)}"


@contextmanager
def running_on(cores: set[int]) -> Iterator[None]:
    """Have the processes that are started meanwhile run on these cores."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Process:
    """A server process that says on its standard output where it listens.

    port: on 127.0.0.1. started_at: when it was asked for, as `monotonic` counts.
    """

    def __init__(self, arguments: list[str], cores: set[int], log: Path) -> None:
        self._arguments = [sys.executable, "-m", *arguments]
        self._cores = cores
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.settings: dict[str, str] = {}
        self.port = 0
        self.started_at = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start, and return once the process listens."""
        with running_on(self._cores), self._log.open("wb") as log:
            self.started_at = monotonic()
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(self.settings),
            )
        while not (said := _SERVES.search(self._log.read_bytes())):
            self._must_run()
            sleep(LOOK_SECONDS)
        self.port = int(said[1])

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask the process to end, and wait until it has."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def peak_bytes(self) -> int:
        """Return the most memory that it and those it started and that still run ever had.

        Resident, each by itself; 0 where the system hides it, and for one that ends meanwhile.
        """
        assert self._process is not None
        pid = str(self._process.pid)
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        started = " ".join(map(_text, tasks)).split()
        return sum(map(_peak_bytes, (pid, *started)))

    def processor_seconds(self) -> float:
        """Return the processor time of all threads so far; 0 where the system hides it."""
        assert self._process is not None
        return processor_seconds(self._process.pid)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Return the status and the body, as sent, of a GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def send(self, request: bytes) -> int:
        """Send a request as it stands and return the status of its answer."""
        head, _, body = request.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        method, path, _ = first.split(" ")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(line.split(": ", 1) for line in lines))
            return connection.getresponse().status
        finally:
            connection.close()

    def drain(self) -> None:
        """Return once nothing waits for a flush, so that none is left to the next measurement."""
        while True:
            _, text = self.get("/metrics")
            found = _RING.search(text)
            if found is None:
                raise MallardError("the server's /metrics does not say how many events wait")
            if float(found[1]) == 0:
                return
            sleep(0.05)

    def _must_run(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None or monotonic() - self.started_at > START_SECONDS_MAX:
            said = self._log.read_text(errors="replace")[-2000:]
            raise MallardError(f"{' '.join(self._arguments)} did not start:\n{said}")


def mallard(data: Path, cores: set[int], settings: Mapping[str, str] | None = None) -> Process:
    """Return `mallard serve` over a data folder; settings: "table.key" to text."""
    process = Process(
        ["mallard", "serve", "--data", str(data), "--port", "0"],
        cores,
        data.with_name(data.name + ".log"),
    )
    # As behind a proxy, which is how most servers stand: see `traffic`.
    process.settings = {"proxy.trusted": "loopback", **(settings or {})}
    return process


def empty(kind: str, folder: Path, cores: set[int]) -> Process:
    """Return the empty endpoint: "starlette" or "bare"."""
    return Process(
        ["mallard.cli.benchmark.empty", kind],
        cores,
        folder / f"{kind}.log",
    )


def first_answer(process: Process) -> float:
    """Return the seconds from the start of a process to its first 202, which it waits for."""
    status = process.send(back_end_request(process.port, EVENT_PATH, FIRST_EVENT))
    if status != 202:
        raise MallardError(f"the first event was answered with {status}")
    return monotonic() - process.started_at


def run_load(plan: Plan, cores: set[int]) -> Result:
    """Carry out a plan in a process of its own."""
    with running_on(cores):
        done = subprocess.run(  # noqa: S603 - ourselves
            [
                *(sys.executable, "-m", "mallard.cli.benchmark.load"),
                orjson.dumps(asdict(plan)).decode(),
            ],
            capture_output=True,
            check=False,
            env=_environment({}),
        )
    if done.returncode:
        raise MallardError(f"the load client failed:\n{done.stderr.decode()[-2000:]}")
    return Result(**orjson.loads(done.stdout))


class Reader:
    """A process that queries a data folder without a pause while the `with` lasts.

    asked: how many questions it has had answered, once it is over.
    """

    def __init__(self, data: Path, cores: set[int]) -> None:
        self._data = data
        self._cores = cores
        self.asked = 0

    def __enter__(self) -> Self:
        with running_on(self._cores):
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "mallard.cli.benchmark.reader", str(self._data)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=_environment({}),
            )
        self._line()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _pipe(self._process.stdin).close()
        said = self._line()
        _pipe(self._process.stdout).close()
        if self._process.wait() and error is None:
            raise MallardError("the queries failed; what went wrong stands above")
        self.asked = int(said or b"0")

    def _line(self) -> bytes:
        return _pipe(self._process.stdout).readline()


def _peak_bytes(process: str) -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB$", _text(Path(f"/proc/{process}/status")), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _text(path: Path) -> str:
    """Return what the system says of a process or thread; nothing when that has just ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with none but these of Mallard's variables.

    And without what forbids Python to keep compiled code, which no operator's shell has: a start
    would be measured that compiles everything.
    """
    plain = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith("MALLARD_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    return plain | {variable(name): text for name, text in settings.items()}
