"""Tables of sums: what groups have of each `Quantity`, split into pieces, kept small, and added up.

A table has the values of a grouping's dimensions, a currency and the quantities, in columns of
these names; and, once it is known what it is for, the number of its bucket.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from mallard.query.dimensions import By
from mallard.query.filters import Filter, is_of_visits
from mallard.query.metrics import MONEY, Level, Quantity, quantities

_MANY_ROWS = 50_000
_SUMS_AT_ONCE = 2
# What a number of 64 bits can be kept as, and what does not fit any more.
_NARROW = ((pa.int8(), 2**7), (pa.int16(), 2**15), (pa.int32(), 2**31))

K = TypeVar("K", bound=Hashable)


class Addable(Hashable, Protocol):
    """A question of a site whose answers to some site-days add up to that of all of them."""

    @property
    def site_id(self) -> str:
        """The site it is asked of."""

    @property
    def as_of_us(self) -> int | None:
        """An instant, to count what was stored then; None for now."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of its sums: a bucket, what else they are by, and the numbers."""

    @property
    def numbers(self) -> int:
        """How many of the columns, the last ones, are numbers."""

    def lessened(self, sums: pa.Table) -> pa.Table:
        """Return sums of some days without what need not be known of them; they still add up."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """What is summed up: a site's events that fit a filter, by the values of dimensions.

    as_of_us: an instant, to count what was stored then; None for now. money: whether what came in
    is summed up, rather than what happened. level: how much of the latter; sums of a higher one
    serve as well, so it does not tell two groupings apart.
    """

    site_id: str
    by: tuple[By, ...] = ()
    keep: Filter | None = None
    as_of_us: int | None = None
    money: bool = False
    level: Level = field(default=Level.ENGAGEMENT, compare=False)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What is summed up."""
        return MONEY if self.money else quantities(self.level)

    @property
    def is_of_visits(self) -> bool:
        """Whether whole visits say what of them is summed up, without a look at their events."""
        of_visits = is_of_visits(self.keep) and all(each.scope == "visit" for each in self.by)
        return of_visits and not self.money and self.level <= Level.VISITS

    @property
    def schema(self) -> pa.Schema:
        """The columns of its sums."""
        return pa.schema(
            [
                ("bucket", pa.int32()),
                *((str(each.column), pa.string()) for each in self.by),
                ("currency", pa.string()),
                *((each.value, each.type) for each in self.quantities),
            ]
        )

    @property
    def numbers(self) -> int:
        """How many of them are numbers."""
        return len(self.quantities)

    def lessened(self, sums: pa.Table) -> pa.Table:
        """Return sums as they are: any group may be asked for."""
        return sums


def total(question: Addable, tables: Sequence[pa.Table]) -> pa.Table:
    """Return the sums of each bucket and group that tables have together."""
    schema = question.schema
    if not tables:
        return schema.empty_table()
    if len(tables) == 1:  # each of its groups is one row
        return tables[0].select(schema.names).cast(schema)
    # Columns that were narrowed are not equally so: the widest of each. Their sums are not narrow.
    rows = pa.concat_tables(
        _alike([each.select(schema.names) for each in tables]), promote_options="permissive"
    ).unify_dictionaries()
    keys, numbers = schema.names[: -question.numbers], schema.names[-question.numbers :]
    kept = {each.name for each in rows.schema if pa.types.is_dictionary(each.type)}
    kept |= {name for name in numbers if not pa.types.is_null(rows.schema.field(name).type)}
    rows = rows.cast(
        pa.schema(
            [(rows if each.name in kept else question).schema.field(each.name) for each in schema]
        )
    )
    # Not by DuckDB: to plan a statement takes longer than all of this does of a month's sums.
    return pa.table(_added(rows, keys, numbers)).cast(schema)


def _added(
    rows: pa.Table, keys: Sequence[str], numbers: Sequence[str]
) -> dict[str, pa.ChunkedArray]:
    """Return the columns of each group once, its numbers added up."""
    grouped = rows.group_by(list(keys), use_threads=False)
    # Arrow takes seven times the memory of each sum while it is made. Of many groups few sums are
    # made at once; the groups come in the same order each time, as no threads are used.
    at_once = _SUMS_AT_ONCE if rows.num_rows > _MANY_ROWS else len(numbers)
    columns: dict[str, pa.ChunkedArray] = {}
    for first in range(0, len(numbers), at_once):
        some = numbers[first : first + at_once]
        added = grouped.aggregate([(each, "sum") for each in some])
        columns = columns or {key: added[key] for key in keys}
        columns |= {each: added[f"{each}_sum"] for each in some}
    return columns


def _alike(tables: Sequence[pa.Table]) -> Sequence[pa.Table]:
    """Return tables with their texts alike: if some are numbers of texts, all are.

    To tell numbers apart takes a fraction of what it takes to tell texts apart. The numbers have to
    be those of `encoded`: it leaves 0 where a text is null. `group_by` leaves there what is no
    number of a text, and Arrow then reads past the texts when they are made one.
    """
    if not any(pa.types.is_dictionary(kind) for each in tables for kind in each.schema.types):
        return tables
    return [_with_wide_numbers(encoded(each)) for each in tables]


def _with_wide_numbers(table: pa.Table) -> pa.Table:
    wide = pa.dictionary(pa.int32(), pa.string())
    return table.cast(
        pa.schema(
            [
                each.with_type(wide) if pa.types.is_dictionary(each.type) else each
                for each in table.schema
            ]
        )
    )


def in_bucket(table: pa.Table, number: int) -> pa.Table:
    """Return sums with the number of their bucket; those that have one are moved up by it."""
    if "bucket" in table.column_names:
        place = table.column_names.index("bucket")
        moved = pc.add(pc.cast(table["bucket"], pa.int32()), pa.scalar(number, pa.int32()))
        return table.set_column(place, "bucket", moved)
    bucket = pa.repeat(pa.scalar(number, pa.int32()), table.num_rows)
    return table.append_column("bucket", bucket)


def has_all(question: Addable, table: pa.Table) -> bool:
    """Whether a table that was kept has all numbers a question asks for."""
    return set(question.schema.names[-question.numbers :]) <= set(table.column_names)


def split(table: pa.Table, column: str, names: Mapping[object, K]) -> dict[K, pa.Table]:
    """Return the rows of each name that a column has, in tables of their own without it."""
    values = table[column].combine_chunks()
    order = pc.sort_indices(values)
    # Python looks at each value once, not at each row's.
    runs = pc.run_end_encode(values.take(order))
    rows = narrowed(table.drop_columns([column])).combine_chunks()
    found: dict[K, pa.Table] = {}
    start = 0
    for value, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        name = names.get(value)
        if name is not None:
            # A copy: a slice would keep the whole table in memory.
            found[name] = rows.take(order.slice(start, end - start))
        start = end
    empty = rows.slice(0, 0)
    return {name: found.get(name, empty) for name in names.values()}


def narrowed(table: pa.Table) -> pa.Table:
    """Return a table with each number in the fewest bytes that hold all of its column."""
    return pa.table({name: _narrow(table[name]) for name in table.column_names})


def encoded(table: pa.Table) -> pa.Table:
    """Return a table with each of its texts once, and numbers of them in its columns."""
    names = [name for name in table.column_names if table[name].type == pa.string()]
    if not names:
        return table
    texts = pa.concat_arrays([table[name].combine_chunks() for name in names]).dictionary_encode()
    numbers = texts.indices
    if len(texts.dictionary) < 2**15:
        numbers = numbers.cast(pa.int16())
    for place, name in enumerate(names):
        own = numbers.slice(place * table.num_rows, table.num_rows)
        column = pa.DictionaryArray.from_arrays(own, texts.dictionary)
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def compact(question: Addable, table: pa.Table) -> pa.Table:
    """Return a table with each text once, if groups have several: the same ones come many times."""
    keys = list(question.schema)[: -question.numbers]
    texts = [each for each in keys if each.type == pa.string() and each.name != "currency"]
    return encoded(table) if len(texts) > 1 else table


def packed(table: pa.Table) -> pa.Table:
    """Return a table in the least memory, for a long time; `unpacked` undoes it."""
    narrow = narrowed(table)
    short = encoded(narrow)
    is_less = short.get_total_buffer_size() < narrow.get_total_buffer_size()
    return short if is_less else narrow


def unpacked(table: pa.Table) -> pa.Table:
    """Return a table whose texts are texts again."""
    fields = [
        field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _narrow(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column))])
    if not pa.types.is_integer(column.type):
        return column
    ends = pc.min_max(column).as_py()
    for narrow, limit in _NARROW:
        if (
            narrow.bit_width < column.type.bit_width
            and -limit <= ends["min"]
            and ends["max"] < limit
        ):
            return column.cast(narrow)
    return column
