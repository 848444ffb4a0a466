"""How a report is asked for by its parameters, and what can be answered then."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from mallard.errors import InvalidInput
from mallard.query.answers import Answers
from mallard.query.dimensions import By
from mallard.query.engine import Session
from mallard.query.named.columns import Column, Kind, Row, within
from mallard.query.named.parameters import (
    ROWS,
    ROWS_MAX,
    Given,
    comparison,
    date_range,
    number,
)
from mallard.query.period import Period
from mallard.query.plausible import names
from mallard.query.plausible.compact import full_name, read_compact
from mallard.query.plausible.filtering import Context, read_filters
from mallard.query.plausible.ranges import read_range
from mallard.query.plausible.reading import read_as_of, read_compared
from mallard.query.reports.chosen import Choice
from mallard.site import Site

SHARED = ("site_id", "period", "from", "to", "filters", "as_of", "format")
PAGES = ("limit", "offset")
PAGED = (*SHARED, *PAGES)


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked of a site; it can be sent to another process.

    context: what is known of the site. given: the parameters as they were sent. argument: what
    follows the report's name. default_period: where none is given. with_ids: whether the ids of
    visitors and users are shown where a report has any.
    """

    site: Site
    context: Context
    given: Given
    argument: str = ""
    default_period: str = "30d"
    with_ids: bool = True

    @property
    def date_range(self) -> object:
        """The period as Stats API v2 writes it."""
        return date_range(self.given, self.default_period)

    @property
    def period(self) -> Period:
        """The period; raises InvalidInput."""
        context = self.context
        return read_range(self.date_range, context.zone, context.now, context.first_day)

    def choice(self) -> Choice:
        """Return the events that the parameters choose; raises InvalidInput."""
        given = self.given
        return Choice(
            self.site.site_id,
            self.period,
            read_filters(read_compact(given.get("filters", "")), self.context),
            read_as_of(given.get("as_of"), self.context.now),
        )

    def compared(self, choice: Choice) -> Choice | None:
        """Return the same events of the period to compare with; None where none is asked."""
        other = read_compared(comparison(self.given), choice.period, self.context)
        return None if other is None else replace(choice, period=other)

    def page(self) -> Page:
        """Return the page that is asked for."""
        return Page(number(self.given, "limit", ROWS, 1, ROWS_MAX), number(self.given, "offset", 0))

    def by(self, name: str = "by") -> By | None:
        """Return the dimension that a parameter names; None where there is no such parameter."""
        text = self.given.get(name)
        if text is None:
            return None
        by = names.dimension(full_name(text))
        if by is None:
            raise InvalidInput(
                f"{name} {text[:200]!r} is no dimension.",
                field=name,
                rule="a dimension such as source, page or props:plan",
            )
        return by

    def local(self, instant: datetime, to: str = "seconds") -> str:
        """Return an instant in the site's time zone, ISO 8601."""
        return instant.astimezone(self.context.zone).isoformat(timespec=to)

    def bounds(self, period: Period) -> tuple[str, str]:
        """Return a period's first second and its last."""
        return self.local(period.start), self.local(period.end - timedelta(seconds=1))


@dataclass(frozen=True, slots=True)
class Page:
    """Which rows: at most limit of them after offset others."""

    limit: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """Rows, and what else JSON says of them.

    count: how many of what a page's limit counts, which may be of several rows each; None: no
    report of pages. bare: all that JSON says but the rows, without site and period.
    """

    rows: list[Row]
    head: Mapping[str, Any] = field(default_factory=dict)
    count: int = 0
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A report that can be answered.

    period: what it tells of. columns: of its rows. answer: gives a page of it. page: the one that
    is asked for. pages: of how many at most whole reports are answered at once; 0: they have no
    pages. parts: what a whole report is answered as, one after the other, where that takes less
    than pages of all of it.
    """

    period: Period
    columns: tuple[Column, ...]
    answer: Callable[[Session, Answers, Page], Found]
    page: Page = Page(ROWS_MAX)
    pages: int = 0
    parts: Callable[[], Iterable[Asked]] | None = None


def compared_columns(numbers: Sequence[Column]) -> tuple[Column, ...]:
    """Return the columns of what stands beside numbers that are compared."""
    changes = [Column(each.name, Kind.NUMBER) for each in numbers]
    return (*within("compared", numbers), *within("change", changes))


def beside(
    rows: list[Row], keys: Sequence[Hashable], others: Mapping[Hashable, Row], nothing: Row
) -> None:
    """Put beside the numbers of each row those of another period, and what changed.

    keys: what each row is of; others: the other period's rows by the same. nothing: the numbers of
    a row that the other period has not. A change is in percent; of a rate in points.
    """
    for row, key in zip(rows, keys, strict=True):
        other = others.get(key, nothing)
        row["compared"] = {name: other[name] for name in nothing}
        row["change"] = {name: _change(name, other[name], row[name]) for name in nothing}


def _change(name: str, old: float | None, new: float | None) -> float | None:
    if old is None or new is None:
        return None
    if name.endswith("_rate"):
        return round(new - old, 2)
    return round(100 * (new - old) / old) if old else (100 if new else 0)
