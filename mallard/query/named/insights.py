"""Reports that look at single events: who is there now, funnels, journeys, retention."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from mallard.clock import to_datetime
from mallard.errors import InvalidInput
from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.named.asking import (
    PAGED,
    SHARED,
    Asked,
    Asking,
    Found,
    Page,
    beside,
    compared_columns,
)
from mallard.query.named.columns import Column, Kind, Row, columns
from mallard.query.named.parameters import ROWS_MAX, needed, number, word
from mallard.query.period import Interval, Period
from mallard.query.plausible import names
from mallard.query.reports import realtime as current
from mallard.query.reports import retention as returning
from mallard.query.reports.chosen import percent
from mallard.query.reports.funnel import STEPS_MAX, Funnel, FunnelQuestion, Within
from mallard.query.reports.funnel import funnel as ask_funnel
from mallard.query.reports.realtime import MINUTES, RealtimeQuestion
from mallard.query.reports.retention import Cohort, Person, RetentionQuestion
from mallard.query.reports.steps import RULE, read_steps

OF_REALTIME = ("site_id", "filters", "limit", "format")
OF_FUNNEL = (*PAGED, "compare", "steps", "window", "within", "by")
OF_RETENTION = (*SHARED, "interval", "person")
COHORTS = (Interval.DAY, Interval.WEEK, Interval.MONTH)

_WINDOW = re.compile(r"([1-9]\d{0,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_WITHIN = {each.value: each for each in Within}
_MINUTE = timedelta(minutes=1)
_RATES = ("conversion_rate", "step_conversion_rate")
_ALL = 1_000_000  # groups to compare with
_TOP = 10
_TOP_MAX = 1_000


def realtime(asking: Asking) -> Asked:
    """Who is there now, and a row for each of the last minutes."""
    now = asking.context.now.replace(microsecond=0)
    rows = number(asking.given, "limit", _TOP, 1, _TOP_MAX)
    zone = asking.context.zone
    question = RealtimeQuestion(asking.site.site_id, now, zone, asking.choice().keep, rows)
    end = now.replace(second=0) + _MINUTE
    period = Period(end - MINUTES * _MINUTE, end, zone)

    def answered(session: Session, answers: Answers, page: Page) -> Found:
        found = current.realtime(session, answers, question)
        minutes = [
            {
                "time": asking.local(each.start),
                "visitors": each.visitors,
                "pageviews": each.pageviews,
            }
            for each in found.minutes
        ]
        head = {
            "visitors": found.visitors,
            "pages": _told("event:page", found.pages),
            "sources": _told("visit:source", found.sources),
            "countries": _told("visit:country", found.countries),
        }
        return Found(minutes, head)

    told = (Column("time", Kind.INSTANT), *columns(Kind.WHOLE, "visitors", "pageviews"))
    return Asked(period, told, answered)


def _told(name: str, pairs: list[tuple[str | None, int]]) -> list[Row]:
    by = names.DIMENSIONS[name]
    return [{"value": names.shown(by, value), "visitors": count} for value, count in pairs]


def funnel(asking: Asking) -> Asked:
    """A row for each step, of all or of each value of a dimension."""
    given, choice = asking.given, asking.choice()
    question = FunnelQuestion(
        choice,
        read_steps(needed(given, "steps", RULE), asking.context, least=2, most=STEPS_MAX),
        _WITHIN[word(given, "within", tuple(_WITHIN), "visit")],
        _window_us(given.get("window")),
        asking.by(),
    )
    compared = asking.compared(choice)
    head = {"within": question.within.value, "window": given.get("window")}

    def answered(session: Session, answers: Answers, page: Page) -> Found:
        asked = replace(question, limit=page.limit, offset=page.offset)
        groups = ask_funnel(session, answers, asked)
        rows = [row for each in groups for row in _funnel_rows(question, each)]
        if compared:
            other = replace(question, choice=compared, limit=_ALL, offset=0)
            before = [
                row
                for each in ask_funnel(session, answers, other)
                for row in _funnel_rows(question, each)
            ]
            others = dict(zip(_funnel_keys(before), before, strict=True))
            nothing = {
                each.name: None if each.name in _RATES else 0 for each in _funnel_numbers(question)
            }
            beside(rows, _funnel_keys(rows), others, nothing)
        return Found(rows, head, len(groups))

    numbers = _funnel_numbers(question)
    told = (*columns(Kind.WHOLE, "step"), *columns(Kind.TEXT, "label"), *numbers)
    if question.by is not None:
        told = (*columns(Kind.TEXT, "value"), *told)
    if compared:
        told = (*told, *compared_columns(numbers))
    pages = ROWS_MAX // len(question.steps) if question.by else 0
    return Asked(choice.period, told, answered, asking.page(), pages)


def _funnel_people(question: FunnelQuestion) -> str:
    return "users" if question.within is Within.USER else "visitors"


def _funnel_numbers(question: FunnelQuestion) -> tuple[Column, ...]:
    units = ("visits",) if question.within is Within.VISIT else ()
    return (
        *columns(Kind.WHOLE, _funnel_people(question), *units),
        *columns(Kind.NUMBER, *_RATES),
        *columns(Kind.WHOLE, "drop_off"),
    )


def _funnel_keys(rows: list[Row]) -> list[Hashable]:
    return [(row.get("value"), row["step"]) for row in rows]


def _funnel_rows(question: FunnelQuestion, found: Funnel) -> list[Row]:
    rows = []
    for n, step in enumerate(question.steps):
        row: Row = {} if question.by is None else {"value": names.shown(question.by, found.value)}
        row |= {"step": n + 1, "label": step.label, _funnel_people(question): found.people[n]}
        if question.within is Within.VISIT:
            row["visits"] = found.units[n]
        row["conversion_rate"] = percent(found.people[n], found.people[0])
        row["step_conversion_rate"] = percent(found.people[n], found.people[n - 1]) if n else None
        row["drop_off"] = found.people[n - 1] - found.people[n] if n else None
        rows.append(row)
    return rows


def _window_us(text: str | None) -> int | None:
    if text is None:
        return None
    found = _WINDOW.fullmatch(text)
    if not found:
        raise InvalidInput(
            f"window {text[:200]!r} is no time.", field="window", rule="such as 30m, 1h or 7d"
        )
    return int(found[1]) * _SECONDS[found[2]] * 1_000_000


def retention(asking: Asking) -> Asked:
    """A row for each cohort of people that the client names."""
    given, context = asking.given, asking.context
    if given.get("person") in {"visitor", "visitor_id"}:
        raise InvalidInput(
            "A visitor is one for a UTC day only, so that nobody is followed: of visitors "
            "there is no retention.",
            field="person",
            rule="user_id or anonymous_id, for those who send them",
        )
    interval = Interval(word(given, "interval", COHORTS, Interval.WEEK))
    person = Person(word(given, "person", tuple(Person), Person.USER))
    choice = asking.choice()
    # What began after the instant that is asked about was not known then.
    now = context.now if choice.as_of_us is None else to_datetime(choice.as_of_us)
    first_day = context.first_day
    question = RetentionQuestion(choice, interval, person, first_day, now.replace(microsecond=0))
    period = choice.period
    cut = returning.intervals(period, interval)

    def answered(session: Session, answers: Answers, page: Page) -> Found:
        found = returning.retention(session, answers, question)
        head: dict[str, Any] = {"person": person, "interval": interval}
        if not any(each.retained[0] for each in found):
            head["note"] = f"No event that tells {person.value} is new in this period."
        return Found([_cohort_row(each) for each in found], head)

    told = (Column("cohort", Kind.DAY), Column("people", Kind.WHOLE))
    later = (Column(f"retained.{n}", Kind.WHOLE, ("retained", n)) for n in range(len(cut)))
    return Asked(period, (*told, *later), answered)


def _cohort_row(found: Cohort) -> Row:
    people, told = found.retained[0], list(found.retained)
    rates = [None if each is None else percent(each, people or 0) for each in told]
    cohort = found.bucket.label.date().isoformat()
    return {"cohort": cohort, "people": people, "retained": told, "rates": rates}
