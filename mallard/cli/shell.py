"""`mallard shell`: SQL over everything stored, the log's tail included, in DuckDB's dialect.

It reads the data folder and takes no lock of it, so a server may run meanwhile, to which it gives
way where both want the processor. Before each statement it looks again, so that answers follow what
the server stores.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import get_terminal_size
from textwrap import indent
from typing import TypeVar

import duckdb

from mallard.cli.polite import give_way
from mallard.errors import InvalidInput
from mallard.query.events import add_macros, show_folder
from mallard.query.macros import EXAMPLES

_Result = TypeVar("_Result")

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


def shell(data: Path, sql: str | None, form: str) -> None:
    """Run one text of SQL and return, or without one talk until the input ends.

    form: "table" or "csv". Raises StorageError for what is no data folder, InvalidInput for
    wrong SQL.
    """
    give_way()
    connection = duckdb.connect()
    add_macros(connection)
    if not show_folder(connection, data):
        print(
            "Some stored events cannot be read and are missing here; "
            f"`mallard verify --data {data}` says which.",
            file=sys.stderr,
        )
    if sql is not None:
        _run(connection, data, sql, form)
        return
    if sys.stdin.isatty():
        import readline  # noqa: F401, PLC0415 - its import gives input() a memory and arrows

        print(f"Everything stored in {data}. .help helps, .quit leaves.")
    _talk(connection, data, form)


def _talk(connection: duckdb.DuckDBPyConnection, data: Path, form: str) -> None:
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
            _answer(connection, data, pending, form)
            pending = ""
    if pending.strip():
        _answer(connection, data, pending, form)


def _answer(connection: duckdb.DuckDBPyConnection, data: Path, sql: str, form: str) -> None:
    """Run statements on what is stored now; say what is wrong with them, and go on."""
    try:
        show_folder(connection, data)
        _run(connection, data, sql, form)
    except InvalidInput as error:
        print(error.detail, file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)


def _run(connection: duckdb.DuckDBPyConnection, data: Path, sql: str, form: str) -> None:
    try:
        for statement in connection.extract_statements(sql):
            if form == "csv":
                _print_csv(connection, data, statement)
            else:
                _print_table(connection, data, statement)
    except (duckdb.Error, RuntimeError) as error:  # RuntimeError: DuckDB was interrupted
        connection.abort()  # it takes nothing else while a result is unfinished
        raise InvalidInput(str(error)) from error


def _print_table(
    connection: duckdb.DuckDBPyConnection, data: Path, statement: duckdb.Statement
) -> None:
    width = get_terminal_size((TABLE_CHARACTERS, 0)).columns

    def show() -> None:
        connection.sql(statement).show(max_width=width, max_rows=TABLE_ROWS_MAX)

    _looking_again(connection, data, show)


def _print_csv(
    connection: duckdb.DuckDBPyConnection, data: Path, statement: duckdb.Statement
) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    rows = _looking_again(
        connection, data, lambda: connection.execute(statement).fetchmany(FETCH_ROWS)
    )
    writer.writerow(column[0] for column in connection.description or [])
    while rows:
        writer.writerows(rows)
        rows = connection.fetchmany(FETCH_ROWS)


def _looking_again(
    connection: duckdb.DuckDBPyConnection, data: Path, read: Callable[[], _Result]
) -> _Result:
    """Read; where a server has put other files in the place of those, read what is there now."""
    try:
        return read()
    except duckdb.IOException:
        connection.abort()
        show_folder(connection, data)
        return read()
