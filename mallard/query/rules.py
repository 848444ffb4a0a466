"""Rules: which events are dropped or changed by a decision made after they were stored.

A rule is about events up to its last position; it filters every read until its parts are rewritten.
Invariants: rules apply in the order they were made in. Applying one twice is applying it once, so
it makes no difference which of the parts are rewritten already.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from hashlib import sha256
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from mallard.errors import CorruptData, InvalidInput
from mallard.event import ARROW_SCHEMA, INT64_MAX, INT64_MIN, Event
from mallard.query.sql import Sql, literal, name
from mallard.store.snapshot import Rule

FORMAT = 1
OPERATORS = ("is", "is_not", "contains", "matches")
# Each becomes part of every query's text: so many cost a query a tenth of a second.
VALUES_MAX = 10_000  # of one condition
MAPPED_MAX = 1_000  # of a mapping
VALUE_LENGTH_MAX = 4_096
_VISITOR = re.compile(r"[0-9a-fA-F]{16}")
# What events can be told apart by. Instants and money are left out: dates say when.
_NUMBERS = {field.name for field in ARROW_SCHEMA if pa.types.is_integer(field.type)}
_FLAGS = {field.name for field in ARROW_SCHEMA if pa.types.is_boolean(field.type)}
_TEXTS = {field.name for field in ARROW_SCHEMA if field.type == pa.string()}
COLUMNS = frozenset(Event._fields) & (_NUMBERS | _FLAGS | _TEXTS)
SUBJECTS = {
    "user": "user_id",
    "anonymous": "anonymous_id",
    "session": "session_id",
    "company": "company_id",
    "visitor": "visitor_id",
}

Row = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """One column compared with values, any of which may fit; numbers are written as text.

    is, contains, matches (an RE2 expression, found anywhere) do not hold for a null; is_not does.
    """

    column: str
    operator: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise InvalidInput when a column is none or a value does not fit it."""
        if self.column not in COLUMNS:
            raise InvalidInput(f"events have no column {self.column!r} to tell them apart by.")
        if self.operator not in OPERATORS:
            raise InvalidInput(f"{self.operator!r} is none of {', '.join(OPERATORS)}.")
        if not 0 < len(self.values) <= VALUES_MAX:
            raise InvalidInput(f"{self.column} is compared with 1 to {VALUES_MAX} values.")
        if self.column not in _TEXTS and self.operator in {"contains", "matches"}:
            raise InvalidInput(f"{self.column} is no text: it takes is and is_not.")
        for value in self.values:
            _check_value(self.column, value)

    @property
    def sql(self) -> Sql:
        """Whether it holds, true or false."""
        column, values = name(self.column), self.values
        if self.operator in {"is", "is_not"}:
            among = f"coalesce({column} IN ({', '.join(map(literal, values))}), false)"
            return Sql(f"NOT {among}" if self.operator == "is_not" else among)
        function = "contains" if self.operator == "contains" else "regexp_matches"
        any_of = " OR ".join(f"{function}({column}, {literal(value)})" for value in values)
        return Sql(f"coalesce({any_of}, false)")


@dataclass(frozen=True, slots=True)
class Definition:
    """What a rule says. An event is meant when all of it fits; at least one thing must be said.

    first_date, last_date: UTC dates (ISO), both inclusive. keys, columns, mapping: of a rule that
    does not drop events but gives new values to `columns` of those whose `keys` are in mapping;
    all are texts.
    """

    site_id: str | None = None
    first_date: str | None = None
    last_date: str | None = None
    conditions: tuple[Condition, ...] = ()
    keys: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    mapping: Mapping[Row, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise InvalidInput when it says nothing, or what cannot be."""
        said = (self.site_id, self.first_date, self.last_date)
        if not any(said) and not self.conditions and not self.mapping:
            raise InvalidInput("A rule must say which events it is about.")
        for text in (self.first_date, self.last_date):
            if text is not None:
                _check_date(text)
        if self.first_date and self.last_date and self.first_date > self.last_date:
            raise InvalidInput(f"{self.first_date} is after {self.last_date}.")
        if self.site_id is not None:
            _check_value("site_id", self.site_id)
        if self.columns or self.keys or self.mapping:
            self._check_mapping()

    def _check_mapping(self) -> None:
        if not self.mapping or not self.keys or not self.columns:
            raise InvalidInput("A rule that changes values says which, and to what.")
        if len(self.mapping) > MAPPED_MAX:
            raise InvalidInput(f"A rule changes at most {MAPPED_MAX} combinations of values.")
        if not {*self.keys, *self.columns} <= _TEXTS & COLUMNS:
            raise InvalidInput("A rule changes columns of text, by columns of text.")
        for key, new in self.mapping.items():
            if len(key) != len(self.keys) or len(new) != len(self.columns):
                raise InvalidInput("A rule's values do not fit its columns.")
            for value in (*key, *new):
                if value is not None:
                    _check_value(self.keys[0], value)
            changed = dict(zip(self.keys, key, strict=True))
            changed |= {
                column: value
                for column, value in zip(self.columns, new, strict=True)
                if column in changed
            }
            if self.mapping.get(tuple(changed.values()), new) != new:
                raise InvalidInput("A rule that changes values again when applied twice is none.")
        if {each.column for each in self.conditions} & set(self.columns):
            raise InvalidInput("A rule cannot change the columns that its conditions are about.")

    @property
    def drops(self) -> bool:
        """Whether it drops events, instead of giving them other values."""
        return not self.mapping

    @property
    def words(self) -> str:
        """What it is about, without any value that could be somebody's."""
        said = [f"{each.column} {each.operator}" for each in self.conditions]
        if self.mapping:
            said.append(f"{', '.join(self.columns)} by {', '.join(self.keys)}")
        if self.site_id is not None:
            said.append(f"site {self.site_id}")
        if self.first_date:
            said.append(f"from {self.first_date}")
        if self.last_date:
            said.append(f"to {self.last_date}")
        return ", ".join(said)

    @property
    def where(self) -> Sql:
        """Whether an event is of its site and dates, and its conditions hold."""
        said = [each.sql for each in self.conditions]
        if self.site_id is not None:
            said.append(Sql(f"site_id = {literal(self.site_id)}"))
        if self.first_date:
            said.append(Sql(f"timestamp >= TIMESTAMP {literal(self.first_date)}"))
        if self.last_date:
            end = date.fromisoformat(self.last_date) + timedelta(days=1)
            said.append(Sql(f"timestamp < TIMESTAMP {literal(end.isoformat())}"))
        return Sql(" AND ".join(said) or "true")

    def includes(self, date_: str, sites: Iterable[str]) -> bool:
        """Whether events of a date and any of these sites can be meant."""
        return (
            (self.site_id is None or self.site_id in sites)
            and (self.first_date is None or self.first_date <= date_)
            and (self.last_date is None or date_ <= self.last_date)
        )

    def digest(self, salt: str) -> str:
        """Return the SHA-256 of a salt and the values, by which a receipt proves what it is of.

        Of one subject it is that of the salt, a colon and the id.
        """
        values = [value for each in self.conditions for value in each.values]
        return sha256(":".join([salt, *values]).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it; `from_json` reads it back."""
        return {
            "format": FORMAT,
            "site_id": self.site_id,
            "first_date": self.first_date,
            "last_date": self.last_date,
            "conditions": [[one.column, one.operator, list(one.values)] for one in self.conditions],
            "keys": list(self.keys),
            "columns": list(self.columns),
            "mapping": [[list(key), list(new)] for key, new in self.mapping.items()],
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Definition:
        """Return what `to_json` told; raises InvalidInput when it is not so."""
        try:
            if document["format"] != FORMAT:
                raise InvalidInput("a newer Mallard made this rule; start that version again.")
            return Definition(
                document["site_id"],
                document["first_date"],
                document["last_date"],
                tuple(
                    Condition(column, operator, tuple(values))
                    for column, operator, values in document["conditions"]
                ),
                tuple(document["keys"]),
                tuple(document["columns"]),
                {tuple(key): tuple(new) for key, new in document["mapping"]},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"This is no rule ({type(error).__name__}).") from error


def about(kind: str, value: str) -> Condition:
    """Return the condition that an event is a subject's.

    kind: of SUBJECTS. value: the id; a visitor's as 16 hexadecimal digits.
    """
    if kind == "visitor":
        if not _VISITOR.fullmatch(value):
            raise InvalidInput("A visitor id has 16 hexadecimal digits.")
        value = str(int.from_bytes(bytes.fromhex(value), "big", signed=True))
    return Condition(SUBJECTS[kind], "is", (value,))


def commute(one: Definition, other: Definition) -> bool:
    """Whether two rules come to the same in either order."""

    def columns_read(each: Definition) -> set[str]:
        return {*each.keys, *each.columns, *(condition.column for condition in each.conditions)}

    return not (set(one.columns) & columns_read(other) or set(other.columns) & columns_read(one))


def apply(events: Sql, rules: Sequence[Rule]) -> Sql:
    """Return a query for events as rules leave them; its columns are those of events."""
    for rule in rules:
        definition = read(rule)
        if definition.drops:
            events = Sql(f"SELECT * FROM ({events}) WHERE NOT ({_meant(definition, rule)})")
        else:
            new = ", ".join(
                f"CASE WHEN m.__found AND {_meant(definition, rule)} "
                f"THEN m.__new{number} ELSE e.{name(column)} END AS {name(column)}"
                for number, column in enumerate(definition.columns)
            )
            events = Sql(
                f"SELECT e.* REPLACE ({new}) FROM ({events}) AS e LEFT JOIN {_lookup(definition)}"
            )
    return events


def affected(events: Sql, rule: Rule) -> Sql:
    """Return a query for the events that a rule would drop or change, with all their columns."""
    definition = read(rule)
    if definition.drops:
        return Sql(f"SELECT * FROM ({events}) WHERE {_meant(definition, rule)}")
    differs = " OR ".join(
        f"e.{name(column)} IS DISTINCT FROM m.__new{number}"
        for number, column in enumerate(definition.columns)
    )
    return Sql(
        f"SELECT e.* FROM ({events}) AS e JOIN {_lookup(definition)} "
        f"WHERE {_meant(definition, rule)} AND ({differs})"
    )


def check_expressions(connection: duckdb.DuckDBPyConnection, definition: Definition) -> None:
    """Raise InvalidInput when an expression of a new definition is none that DuckDB reads."""
    for condition in definition.conditions:
        for value in condition.values if condition.operator == "matches" else ():
            try:
                connection.execute("SELECT regexp_matches('', $1)", [value]).fetchall()
            except duckdb.Error:
                raise InvalidInput(f"{value!r} is no regular expression (RE2).") from None


def read(rule: Rule) -> Definition:
    """Return what a rule of the manifest says; raises CorruptData when it cannot be read."""
    try:
        return Definition.from_json(orjson.loads(rule.definition)["rule"])
    except (InvalidInput, KeyError, TypeError, ValueError) as error:
        raise CorruptData(f"The rule {rule.rule_id} cannot be read.") from error


def _meant(definition: Definition, rule: Rule) -> Sql:
    return Sql(f"position <= {rule.last_position:d} AND {definition.where}")


def _lookup(definition: Definition) -> Sql:
    """Return what follows JOIN: the mapping as `m`, null meeting null."""
    count = len(definition.keys)
    names = [f"__key{number}" for number in range(count)]
    names += [f"__new{number}" for number in range(len(definition.columns))]
    rows = ", ".join(
        f"({', '.join('NULL' if value is None else literal(value) for value in (*key, *new))})"
        for key, new in definition.mapping.items()
    )
    # A column of nulls alone would be of another type.
    texts = ", ".join(f"CAST({each} AS VARCHAR) AS {each}" for each in names)
    on = " AND ".join(
        f"e.{name(column)} IS NOT DISTINCT FROM m.{key}"
        for column, key in zip(definition.keys, names[:count], strict=True)
    )
    values = f"(VALUES {rows}) AS listed({', '.join(names)})"
    return Sql(f"(SELECT true AS __found, {texts} FROM {values}) AS m ON {on}")


def _check_value(column: str, value: object) -> None:
    if not isinstance(value, str) or len(value) > VALUE_LENGTH_MAX or "\0" in value:
        raise InvalidInput(
            f"{column} is compared with texts of at most {VALUE_LENGTH_MAX} characters."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{column} is compared with what is no Unicode text.") from error
    if column in _FLAGS and value not in {"true", "false"}:
        raise InvalidInput(f"{column} is true or false.")
    if column in _NUMBERS and not (
        re.fullmatch(r"-?[0-9]{1,19}", value) and INT64_MIN <= int(value) <= INT64_MAX
    ):
        raise InvalidInput(f"{column} is a whole number.")


def _check_date(text: str) -> None:
    try:
        good = date.fromisoformat(text).isoformat() == text
    except ValueError:
        good = False
    if not good:
        raise InvalidInput(f"{text!r} is no date like 2026-01-31.")
