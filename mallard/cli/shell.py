"""`mallard shell`: SQL over everything stored, the log's tail included, in DuckDB's dialect.

It reads the data folder and takes no lock of it, so a server may run meanwhile, to which it gives
way where both want the processor. Before each statement it looks again, so that answers follow what
the server stores.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import datetime
from functools import partial
from io import StringIO
from pathlib import Path
from shutil import get_terminal_size
from textwrap import indent
from typing import TypeVar

import duckdb

from mallard.errors import InvalidInput
from mallard.processes import pausing, take_idle_time
from mallard.query.events import add_macros, connect, show_folder
from mallard.query.macros import EXAMPLES
from mallard.query.period import micros

_Result = TypeVar("_Result")
_Look = Callable[[], bool]

PROMPT = "mallard> "
CONTINUED = "    ...> "
TABLE_ROWS_MAX = 1_000  # of a table; csv has no limit
TABLE_CHARACTERS = 160  # where no terminal says how wide it is
FETCH_ROWS = 10_000
HELP = "\n".join(
    [
        "Statements are DuckDB's SQL and end with a semicolon. `events` has a row an event,",
        "`sessions` a row a visit. Of a period the first day is in it, the last is not (UTC).",
        "  SELECT hostname, count(*) FROM events GROUP BY ALL ORDER BY ALL;",
        indent(EXAMPLES, "  "),
        "  DESCRIBE events;                         its columns",
        "  COPY (FROM events) TO 'events.parquet';  everything, elsewhere",
        ".tables  what can be read     .help  this     .quit  leave",
    ]
)


def shell(data: Path, sql: str | None, form: str, as_of: datetime | None = None) -> None:
    """Run one text of SQL and return, or without one talk until the input ends.

    form: "table" or "csv". as_of: an instant, to see what was stored then. Raises StorageError
    for what is no data folder, InvalidInput for wrong SQL.
    """
    take_idle_time()
    connection = connect()
    add_macros(connection)
    as_of_us = None if as_of is None else micros(as_of)
    look = partial(show_folder, connection, data, as_of_us)
    if not look():
        print(
            "Some stored events cannot be read and are missing here; "
            f"`mallard verify --data {data}` says which.",
            file=sys.stderr,
        )
    if sql is not None:
        _run(connection, look, sql, form)
        return
    if sys.stdin.isatty():
        import readline  # noqa: F401, PLC0415 - its import gives input() a memory and arrows

        print(f"Everything stored in {data}. .help helps, .quit leaves.")
    _talk(connection, look, form)


def _talk(connection: duckdb.DuckDBPyConnection, look: _Look, form: str) -> None:
    pending = ""
    while True:
        try:
            line = input(CONTINUED if pending else PROMPT) if sys.stdin.isatty() else input()
        except EOFError:
            break
        except KeyboardInterrupt:  # forgets what was typed, as shells do
            print()
            pending = ""
            continue
        if not pending and line.startswith("."):
            if line.strip() == ".quit":
                break
            if line.strip() != ".tables":
                print(HELP)
                continue
            line = "SHOW TABLES;"
        pending = f"{pending}\n{line}" if pending else line
        if pending.rstrip().endswith(";"):
            _answer(connection, look, pending, form)
            pending = ""
    if pending.strip():
        _answer(connection, look, pending, form)


def _answer(connection: duckdb.DuckDBPyConnection, look: _Look, sql: str, form: str) -> None:
    """Run statements on what is stored now; say what is wrong with them, and go on."""
    try:
        look()
        _run(connection, look, sql, form)
    except InvalidInput as error:
        print(error.detail, file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)


def _run(connection: duckdb.DuckDBPyConnection, look: _Look, sql: str, form: str) -> None:
    try:
        for statement in connection.extract_statements(sql):
            if form == "csv":
                _print_csv(connection, look, statement)
            else:
                _print_table(connection, look, statement)
    except (duckdb.Error, RuntimeError) as error:  # RuntimeError: DuckDB was interrupted
        connection.abort()  # it takes nothing else while a result is unfinished
        raise InvalidInput(str(error)) from error


def _print_table(
    connection: duckdb.DuckDBPyConnection, look: _Look, statement: duckdb.Statement
) -> None:
    width = get_terminal_size((TABLE_CHARACTERS, 0)).columns

    def table() -> str:  # nothing is written within pauses
        with redirect_stdout(StringIO()) as text:
            connection.sql(statement).show(max_width=width, max_rows=TABLE_ROWS_MAX)
        return text.getvalue()

    print(_looking_again(connection, look, table), end="")


def _print_csv(
    connection: duckdb.DuckDBPyConnection, look: _Look, statement: duckdb.Statement
) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    rows = _looking_again(
        connection, look, lambda: connection.execute(statement).fetchmany(FETCH_ROWS)
    )
    writer.writerow(column[0] for column in connection.description or [])
    while rows:
        writer.writerows(rows)
        with pausing():  # not while it writes, nor while it looks
            rows = connection.fetchmany(FETCH_ROWS)


def _looking_again(
    connection: duckdb.DuckDBPyConnection, look: _Look, read: Callable[[], _Result]
) -> _Result:
    """Read; where a server has put other files in the place of those, read what is there now."""
    try:
        with pausing():
            return read()
    except duckdb.IOException:
        connection.abort()
        look()
        with pausing():
            return read()
