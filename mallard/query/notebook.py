"""A data folder in a notebook: `mallard.open("data").sql("FROM events")`, while the server runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import pyarrow as pa

from mallard.errors import InvalidInput
from mallard.query.events import add_macros, connect, show_folder


class Notebook:
    """Everything stored in a data folder, as it is whenever something is asked."""

    def __init__(self, data: str | Path) -> None:
        """Open the folder; raises StorageError when it is none."""
        self._data = Path(data)
        self._connection = connect()
        add_macros(self._connection)
        try:
            self._look()
        except BaseException:
            self._connection.close()
            raise

    def sql(self, query: str, params: dict[str, Any] | list[Any] | None = None) -> Result:
        """Return the rows of a query over `events`, `sessions` and the macros of `mallard shell`.

        params: values for `$name` or `?`. Raises InvalidInput for SQL that cannot run.
        """
        self._look()
        try:
            return Result(self._run(query, params))
        except duckdb.Error as error:
            self._connection.abort()
            raise InvalidInput(str(error)) from error

    @property
    def is_whole(self) -> bool:
        """Whether all that was stored can be read; `mallard verify` says what cannot."""
        return self._is_whole

    def close(self) -> None:
        """Let go of it."""
        self._connection.close()

    def __enter__(self) -> Notebook:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, query: str, params: dict[str, Any] | list[Any] | None) -> pa.Table:
        def read() -> pa.Table:
            found = self._connection.sql(query, params=params)
            return pa.table({}) if found is None else found.to_arrow_table()

        return self._looking_again(read)

    def _looking_again(self, read: Callable[[], pa.Table]) -> pa.Table:
        """Read; where a server has put other files in the place of those, read what is there."""
        try:
            return read()
        except (duckdb.IOException, OSError):
            self._connection.abort()
            self._look()
            return read()

    def _look(self) -> None:
        self._is_whole = show_folder(self._connection, self._data)


class Result:
    """Rows, as they were when they were asked for; polars and others take it as it is."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._table.column_names)

    def arrow(self) -> pa.Table:
        """Return them as an Arrow table."""
        return self._table

    def df(self) -> Any:
        """Return them as a pandas data frame; pandas must be installed."""
        return self._table.to_pandas()

    def pl(self) -> Any:
        """Return them as a polars data frame; polars must be installed."""
        return importlib.import_module("polars").from_arrow(self._table)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return them as tuples."""
        if not self.columns:  # of a statement that gives no rows
            return []
        with duckdb.connect() as connection:
            return connection.from_arrow(self._table).fetchall()

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the first of them; None where there is none."""
        return next(iter(Result(self._table.slice(0, 1)).fetchall()), None)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        if not self.columns:
            return "nothing"
        with duckdb.connect() as connection:
            return str(connection.from_arrow(self._table))

    def __arrow_c_stream__(self, schema: object = None) -> object:
        """Give them to whatever knows Arrow's PyCapsule interface."""
        return self._table.__arrow_c_stream__(schema)
