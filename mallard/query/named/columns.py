"""The columns of a report's rows: each with a name and a kind, whatever the rows are written as.

A row is an object as JSON has it. Flat, as CSV and the others have it, what is within a row has
dots in its column's name. Which columns there are hangs on what is asked and never on what is
answered, so that a report without rows has them too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pyarrow as pa

from mallard.query.forms import FORMULA_STARTS

Row = dict[str, Any]

_AMOUNT = pa.decimal128(38, 2)


class Kind(Enum):
    """What a column's values are; in JSON days and instants are texts (ISO 8601)."""

    TEXT = "text"
    WHOLE = "whole"
    NUMBER = "number"
    AMOUNT = "amount"  # of money, to the cent
    FLAG = "flag"
    DAY = "day"
    INSTANT = "instant"  # without an offset it is in the site's time zone
    TEXTS = "texts"  # in an order
    AMOUNTS = "amounts"  # an object: by currency
    OBJECT = "object"  # any other


_TYPES = {
    Kind.TEXT: pa.string(),
    Kind.WHOLE: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.AMOUNT: _AMOUNT,
    Kind.FLAG: pa.bool_(),
    Kind.DAY: pa.date32(),
    Kind.TEXTS: pa.list_(pa.string()),
    Kind.AMOUNTS: pa.map_(pa.string(), _AMOUNT),
    Kind.OBJECT: pa.string(),  # JSON
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of flat rows. path: where its value is in a row; () is by its name."""

    name: str
    kind: Kind
    path: tuple[str | int, ...] = ()

    def of(self, row: Row) -> Any:
        """Return the row's value; None where it has none."""
        if not self.path:
            return row.get(self.name)
        found: Any = row
        for step in self.path:
            if isinstance(step, int):
                found = found[step] if step < len(found) else None
            else:
                found = found.get(step)
            if found is None:
                return None
        return found


def columns(kind: Kind, *names: str) -> tuple[Column, ...]:
    """Return columns of one kind."""
    return tuple(Column(name, kind) for name in names)


def within(name: str, inner: Iterable[Column]) -> tuple[Column, ...]:
    """Return the columns of an object that a row has under a name."""
    return tuple(
        Column(f"{name}.{each.name}", each.kind, (name, *(each.path or (each.name,))))
        for each in inner
    )


def flat(row: Row, of: Sequence[Column]) -> Row:
    """Return a row with the values of columns by their names."""
    return {column.name: column.of(row) for column in of}


def cells(row: Row, of: Sequence[Column]) -> list[Any]:
    """Return a row's values as CSV has them; no text is one that a spreadsheet runs."""
    return [
        value if value is None or convert is None else convert(value)
        for column in of
        for value, convert in ((column.of(row), _CELLS.get(column.kind)),)
    ]


def schema(of: Sequence[Column], zone: ZoneInfo) -> pa.Schema:
    """Return the columns' Arrow schema. zone: in which instants are shown."""
    instant = pa.timestamp("us", tz=zone.key)
    return pa.schema([(each.name, _TYPES.get(each.kind, instant)) for each in of])


def table(rows: Sequence[Row], of: Sequence[Column], zone: ZoneInfo) -> pa.Table:
    """Return rows as an Arrow table of the columns' schema."""
    fields = schema(of, zone)
    arrays = [
        pa.array([_typed(column, row, zone) for row in rows], field.type)
        for column, field in zip(of, fields, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=fields)


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _json(value: dict[str, Any]) -> str:
    return orjson.dumps(value).decode()


_FORMULA_STARTS = tuple(FORMULA_STARTS)
_CELLS: dict[Kind, Callable[[Any], Any]] = {
    Kind.TEXT: _harmless,
    Kind.FLAG: lambda value: "true" if value else "false",
    Kind.TEXTS: lambda value: _harmless(" > ".join(value)),
    Kind.AMOUNTS: lambda value: _json(value) if value else None,
    Kind.OBJECT: lambda value: _json(value) if value else None,
}


def _typed(column: Column, row: Row, zone: ZoneInfo) -> Any:
    value = column.of(row)
    if value is None:
        return None
    if column.kind is Kind.INSTANT:
        instant = datetime.fromisoformat(value)
        return instant if instant.tzinfo else instant.replace(tzinfo=zone)
    convert = _CONVERTED.get(column.kind)
    return convert(value) if convert else value


def _amount(value: float) -> Decimal:
    return Decimal(f"{value:.2f}")


_CONVERTED: dict[Kind, Callable[[Any], Any]] = {
    Kind.NUMBER: float,
    Kind.AMOUNT: _amount,
    Kind.AMOUNTS: lambda value: [(name, _amount(each)) for name, each in value.items()],
    Kind.DAY: date.fromisoformat,
    Kind.OBJECT: _json,
}
