"""One query in a process of its own: what `query/sandbox.py` starts, asks once and reads.

The process reads a task from its standard input, writes rows to its standard output, and what came
of it to another pipe. It opens the files it was told to, and before SQL of somebody else's runs, it
gives up opening any others.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import duckdb
import orjson
import pyarrow as pa

from mallard.errors import CorruptData, InvalidInput, NotFound, QueryTooLarge
from mallard.processes import give_way
from mallard.query.confined import Reading, show_reading
from mallard.query.forms import Form, write
from mallard.query.macros import MACROS
from mallard.query.permitted import Permission
from mallard.query.sql import Sql, literal

# A process that waits to be asked goes when nobody does.
IDLE_SECONDS = 300
NICENESS = 5  # of 19: a server that wants the core too gets most of it
# What Python, DuckDB and Arrow take beside what DuckDB counts.
OVERHEAD_BYTES = 448 * 1024 * 1024
_OUTPUT_BYTES = 256 * 1024
# DuckDB's own words, which Arrow passes on in exceptions of its own.
_SAID = re.compile(r"(?:^|: )(?P<kind>[A-Z][A-Za-z ]+) Error: ", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process may take. seconds: after which it ends itself, if nobody ended it before."""

    memory_bytes: int
    threads: int
    seconds: float
    spill: str
    spill_bytes: int


class Work(Protocol):
    """What a process does. is_foreign: whether it runs SQL of somebody else's."""

    @property
    def limits(self) -> Limits:
        """What it may take."""

    @property
    def is_foreign(self) -> bool:
        """See above."""

    def answer(self, connection: duckdb.DuckDBPyConnection, output: BinaryIO) -> dict[str, Any]:
        """Write rows, and return what came of it, JSON-able: `rows`, or `error`."""


@dataclass(frozen=True, slots=True)
class Task:
    """SQL that is asked.

    queries: all with the same columns; is_foreign: of somebody else's, one. rows_max: with more it
    fails; None: any number.
    """

    reading: Reading
    queries: tuple[str, ...]
    form: Form
    limits: Limits
    is_foreign: bool
    rows_max: int | None = None

    def answer(self, connection: duckdb.DuckDBPyConnection, output: BinaryIO) -> dict[str, Any]:
        """Write the rows, and return how many they are and their columns.

        Raises CorruptData for a file that cannot be read.
        """
        try:
            return _answer(connection, self, output)
        except duckdb.Error as error:
            text = str(error)
            files = (*self.reading.sources, *self.reading.copied)
            # SQL of somebody else's can name no file: what is told of one is not of that SQL.
            if any(file in text for file in files):
                raise CorruptData(text.partition("\n")[0]) from error
            raise


def run(task: Work, output: BinaryIO) -> dict[str, Any]:
    """Do a task, and return what came of it: `rows` and more, or `error` and what it says."""
    try:
        with connect(task.limits) as connection:
            return task.answer(connection, output)
    except (InvalidInput, QueryTooLarge, NotFound) as error:
        field = error.field or ("sql" if task.is_foreign else None)
        told = {"detail": error.detail, "field": field, "rule": error.rule}
        return {"error": "invalid", "kind": type(error).__name__, **told}
    except CorruptData as error:
        return {"error": "failed", "detail": error.detail}
    except BrokenPipeError:
        raise
    except (MemoryError, duckdb.OutOfMemoryException):
        return {"error": "memory"}
    except (duckdb.Error, pa.ArrowException, OSError, RuntimeError) as error:
        return _told(error, is_foreign=task.is_foreign)


def _answer(connection: duckdb.DuckDBPyConnection, task: Task, output: BinaryIO) -> dict[str, Any]:
    show_reading(connection, task.reading)
    for statement in MACROS:
        connection.execute(statement)
    queries = tuple(Sql(query) for query in task.queries)
    if task.is_foreign:
        queries = tuple(Permission(connection).check(query) for query in queries)
        _lock(connection, task.reading)
    if task.rows_max is not None:
        queries = tuple(
            Sql(f"SELECT * FROM (\n{query}\n) LIMIT {task.rows_max + 1}") for query in queries
        )
    found = connection.sql(queries[0])
    columns = [
        {"name": column, "type": str(kind)}
        for column, kind in zip(found.columns, found.types, strict=True)
    ]
    rows = write(connection, queries, task.form, output)
    output.flush()
    if task.rows_max is not None and rows > task.rows_max:
        return {"error": "rows"}
    return {"rows": rows, "columns": columns}


@contextlib.contextmanager
def connect(limits: Limits) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a database in memory that keeps to its limits and opens no more than it is asked to."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{limits.memory_bytes}B",
        "threads": str(limits.threads),
        "temp_directory": limits.spill,
        "enable_external_file_cache": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
    }
    with duckdb.connect(config=settings) as connection:
        # Instants with a zone are written in this one.
        connection.execute("SET TimeZone = 'UTC'")
        # DuckDB does not heed it where it is given with the others.
        connection.execute(f"SET max_temp_directory_size = '{limits.spill_bytes}B'")
        yield connection


def _lock(connection: duckdb.DuckDBPyConnection, reading: Reading) -> None:
    """Give up all files but those that are read where they lie, and all changes of settings."""
    listed = ", ".join(map(literal, sorted(reading.sources)))
    connection.execute(f"SET allowed_paths = [{listed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET lock_configuration = true")


def _told(error: Exception, *, is_foreign: bool) -> dict[str, Any]:
    text = str(error)
    found = _SAID.search(text)
    kind = found["kind"] if found else ""
    if kind == "Out of Memory" or isinstance(error, pa.ArrowMemoryError):
        return {"error": "memory"}
    # Of files nobody is told but the log; and SQL of our own is no mistake of the asker's.
    hidden = {"", "IO", "Internal", "Fatal", "Serialization", "Permission"}
    if is_foreign and (kind not in hidden or isinstance(error, pa.ArrowNotImplementedError)):
        return _refused(text[found.start("kind") if found else 0 :])
    if is_foreign and kind == "Permission":
        return _refused("SQL reads the views events and sessions alone.")
    return {"error": "failed", "detail": f"{type(error).__name__} {kind}".strip()}


def _refused(detail: str) -> dict[str, Any]:
    return {"error": "invalid", "kind": InvalidInput.__name__, "detail": detail, "field": "sql"}


def _limit(limits: Limits) -> None:
    """Have the system hold this process to its limits, whatever is wrong with DuckDB's own."""
    for what, asked in (
        (resource.RLIMIT_DATA, limits.memory_bytes + OVERHEAD_BYTES),
        (resource.RLIMIT_CPU, int(limits.seconds * limits.threads) + 5),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        most = asked if hard == resource.RLIM_INFINITY else min(asked, hard)
        resource.setrlimit(what, (most, most))
    signal.alarm(int(limits.seconds) + 5)


def _rows() -> BinaryIO:
    """Return the standard output, which nothing else reaches from then on.

    DuckDB, which takes a program without a file for somebody at a terminal, shows them there how
    far it is.
    """
    output = os.fdopen(os.dup(1), "wb", buffering=_OUTPUT_BYTES)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return output


def main() -> None:
    """Read one task, do it, and say what came of it."""
    status = int(sys.argv[1])
    give_way(NICENESS)
    signal.alarm(IDLE_SECONDS)
    try:
        task: Work = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    except EOFError:  # nobody asked
        return
    _limit(task.limits)
    with _rows() as output:
        result = run(task, output)
        output.flush()
    os.write(status, orjson.dumps(result))
    # At once: there is nothing to tidy up, and the rest of DuckDB's threads may take their time.
    os._exit(0)
