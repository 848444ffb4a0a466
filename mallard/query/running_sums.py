"""Sums that are added up while they are counted, in bounded memory however many groups they have.

Few groups are added up in Python, which takes less than it takes DuckDB to plan a statement. Once
they are many they are put into the database, which adds them up and spills to disk: the tables that
are in Python's memory at any time take some HELD_BYTES each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mallard.query.engine import Session
from mallard.query.sql import Sql
from mallard.query.sums import Addable, compact, narrowed, split, total

# To add tables up takes several times as much for a moment, and several questions may do so at once
# in what a server leaves to them beside DuckDB. It is some 110,000 groups of a common question: a
# year by city of a large site has 67,000, and what is larger than this is not kept.
HELD_BYTES = 12 * 2**20
# So few rows are read without a look at how much they are.
_FEW_ROWS = 20_000
_NUMBER_BYTES = 8
_INDEX_BYTES = 4
_READ = Sql("read_rows")  # of the query that was read last, until the session ends


def folded(question: Addable, tables: Iterable[pa.Table]) -> Iterator[tuple[pa.Table, int]]:
    """Yield what tables come to, in few tables; in one, if that is no more than may be held.

    With each comes of how many rows it was made.
    """
    held: list[pa.Table] = []
    size = rows = 0
    most = HELD_BYTES * 3 // 4
    for each in tables:
        table = each.select(question.schema.names)
        more = _bytes(table)
        if more > most:  # it was added up before
            yield total(question, [table]), table.num_rows
            continue
        held.append(table)
        size += more
        rows += table.num_rows
        if size > HELD_BYTES:
            whole = compact(question, question.lessened(total(question, held)))
            held, size = [whole], _bytes(whole)
            # It would soon be too much again, and take the longer to add up the more it is.
            if size > most:
                yield whole, rows
                held, size, rows = [], 0, 0
    if held:
        yield compact(question, total(question, held)), rows


class RunningSums:
    """What is known so far of the sums that answer a question."""

    def __init__(self, session: Session, question: Addable) -> None:
        self._session = session
        self._question = question
        self._held: pa.Table | None = None
        self._made: Sql | None = None

    def add(self, tables: Iterable[pa.Table]) -> None:
        """Add tables, with the columns of the question's `schema`, each as it comes."""
        for table, _ in folded(self._question, tables):
            if self._held is not None:
                self._put(self._held)
            self._held = table

    def add_query(self, query: Sql) -> None:
        """Add what a query gives, in columns of the `schema`: in the database, where it stays."""
        if self._made is None:
            self._made = self._empty()
        columns = ", ".join(self._question.schema.names)
        self._session.cursor.execute(f"INSERT INTO {self._made} SELECT {columns} FROM ({query})")

    @property
    def are_large(self) -> bool:
        """Whether they are in the database, as they are too many to be held."""
        return self._made is not None

    @property
    def part_bytes_max(self) -> int:
        """How large a part of a large result is to be held; the rest goes into the database.

        Once they are there themselves it all does: it will hardly be asked for again.
        """
        return 0 if self.are_large else HELD_BYTES

    def result(self) -> pa.Table | Sql:
        """Return the sums, or the name of a table of the database that has them."""
        schema = self._question.schema
        if self._made is None:
            return schema.empty_table() if self._held is None else self._held.cast(schema)
        if self._held is not None:
            self._put(self._held)
        keys = schema.names[: -self._question.numbers]
        numbers = schema.names[-self._question.numbers :]
        sums = ", ".join(f"sum({each}) AS {each}" for each in numbers)
        listed = ", ".join(keys)
        made = self._empty()
        self._session.cursor.execute(
            f"INSERT INTO {made} SELECT {listed}, {sums} FROM {self._made} GROUP BY {listed}"
        )
        self._session.cursor.execute(f"DROP TABLE {self._made}")
        return made

    def _put(self, table: pa.Table) -> None:
        taken = self._session.take(table)
        self.add_query(Sql(f"FROM {taken}"))
        self._session.let_go(taken)

    def _empty(self) -> Sql:
        empty = self._session.take(self._question.schema.empty_table())
        return self._session.made(Sql(f"FROM {empty}"))


def read(
    session: Session,
    query: Sql,
    rows: int,
    column: str,
    numbers: Sequence[int],
    part_bytes_max: int,
) -> Iterator[pa.Table | Sql]:
    """Yield for each of numbers a query's rows that have it in a column, without that column.

    Where these are too large to be held it is a query for them, to be used before the next is asked
    for. rows: what the query reads, about. part_bytes_max: of a result that is too large as a whole
    so large parts are held.
    """
    if rows <= _FEW_ROWS:
        yield from split(session.table(query), column, {each: each for each in numbers}).values()
        return
    session.cursor.execute(f"CREATE OR REPLACE TEMP TABLE {_READ} AS {query}")
    columns = session.rows(Sql(f"SELECT column_name, column_type FROM (DESCRIBE {_READ})"))
    texts = [f"coalesce(strlen({name}), 0)" for name, kind in columns if kind == "VARCHAR"]
    size = " + ".join([str(_NUMBER_BYTES * len(columns)), *texts])
    sizes = dict(session.rows(Sql(f"SELECT {column}, sum({size}) FROM {_READ} GROUP BY {column}")))
    if sum(sizes.values()) <= HELD_BYTES:
        table = session.table(Sql(f"FROM {_READ}"))
        yield from split(table, column, {each: each for each in numbers}).values()
        return
    for number in numbers:
        own = Sql(f"SELECT * EXCLUDE ({column}) FROM {_READ} WHERE {column} = {int(number)}")
        yield own if sizes.get(number, 0) > part_bytes_max else narrowed(session.table(own))


def _bytes(table: pa.Table) -> int:
    """Return what a table takes once its numbers are wide."""
    size = 0
    for column in table.columns:
        if pa.types.is_dictionary(column.type):
            texts = sum(chunk.dictionary.nbytes for chunk in column.chunks)
            size += _INDEX_BYTES * len(column) + texts
        else:
            size += _NUMBER_BYTES * len(column)
            if column.type == pa.string():
                size += pc.sum(pc.binary_length(column)).as_py() or 0
    return int(size)
