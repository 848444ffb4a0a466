"""Runs queries on DuckDB: few at once, each within its time and all within one bound of memory.

Who asks is served in turn, so that one with many questions does not keep others waiting. A question
that waits, or that is being answered of the same data, is not asked again: both get the one answer.
A question that nobody waits for any more is stopped.

A question that takes long does not keep others waiting either: beside those that do there is room
for one more.

DuckDB's own threads give way to the rest of the server: they never hold Python's interpreter, so
nobody waits for one that waits for a processor. The threads that ask do, and do not give way.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import shutil
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar, cast

import duckdb
import pyarrow as pa

from mallard.config import QueryConfig
from mallard.errors import Overloaded, QueryTimeout, QueryTooLarge
from mallard.processes import cores
from mallard.query.sql import Params, Sql

SPILLED = "tmp/query"  # in the data folder
_REPORTS: dict[str, str | bool | int | float | list[str]] = {
    "preserve_insertion_order": "false",
    # What is freed goes back to the system, or a question that spills leaves 100 MiB behind.
    "allocator_flush_threshold": "16MiB",
    "allocator_bulk_deallocation_flush_threshold": "16MiB",
}
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    **_REPORTS,
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}

# What DuckDB counts of what questions take; it takes more, and Arrow holds tables beside it.
_COUNTED_SHARE = 5 / 8
SLOW_SECONDS = 2.0  # from then on a question takes long
# What took so long may have left much memory to the allocator, which each thread has for itself: of
# 417 MiB after a year of flows 120 MiB. To give it back takes a few milliseconds.
RELEASE_SECONDS = 0.5
NICENESS = 10  # of DuckDB's own threads, of 19
# An interrupt between two statements is lost, so a question that goes on is interrupted again.
INTERRUPT_SECONDS = 0.05

T = TypeVar("T")


class Session:
    """What one question may do with DuckDB: run statements and read whole results."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        names: itertools.count[int],
        asked_at: float = math.inf,
    ) -> None:
        """asked_at: as `monotonic` counts; the answer is to know all that was committed by then."""
        self.asked_at = asked_at
        self._cursor = cursor
        self._names = names
        self._registered: list[str] = []
        self._end: Callable[[], None] | None = None
        self._stopped = False

    def rows(self, sql: Sql, params: Params | None = None) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        self._go_on()
        return self._cursor.execute(sql, params.values if params else None).fetchall()

    def page(
        self, key: Hashable, query: Callable[[], Sql], order: str, limit: int, offset: int
    ) -> list[tuple[Any, ...]]:
        """Return so many rows of a query's, put in an order, after so many others.

        key: names the query, for sessions that give one page after the other.
        """
        return self.rows(
            Sql(f"FROM ({query()}) ORDER BY {order} LIMIT {int(limit)} OFFSET {int(offset)}")
        )

    def table(self, sql: Sql, params: Params | None = None) -> pa.Table:
        """Return a query's result as an Arrow table."""
        self._go_on()
        return self._cursor.sql(sql, params=params.values if params else None).to_arrow_table()

    def take(self, table: pa.Table) -> Sql:
        """Make an Arrow table one that queries of this session can name; return its name."""
        name = f"taken_{next(self._names)}"
        self._cursor.register(name, table)
        self._registered.append(name)
        return Sql(name)

    def let_go(self, taken: Sql) -> None:
        """Let go of a table that was taken, which is in memory until then."""
        self._cursor.unregister(taken)
        self._registered.remove(taken)

    def made(self, sql: Sql) -> Sql:
        """Put a query's result into the database, which spills it to disk; return its name.

        It is there until it is dropped, or until the session is closed.
        """
        self._go_on()
        name = f"made_{next(self._names)}"
        self._cursor.execute(f"CREATE TEMP TABLE {name} AS {sql}")
        return Sql(name)

    def view(self, name: str, sql: Sql) -> None:
        """Give a query a name that others of this session can use; the last meaning counts."""
        self._cursor.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")

    @property
    def cursor(self) -> duckdb.DuckDBPyConnection:
        """The cursor, for statements that make things and give nothing back."""
        return self._cursor

    def ends_with(self, end: Callable[[], None]) -> None:
        """Have what the question does elsewhere ended when it is stopped, on another thread.

        end: may be called several times.
        """
        self._end = end
        if self._stopped:
            end()

    def stop(self) -> None:
        """Stop what is under way, and let nothing begin; any thread may call it, and again."""
        self._stopped = True
        if self._end is not None:
            self._end()
        with contextlib.suppress(duckdb.Error):
            self._cursor.interrupt()

    def _go_on(self) -> None:
        if self._stopped:
            raise duckdb.InterruptException("The question was stopped.")

    def close(self) -> None:
        """Let go of everything."""
        for name in self._registered:
            with contextlib.suppress(duckdb.Error):
                self._cursor.unregister(name)
        self._cursor.close()


@dataclass(slots=True, eq=False)
class _Question:
    """A question that waits or is being answered.

    askers: how many wait for the answer; who asks without an event loop never goes away.
    """

    work: Callable[[Session], Any]
    owner: str
    key: Hashable
    version: Hashable
    askers: int = 1
    answer: Future[Any] = field(default_factory=Future)
    asked_at: float = field(default_factory=monotonic)  # by the last of them before it was begun
    session: Session | None = None  # while it is being answered
    begun: float = 0.0  # as `monotonic` counts


class Engine:
    """A bounded pool of threads over one DuckDB database in memory."""

    def __init__(self, config: QueryConfig, data: Path) -> None:
        """Make a pool that starts with its first question.

        data: the data folder, which takes what does not fit in memory.
        """
        self._config = config
        # One core is left to those who send events.
        self._at_once = config.workers or max(1, cores() - 1)
        self._spill = data / SPILLED
        shutil.rmtree(self._spill, ignore_errors=True)
        self._names = itertools.count()
        lock = threading.Lock()
        self._changed = threading.Condition(lock)  # there is a question to answer, or no more will
        self._to_watch = threading.Condition(lock)
        self._queues: OrderedDict[str, deque[_Question]] = OrderedDict()
        self._waiting = 0
        self._known: dict[Hashable, _Question] = {}  # the last of each key that is not answered
        self._running: set[_Question] = set()
        self._closed = False
        self._failures = 0
        self._opening = threading.Lock()
        self._database: duckdb.DuckDBPyConnection | None = None
        self._threads: list[threading.Thread] = []

    async def run(
        self,
        work: Callable[[Session], T],
        *,
        owner: str = "",
        key: Hashable = None,
        version: Hashable = None,
    ) -> T:
        """Return what work returns, done by a thread of the pool.

        owner: who asks; owners are served in turn. key: what is asked; who asks the same gets the
        same answer, if that is begun later, or of the same version of the data. Who is cancelled
        takes it from nobody else; if there is nobody else, it is stopped. Raises Overloaded when
        too much waits, QueryTimeout, QueryTooLarge, and what work raises.
        """
        question = self._ask(work, owner, key, version)
        answer = asyncio.wrap_future(question.answer)
        try:
            return cast(T, await asyncio.shield(answer))
        except asyncio.CancelledError:
            answer.add_done_callback(_hear)
            self._leave(question)
            raise

    def submit(
        self,
        work: Callable[[Session], T],
        owner: str = "",
        key: Hashable = None,
        version: Hashable = None,
    ) -> Future[T]:
        """Do what `run` does, for callers without an event loop."""
        return self._ask(work, owner, key, version).answer

    @property
    def waiting(self) -> int:
        """How many questions wait for a thread."""
        return self._waiting

    @property
    def running(self) -> int:
        """How many questions are being answered."""
        return len(self._running)

    @property
    def failures(self) -> int:
        """How many questions DuckDB could not answer; a damaged file may be why."""
        return self._failures

    def close(self) -> None:
        """Refuse new questions, answer those that wait, and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._to_watch.notify()
        for thread in self._threads:
            thread.join()
        if self._database is not None:
            self._database.close()
        shutil.rmtree(self._spill, ignore_errors=True)

    def _ask(
        self, work: Callable[[Session], Any], owner: str, key: Hashable, version: Hashable
    ) -> _Question:
        with self._changed:
            if self._closed:
                raise Overloaded("The server is shutting down; ask again.")
            same = self._known.get(key) if key is not None else None
            if same and (same not in self._running or same.version == version):
                same.askers += 1
                if same not in self._running:
                    same.asked_at = monotonic()
                return same
            if self._waiting >= self._config.queue_max:
                raise Overloaded("Too many questions wait to be answered; ask again later.")
            self._start()
            question = _Question(work, owner, key, version)
            self._queues.setdefault(owner, deque()).append(question)
            self._waiting += 1
            if key is not None:
                self._known[key] = question
            self._changed.notify()
            return question

    def _leave(self, question: _Question) -> None:
        """Do without one who asked; nobody else may be waiting for the answer."""
        with self._changed:
            question.askers -= 1
            if question.askers or question.answer.done():
                return
            self._forget(question)
            if question in self._running:
                self._to_watch.notify()
                return
            queue = self._queues[question.owner]
            queue.remove(question)
            if not queue:
                del self._queues[question.owner]
            self._waiting -= 1
            question.answer.cancel()

    def _forget(self, question: _Question) -> None:
        if self._known.get(question.key) is question:
            del self._known[question.key]

    def _start(self) -> None:
        # Not before it is needed: a server that only collects saves the memory.
        if self._threads:
            return
        self._threads = [
            threading.Thread(target=self._serve, name=f"mallard-query-{n}", daemon=True)
            for n in range(self._at_once + 1)
        ]
        watch = threading.Thread(target=self._watch, name="mallard-query-watch", daemon=True)
        self._threads.append(watch)
        for thread in self._threads:
            thread.start()

    # --- the pool's threads, from here on ---

    def _serve(self) -> None:
        while (question := self._next()) is not None:
            result, error = self._outcome(question)
            if monotonic() - question.begun >= RELEASE_SECONDS:
                pa.default_memory_pool().release_unused()
            # First this: who asks once the answer is there must get a new one.
            with self._changed:
                self._running.discard(question)
                self._forget(question)
                if self._closed:
                    self._to_watch.notify()
            if error is not None:
                question.answer.set_exception(error)
            else:
                question.answer.set_result(result)

    def _next(self) -> _Question | None:
        """Wait for a question, and begin to answer it; None when there will be no more."""
        with self._changed:
            while (rest := self._rest()) != 0:
                if self._closed and not self._queues:
                    return None
                self._changed.wait(rest)
            owner, queue = self._queues.popitem(last=False)
            question = queue.popleft()
            if queue:
                self._queues[owner] = queue  # behind the others
            self._waiting -= 1
            question.answer.set_running_or_notify_cancel()
            question.begun = monotonic()
            self._running.add(question)
            return question

    def _rest(self) -> float | None:
        """Return the seconds until the next question may be begun; None until something changes."""
        if not self._queues:
            return None
        quick = [each.begun for each in self._running if monotonic() - each.begun < SLOW_SECONDS]
        if len(quick) < self._at_once:
            return 0
        return max(min(quick) + SLOW_SECONDS - monotonic(), 0.001)

    def _outcome(self, question: _Question) -> tuple[Any, BaseException | None]:
        try:
            question.session = Session(self._open().cursor(), self._names, question.asked_at)
            with contextlib.closing(question.session) as session:
                return question.work(session), None
        except BaseException as error:  # noqa: BLE001 - the top of a thread: who asked is told
            return None, self._told(error, is_late=self._is_late(question))

    def _open(self) -> duckdb.DuckDBPyConnection:
        config = self._config
        with self._opening:
            if self._database is None:
                # DuckDB makes the last folder of a path, and no others.
                self._spill.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                settings = {
                    **_SETTINGS,
                    "memory_limit": f"{int(config.memory_bytes * _COUNTED_SHARE)}B",
                    "threads": str(config.threads),
                    "temp_directory": str(self._spill),
                }
                # Threads have the priority of the one that starts them.
                with ThreadPoolExecutor(1, initializer=_give_way) as opener:
                    opened = opener.submit(partial(duckdb.connect, config=settings))
                    database = opened.result()
                # DuckDB does not heed it where it is given with the others.
                database.execute(f"SET max_temp_directory_size = '{config.sql_spill_bytes}B'")
                self._database = database
            return self._database

    def _is_late(self, question: _Question) -> bool:
        return monotonic() >= question.begun + self._config.timeout_seconds

    def _watch(self) -> None:
        """Stop what takes too long, and what nobody waits for."""
        limit = self._config.timeout_seconds
        with self._to_watch:
            while not self._closed or self._waiting or self._running:
                meant = [each for each in self._running if self._is_late(each) or not each.askers]
                for question in meant:
                    if question.session is not None:
                        question.session.stop()
                first = min((each.begun for each in self._running), default=monotonic())
                rest = INTERRUPT_SECONDS if meant else first + limit - monotonic()
                self._to_watch.wait(max(rest, 0.001))

    def _told(self, error: BaseException, *, is_late: bool) -> BaseException:
        if is_late and isinstance(error, duckdb.Error | RuntimeError):
            return QueryTimeout(
                f"The answer took longer than {self._config.timeout_seconds:g} seconds; ask for "
                "less of time, or a simpler question."
            )
        if isinstance(error, duckdb.OutOfMemoryException):
            return QueryTooLarge(
                "The answer needs more memory than the server gives to one; ask for less of time, "
                "for fewer dimensions, or a simpler question."
            )
        if isinstance(error, duckdb.Error) and not isinstance(error, duckdb.InterruptException):
            self._failures += 1
        return error


def settle(connection: duckdb.DuckDBPyConnection, memory_bytes: int) -> None:
    """Have another database answer reports as the engine's does, within so much memory."""
    counted = {"memory_limit": f"{int(memory_bytes * _COUNTED_SHARE)}B"}
    for name, value in (_REPORTS | counted).items():
        connection.execute(f"SET {name} = '{value}'")


def _hear(answer: asyncio.Future[Any]) -> None:
    """Take note of an error that nobody waits for, or asyncio logs that nobody did."""
    if not answer.cancelled():
        answer.exception()


def _give_way() -> None:
    """Lower the priority of this thread, where threads have one."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(19, niceness + NICENESS))
