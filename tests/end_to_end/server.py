"""A real `mallard serve` process over a folder of its own, for tests to use and to kill."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from mallard.settings import variable
from tests.documents import ROOT
from tests.waiting import until

MALLARD = [sys.executable, "-m", "mallard"]
_SERVES = re.compile(r"^Mallard \S+ serves (http://\S+:(\d+))$", re.MULTILINE)


class RunningServer:
    """A server process, ready to answer on a free port of 127.0.0.1.

    url: where it answers, without a slash at the end. data: its data folder. A restart keeps
    both. settings: "table.key" to text, as environment variables. module: what runs as `mallard`.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, str] | None = None, module: str = "mallard"
    ) -> None:
        self.data = folder / "data"
        self.settings = dict(settings or {})
        self.port = 0
        self.url = ""
        self._module = module
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.kill9()

    @property
    def logs(self) -> str:
        """All that every process so far printed and logged."""
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The process that runs now."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> None:
        """Start a process and return once it is ready."""
        before = len(self.logs) if self._log.exists() else 0
        self.spawn()
        said = until(lambda: self._says_where(before), "the server says where it is")
        self.url, self.port = said[1], int(said[2])
        until(self._is_ready, "the server is ready")

    def spawn(self) -> None:
        """Start a process and return at once, for a test that does something to it meanwhile."""
        assert self._process is None, "the server is running already"
        with self._log.open("ab") as log:
            arguments = ["serve", "--data", str(self.data), "--port", str(self.port)]
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(self.settings),
            )

    def restart(self) -> None:
        """Start again, on the same port, after a stop."""
        self.start()

    def kill9(self) -> None:
        """End the process at once, as a crash would."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """Ask the process to end, and return its exit code."""
        return self._end(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for a process that ends, and return its exit code."""
        assert self._process is not None, "the server is not running"
        code = self._process.wait(timeout=60)
        self._process = None
        return code

    def shell(self, sql: str) -> list[list[str]]:
        """Return the rows `mallard shell` gives, as text, while the server runs or not."""
        arguments = ("--data", str(self.data), "--format", "csv", "-c", sql)
        # It takes the time that others leave, and other tests may want all there is.
        done = run("shell", *arguments, timeout_seconds=300)
        assert done.returncode == 0, done.stderr
        return list(csv.reader(io.StringIO(done.stdout)))[1:]

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None, "the server is not running"
        self._process.send_signal(number)
        return self.wait()

    def _says_where(self, before: int) -> re.Match[str] | None:
        self._must_run()
        return _SERVES.search(self.logs[before:])

    def _is_ready(self) -> bool:
        self._must_run()
        try:
            return httpx.get(f"{self.url}/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def _must_run(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the server ended with {self._process.returncode}:\n{self.logs}")


def run(
    *arguments: str, settings: Mapping[str, str] | None = None, timeout_seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a `mallard` command to its end."""
    return subprocess.run(
        [*MALLARD, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        env=environment(settings or {}),
        check=False,
    )


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with none but these of Mallard's variables."""
    plain = {name: text for name, text in os.environ.items() if not name.startswith("MALLARD_")}
    return plain | {variable(name): text for name, text in settings.items()}
