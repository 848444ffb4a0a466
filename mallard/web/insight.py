"""What the reports about single events share: reading what is asked, and the form of answers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mallard.accounts.access import Scope
from mallard.errors import InvalidInput
from mallard.query.answers import Answers
from mallard.query.dimensions import By
from mallard.query.engine import Session
from mallard.query.period import Period
from mallard.query.plausible import names
from mallard.query.plausible.compact import full_name, read_compact
from mallard.query.plausible.filtering import Context, read_filters
from mallard.query.plausible.ranges import read_range
from mallard.query.plausible.reading import read_as_of, read_compared
from mallard.query.reports.chosen import Choice
from mallard.web.parameters import ROWS_MAX, check_names, date_range, is_csv, number
from mallard.web.reports import Caller, Reports
from mallard.web.stats import ROWS, Row, comparison, csv_response

SHARED = ("site_id", "period", "from", "to", "filters", "as_of", "format")
PAGED = (*SHARED, "limit", "offset")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked: by whom, of which events, and all parameters as they were sent.

    compared: the same events of the period to compare with; None where none is asked.
    """

    caller: Caller
    given: QueryParams
    choice: Choice
    compared: Choice | None
    as_csv: bool

    @property
    def context(self) -> Context:
        """What is known of the site."""
        return self.caller.context

    def page(self) -> tuple[int, int]:
        """Return the limit and the offset."""
        return number(self.given, "limit", ROWS, 1, ROWS_MAX), number(self.given, "offset", 0)

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

    def local(self, instant: datetime) -> str:
        """Return an instant in the site's time zone, ISO 8601."""
        return instant.astimezone(self.context.zone).isoformat(timespec="seconds")


async def read(
    reports: Reports, request: Request, known: Sequence[str], scope: Scope = Scope.STATS
) -> Asked:
    """Return what a request asks; raises what is wrong with it, or that it may not be asked."""
    given = request.query_params
    check_names(given, known)
    caller = await reports.look(request, given.get("site_id"), scope)
    context = caller.context
    period = read_range(date_range(given), context.zone, context.now, context.first_day)
    choice = Choice(
        caller.site_id,
        period,
        read_filters(read_compact(given.get("filters", "")), context),
        read_as_of(given.get("as_of"), context.now),
    )
    other = read_compared(comparison(given), period, context)
    compared = None if other is None else replace(choice, period=other)
    return Asked(caller, given, choice, compared, is_csv(given))


async def run(
    reports: Reports,
    asked: Asked,
    report: Callable[[Session, Answers, T], Any],
    question: T,
) -> Any:
    """Return what a report answers to a question, which is hashable."""
    key: Hashable = (report.__name__, question)
    return await reports.run(
        asked.caller, lambda session, answers: report(session, answers, question), key
    )


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


def respond(asked: Asked, rows: list[Row], **more: Any) -> Response:
    """Answer with rows and, in JSON, what else there is to say of them."""
    if asked.as_csv:
        return csv_response(rows)
    start, end = bounds(asked, asked.choice.period)
    head = {"site_id": asked.caller.site_id, "from": start, "to": end}
    return JSONResponse({**head, **more, "rows": rows})


def bounds(asked: Asked, period: Period) -> tuple[str, str]:
    """Return a period's first second and its last."""
    return asked.local(period.start), asked.local(period.end - timedelta(seconds=1))
