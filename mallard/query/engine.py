"""Runs queries on DuckDB: few at once, each within its time and all within one bound of memory.

Who asks is served in turn, so that one with many questions does not keep others waiting. A question
that is being answered already is not asked again: both get the one answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import duckdb
import pyarrow as pa

from mallard.config import QueryConfig
from mallard.errors import Overloaded, QueryTimeout, QueryTooLarge
from mallard.query.sql import Params, Sql

SPILLED = "tmp/query"  # in the data folder
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "preserve_insertion_order": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}

T = TypeVar("T")


class Session:
    """What one question may do with DuckDB: run statements and read whole results."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, names: itertools.count[int]) -> None:
        self._cursor = cursor
        self._names = names
        self._registered: list[str] = []

    def rows(self, sql: Sql, params: Params | None = None) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        return self._cursor.execute(sql, params.values if params else None).fetchall()

    def table(self, sql: Sql, params: Params | None = None) -> pa.Table:
        """Return a query's result as an Arrow table."""
        return self._cursor.sql(sql, params=params.values if params else None).to_arrow_table()

    def take(self, table: pa.Table) -> Sql:
        """Make an Arrow table one that queries of this session can name; return its name."""
        name = f"taken_{next(self._names)}"
        self._cursor.register(name, table)
        self._registered.append(name)
        return Sql(name)

    def view(self, name: str, sql: Sql) -> None:
        """Give a query a name that others of this session can use; the last meaning counts."""
        self._cursor.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")

    @property
    def cursor(self) -> duckdb.DuckDBPyConnection:
        """The cursor, for statements that make things and give nothing back."""
        return self._cursor

    def close(self) -> None:
        """Let go of everything."""
        for name in self._registered:
            with contextlib.suppress(duckdb.Error):
                self._cursor.unregister(name)
        self._cursor.close()


@dataclass(slots=True)
class _Waiting:
    work: Callable[[Session], Any]
    key: Hashable
    answer: Future[Any] = field(default_factory=Future)


class Engine:
    """A bounded pool of threads over one DuckDB database in memory."""

    def __init__(self, config: QueryConfig, data: Path) -> None:
        """Make a pool that starts with its first question.

        data: the data folder, which takes what does not fit in memory.
        """
        self._config = config
        self._spill = data / SPILLED
        shutil.rmtree(self._spill, ignore_errors=True)
        self._names = itertools.count()
        self._lock = threading.Condition()
        self._queues: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._waiting = 0
        self._under_way: dict[Hashable, Future[Any]] = {}
        self._closed = False
        self._threads: list[threading.Thread] = []

    async def run(
        self, work: Callable[[Session], T], *, owner: str = "", key: Hashable = None
    ) -> T:
        """Return what work returns, done by a thread of the pool.

        owner: who asks; owners are served in turn. key: what is asked and of which data; who asks
        the same while it is under way gets the same answer. Raises Overloaded when too much waits,
        QueryTimeout, QueryTooLarge, and what work raises.
        """
        # Shielded: one who goes away does not take the answer from the others.
        return cast(T, await asyncio.shield(asyncio.wrap_future(self.submit(work, owner, key))))

    def submit(
        self, work: Callable[[Session], T], owner: str = "", key: Hashable = None
    ) -> Future[T]:
        """Do what `run` does, for callers without an event loop."""
        with self._lock:
            if self._closed:
                raise Overloaded("The server is shutting down; ask again.")
            if key is not None and key in self._under_way:
                return self._under_way[key]
            if self._waiting >= self._config.queue_max:
                raise Overloaded("Too many questions wait to be answered; ask again later.")
            self._start()
            item = _Waiting(work, key)
            self._queues.setdefault(owner, deque()).append(item)
            self._waiting += 1
            if key is not None:
                self._under_way[key] = item.answer
            self._lock.notify()
            return item.answer

    @property
    def waiting(self) -> int:
        """How many questions wait for a thread."""
        return self._waiting

    def close(self) -> None:
        """Refuse new questions, answer those that wait, and stop."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        for thread in self._threads:
            thread.join()
        if self._threads:
            self._database.close()
        shutil.rmtree(self._spill, ignore_errors=True)

    def _start(self) -> None:
        # Not before it is needed: a server that only collects saves the memory.
        if self._threads:
            return
        config = self._config
        # DuckDB makes the last folder of a path, and no others.
        self._spill.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._database = duckdb.connect(
            config={
                **_SETTINGS,
                "memory_limit": f"{config.memory_bytes}B",
                "threads": str(config.threads),
                "temp_directory": str(self._spill),
            }
        )
        self._threads = [
            threading.Thread(target=self._serve, name=f"mallard-query-{n}", daemon=True)
            for n in range(config.workers)
        ]
        for thread in self._threads:
            thread.start()

    # --- the pool's threads, from here on ---

    def _serve(self) -> None:
        while (item := self._next()) is not None:
            result, error = None, None
            if item.answer.set_running_or_notify_cancel():
                result, error = self._outcome(item)
            # First this: who asks once the answer is there must get a new one.
            with self._lock:
                self._under_way.pop(item.key, None)
            if item.answer.cancelled():
                continue
            if error is not None:
                item.answer.set_exception(error)
            else:
                item.answer.set_result(result)

    def _next(self) -> _Waiting | None:
        with self._lock:
            while not self._queues:
                if self._closed:
                    return None
                self._lock.wait()
            owner, queue = self._queues.popitem(last=False)
            item = queue.popleft()
            if queue:
                self._queues[owner] = queue  # behind the others
            self._waiting -= 1
            return item

    def _outcome(self, item: _Waiting) -> tuple[Any, BaseException | None]:
        session = Session(self._database.cursor(), self._names)
        late = threading.Event()
        limit = threading.Timer(self._config.timeout_seconds, _stop, (session.cursor, late))
        limit.daemon = True
        limit.start()
        try:
            return item.work(session), None
        except BaseException as error:  # noqa: BLE001 - the top of a thread: who asked is told
            return None, self._told(error, late)
        finally:
            limit.cancel()
            session.close()

    def _told(self, error: BaseException, late: threading.Event) -> BaseException:
        if late.is_set() and isinstance(error, duckdb.Error | RuntimeError):
            return QueryTimeout(
                f"The answer took longer than {self._config.timeout_seconds:g} seconds; ask for "
                "less of time, or a simpler question."
            )
        if isinstance(error, duckdb.OutOfMemoryException):
            return QueryTooLarge(
                "The answer needs more memory than the server gives to one; ask for less of time, "
                "or a simpler question."
            )
        return error


def _stop(cursor: duckdb.DuckDBPyConnection, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(duckdb.Error):
        cursor.interrupt()


class Kept:
    """Tables by key, the least recently used of which go when they take too many bytes."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._tables: OrderedDict[Hashable, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> pa.Table | None:
        """Return a table that is kept."""
        with self._lock:
            table = self._tables.get(key)
            if table is not None:
                self._tables.move_to_end(key)
            return table

    def keep(self, tables: Mapping[Hashable, pa.Table]) -> None:
        """Keep tables; one that is larger than all may be is not."""
        with self._lock:
            for key, table in tables.items():
                self._forget(key)
                self._tables[key] = table
                self._bytes += _size(table)
            while self._bytes > self._bytes_max:
                self._forget(next(iter(self._tables)))

    @property
    def size_bytes(self) -> int:
        """What they take."""
        return self._bytes

    def _forget(self, key: Hashable) -> None:
        table = self._tables.pop(key, None)
        if table is not None:
            self._bytes -= _size(table)


def _size(table: pa.Table) -> int:
    return int(table.get_total_buffer_size()) + 1_000  # what Python takes for it, about
