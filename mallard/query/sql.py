"""SQL as a type of its own, and the values that go beside it.

`Sql` is text that was put together here: braces of an f-string hold only `p(...)`, `name(...)`,
an enum's `.sql` or another `Sql`. mypy sees where plain text would become SQL.
"""

from __future__ import annotations

from typing import NewType

Sql = NewType("Sql", str)


class Params:
    """Collects the values of one statement: `p(value)` keeps it and returns its `$p0`, `$p1`..."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}

    def __call__(self, value: object) -> Sql:
        """Keep a value and return what stands for it in the statement."""
        key = f"p{len(self.values)}"
        self.values[key] = value
        return Sql(f"${key}")


def literal(text: str) -> Sql:
    """Return a text as a literal, for the statements that take no parameters (CREATE VIEW)."""
    return Sql("'" + text.replace("'", "''") + "'")


def name(text: str) -> Sql:
    """Return a text as an identifier."""
    return Sql('"' + text.replace('"', '""') + '"')
