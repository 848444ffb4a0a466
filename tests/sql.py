"""A query in a DuckDB of its own."""

from __future__ import annotations

from typing import Any

import duckdb


def ask(query: str, parameters: object = None) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with duckdb.connect() as connection:
        rows: list[tuple[Any, ...]] = connection.execute(query, parameters).fetchall()
        return rows
