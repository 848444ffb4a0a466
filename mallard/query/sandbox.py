"""Runs queries in processes of their own, which end when they take too much.

DuckDB counts most of the memory it takes and stops at most points when it is told to. Not all: text
of gigabytes made by one call of `repeat` is neither counted nor interrupted. Whatever happens
there, the server goes on: memory is bounded by the system, and at its time limit the process is
killed.

Invariants: a process is asked once, and gone when its answer is read or given up. It has nothing of
the server's: no open file, no environment, no memory.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mallard.config import QueryConfig
from mallard.errors import InvalidInput, MallardError, NotFound, QueryTimeout, QueryTooLarge
from mallard.processes import start
from mallard.query.confined import Reading, confine
from mallard.query.forms import Form
from mallard.query.sandboxed import Limits, Task, Work
from mallard.query.tail import Tail
from mallard.store.store import Store

SPILLED = "tmp/sql"  # in the data folder
# Not with -m: what is sent is of the module by its name.
_PROGRAM = "from mallard.query.sandboxed import main; main()"
READ_BYTES = 256 * 1024
# What a process may say is wrong with what was asked.
_REFUSALS: dict[str, type[MallardError]] = {
    kind.__name__: kind for kind in (InvalidInput, NotFound, QueryTooLarge)
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows as bytes, how many they are, and the name and DuckDB type of each column."""

    content: bytes
    rows: int
    columns: list[dict[str, str]]


class Query:
    """One query under way: its bytes as they come, and at the end whether they are all."""

    def __init__(
        self, process: _Process, spill: Path, seconds: float, failed: Callable[[], None]
    ) -> None:
        """failed: told where it is neither the asker's fault nor a limit's."""
        self._failed = failed
        self._process = process
        self._spill = spill
        self._seconds = seconds
        self._late = threading.Event()
        self._timer = threading.Timer(seconds, self.stop)
        self._timer.daemon = True
        self._timer.start()

    def read(self) -> bytes:
        """Return the next bytes, waiting for them; none at the end."""
        return self._process.output.read1(READ_BYTES)

    def finish(self) -> dict[str, Any]:
        """Return what came of it, after the last bytes were read.

        Raises InvalidInput for what cannot run, NotFound, QueryTimeout, QueryTooLarge.
        """
        self._process.popen.wait()
        said = self._process.status.read()
        result: dict[str, Any] = orjson.loads(said) if said else {"error": "ended"}
        self.close()
        error = result.get("error")
        if error is not None:
            raise self._error(error, result)
        return result

    def stop(self) -> None:
        """End it before its time; who reads it sees the end. Any thread may call it, and again."""
        self._late.set()
        self._process.popen.kill()

    def close(self) -> None:
        """End it, if it has not ended, and leave nothing behind."""
        self._timer.cancel()
        self._process.end()
        shutil.rmtree(self._spill, ignore_errors=True)

    def _error(self, error: str, result: dict[str, Any]) -> MallardError:
        code = self._process.popen.returncode
        if self._late.is_set() or code in {-signal.SIGXCPU, -signal.SIGALRM}:
            return QueryTimeout(
                f"The answer took longer than {self._seconds:g} seconds; ask for less."
            )
        if error == "invalid":
            kind = _REFUSALS[result["kind"]]
            return kind(result["detail"], field=result.get("field"), rule=result.get("rule"))
        if error == "rows":
            return QueryTooLarge("The answer has too many rows; ask for less, or say LIMIT.")
        # Where memory ends in the middle of things, the process does too.
        if error == "memory" or (error == "ended" and code != 0):
            return QueryTooLarge(
                "The answer needs more memory than the server gives to one; ask for less."
            )
        self._failed()
        _log.error("a query failed with %s", result.get("detail") or error)
        return MallardError("")


class _Process:
    """A process that waits for its task."""

    def __init__(self) -> None:
        status, theirs = os.pipe()
        try:
            self.popen = start(_PROGRAM, str(theirs), errors=subprocess.DEVNULL, passed=(theirs,))
        except BaseException:
            os.close(status)
            raise
        finally:
            os.close(theirs)
        self.status = os.fdopen(status, "rb")
        assert isinstance(self.popen.stdout, io.BufferedReader)
        # It has a lock: who closes it waits until who reads it has seen its end.
        self.output = self.popen.stdout

    def ask(self, task: bytes) -> bool:
        """Give it its task; return whether it was still there to take it."""
        assert self.popen.stdin is not None
        try:
            self.popen.stdin.write(task)
            self.popen.stdin.close()
        except BrokenPipeError:
            return False
        return self.popen.poll() is None

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait()
        with contextlib.suppress(BrokenPipeError):
            assert self.popen.stdin is not None
            self.popen.stdin.close()
        self.output.close()
        self.status.close()


class Sandbox:
    """Starts the processes; any thread may ask."""

    def __init__(self, config: QueryConfig, data: Path, store: Store, tail: Tail) -> None:
        """data: the data folder, which takes what does not fit in memory."""
        self._config = config
        self._store = store
        self._tail = tail
        self._spill = data / SPILLED
        shutil.rmtree(self._spill, ignore_errors=True)
        self._lock = threading.Lock()
        self._failures = 0
        # Started after the first query for the next one: to start takes longer than most answers.
        self._spare: _Process | None = None
        self._closed = False

    def ask(
        self,
        sql: str,
        form: Form,
        sites: frozenset[str] | None,
        begun: Callable[[Callable[[], None]], None] = lambda _: None,
        as_of_us: int | None = None,
    ) -> Answer:
        """Return the answer to SQL of somebody else's, within the limits of the settings.

        sites: those that may be seen; None is every one. begun: is told what stops the query before
        it has ended. as_of_us: an instant, to see what was stored then; None for now. Raises
        InvalidInput for SQL that cannot or may not run, QueryTimeout, QueryTooLarge.
        """
        tail = self._tail.view()  # tail first, snapshot second: see query/events.py
        with self._store.reading() as snapshot:
            reading = confine(tail, snapshot, sites, self._store.source, as_of_us=as_of_us)
            return self._ask(sql, form, reading, begun)

    def _ask(
        self,
        sql: str,
        form: Form,
        reading: Reading,
        begun: Callable[[Callable[[], None]], None],
    ) -> Answer:
        config = self._config
        query = self.start(
            reading, (sql,), form, config.timeout_seconds, rows_max=config.sql_rows_max
        )
        try:
            begun(query.stop)
            content = bytearray()
            while some := query.read():
                content += some
                if len(content) > config.sql_bytes_max:
                    raise QueryTooLarge("The answer has too many bytes; ask for less.")
            result = query.finish()
            return Answer(bytes(content), result["rows"], result["columns"])
        finally:
            query.close()
            self._prepare()

    def start(
        self,
        reading: Reading,
        queries: tuple[str, ...],
        form: Form,
        seconds: float,
        *,
        rows_max: int | None = None,
    ) -> Query:
        """Start a query, or several with the same columns, and return it to be read.

        rows_max: with it the SQL is somebody else's, and confined; without, it is ours.
        """

        def task(limits: Limits) -> Work:
            return Task(reading, queries, form, limits, rows_max is not None, rows_max)

        return self.begin(task, seconds)

    def begin(self, task: Callable[[Limits], Work], seconds: float) -> Query:
        """Start what is to be done within limits, and return it to be read."""
        spill = self._spill / secrets.token_hex(4)
        spill.mkdir(mode=0o700, parents=True)
        limits = limits_of(self._config, spill, seconds)
        return Query(self._take(pickle.dumps(task(limits))), spill, seconds, self._count_failure)

    @property
    def failures(self) -> int:
        """How many queries could not be answered, of which a damaged file may be the cause."""
        return self._failures

    def _count_failure(self) -> None:
        with self._lock:
            self._failures += 1

    def close(self) -> None:
        """End the process that waits; those that are read end with their readers."""
        with self._lock:
            self._closed = True
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.end()

    def _take(self, task: bytes) -> _Process:
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            if spare.ask(task):
                return spare
            spare.end()  # it waited too long
        process = _Process()
        process.ask(task)
        return process

    def _prepare(self) -> None:
        with self._lock:
            if self._spare is None and not self._closed:
                self._spare = _Process()


def limits_of(config: QueryConfig, spill: Path, seconds: float) -> Limits:
    """Return what one process may take. spill: a folder of its own."""
    return Limits(
        memory_bytes=config.sql_memory_bytes,
        threads=config.threads,
        seconds=seconds,
        spill=str(spill),
        spill_bytes=config.sql_spill_bytes,
    )
