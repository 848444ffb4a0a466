"""`/api/stats/...`: reports that look at single events and visits, as JSON or CSV."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import replace
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mallard.errors import InvalidInput
from mallard.query.period import Interval, Period
from mallard.query.plausible import names
from mallard.query.reports import journeys
from mallard.query.reports.chosen import percent
from mallard.query.reports.funnel import (
    STEPS_MAX,
    Funnel,
    FunnelQuestion,
    Within,
    funnel,
)
from mallard.query.reports.journeys import Direction, Flow, FlowsQuestion, Path, PathsQuestion
from mallard.query.reports.realtime import Realtime, RealtimeQuestion, realtime
from mallard.query.reports.retention import Cohort, Person, RetentionQuestion, retention
from mallard.query.reports.steps import RULE, read_step, read_steps
from mallard.web.insight import PAGED, SHARED, Asked, beside, read, respond, run
from mallard.web.parameters import needed, number, word
from mallard.web.reports import Reports
from mallard.web.stats import Row

_WINDOW = re.compile(r"([1-9]\d{0,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_WITHIN = {each.value: each for each in Within}
COHORTS = (Interval.DAY, Interval.WEEK, Interval.MONTH)
_MINUTE = timedelta(minutes=1)
_STEPS = 3
_RATES = ("conversion_rate", "step_conversion_rate")
_ALL = 1_000_000  # groups to compare with
_TOP = 10
_TOP_MAX = 1_000


class Insights:
    """Answers reports by their parameters."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/api/stats/realtime", self.realtime),
            Route("/api/stats/funnel", self.funnel),
            Route("/api/stats/journeys", self.journeys),
            Route("/api/stats/retention", self.retention),
        ]

    async def realtime(self, request: Request) -> Response:
        """Answer with who is there now, and a row for each of the last minutes."""
        known = ("site_id", "filters", "limit", "format")
        asked = await read(self._reports, request, known)
        now = asked.context.now.replace(microsecond=0)
        rows = number(asked.given, "limit", _TOP, 1, _TOP_MAX)
        choice = asked.choice
        question = RealtimeQuestion(choice.site_id, now, asked.context.zone, choice.keep, rows)
        found: Realtime = await run(self._reports, asked, realtime, question)
        lists = {"page": found.pages, "source": found.sources, "country": found.countries}
        by = {"page": "event:page", "source": "visit:source", "country": "visit:country"}
        told = {
            f"{name}s" if name != "country" else "countries": [
                {"value": names.shown(names.DIMENSIONS[by[name]], value), "visitors": count}
                for value, count in pairs
            ]
            for name, pairs in lists.items()
        }
        minutes = [
            {
                "time": asked.local(each.start),
                "visitors": each.visitors,
                "pageviews": each.pageviews,
            }
            for each in found.minutes
        ]
        looked_at = Period(
            found.minutes[0].start, found.minutes[-1].start + _MINUTE, asked.context.zone
        )
        asked = replace(asked, choice=replace(choice, period=looked_at))
        return respond(asked, minutes, visitors=found.visitors, **told)

    async def funnel(self, request: Request) -> Response:
        """Answer with a row for each step."""
        known = (*PAGED, "compare", "steps", "window", "within", "by")
        asked = await read(self._reports, request, known)
        given = asked.given
        limit, offset = asked.page()
        question = FunnelQuestion(
            asked.choice,
            read_steps(needed(given, "steps", RULE), asked.context, least=2, most=STEPS_MAX),
            _WITHIN[word(given, "within", tuple(_WITHIN), "visit")],
            _window_us(given.get("window")),
            asked.by(),
            limit,
            offset,
        )
        rows = await self._funnel_rows(asked, question)
        if asked.compared:
            other = replace(question, choice=asked.compared, limit=_ALL, offset=0)
            before = await self._funnel_rows(asked, other)
            others = dict(zip(_funnel_keys(before), before, strict=True))
            numbers = {"users", "visitors", "visits", "drop_off"} & rows[0].keys() if rows else ()
            nothing = dict.fromkeys(numbers, 0) | dict.fromkeys(_RATES)
            beside(rows, _funnel_keys(rows), others, nothing)
        return respond(asked, rows, within=question.within.value, window=given.get("window"))

    async def _funnel_rows(self, asked: Asked, question: FunnelQuestion) -> list[Row]:
        found: list[Funnel] = await run(self._reports, asked, funnel, question)
        return [row for each in found for row in _funnel_rows(question, each)]

    async def journeys(self, request: Request) -> Response:
        """Answer with the ways from a place, or the paths that visits begin with."""
        asked = await read(self._reports, request, (*PAGED, "of", "direction", "steps"))
        given = asked.given
        steps = number(given, "steps", _STEPS, 1, journeys.STEPS_MAX)
        limit, offset = asked.page()
        if "of" not in given:
            if "direction" in given:
                raise InvalidInput(
                    "A direction is from a place.", field="direction", rule="with of=page:/pricing"
                )
            every = PathsQuestion(asked.choice, steps, limit, offset)
            common: list[Path] = await run(self._reports, asked, journeys.paths, every)
            return respond(asked, [_path_row(each, as_csv=asked.as_csv) for each in common])
        if "offset" in given:
            raise InvalidInput("Flows have no pages.", field="offset", rule="limit alone")
        place = read_step(given["of"], asked.context, "of")
        direction = Direction(word(given, "direction", tuple(Direction), Direction.AFTER))
        question = FlowsQuestion(asked.choice, place.keep, direction, steps, limit)
        found: list[Flow] = await run(self._reports, asked, journeys.flows, question)
        rows = [_flow_row(direction, each) for each in found]
        return respond(asked, rows, of=place.label, direction=direction)

    async def retention(self, request: Request) -> Response:
        """Answer with a row for each cohort of people that the client names."""
        asked = await read(self._reports, request, (*SHARED, "interval", "person"))
        given = asked.given
        if given.get("person") in {"visitor", "visitor_id"}:
            raise InvalidInput(
                "A visitor is one for a UTC day only, so that nobody is followed: of visitors "
                "there is no retention.",
                field="person",
                rule="user_id or anonymous_id, for those who send them",
            )
        interval = Interval(word(given, "interval", COHORTS, Interval.WEEK))
        person = Person(word(given, "person", tuple(Person), Person.USER))
        context = asked.context
        question = RetentionQuestion(
            asked.choice, interval, person, context.first_day, context.now.replace(microsecond=0)
        )
        found: list[Cohort] = await run(self._reports, asked, retention, question)
        rows = [_cohort_row(each, as_csv=asked.as_csv) for each in found]
        more = {}
        if not any(each.retained[0] for each in found):
            more["note"] = f"No event that tells {person.value} is new in this period."
        return respond(asked, rows, person=person, interval=interval, **more)


def _path_row(found: Path, *, as_csv: bool) -> Row:
    return {
        "path": " > ".join(found.places) if as_csv else list(found.places),
        "visits": found.visits,
        "visitors": found.visitors,
        "share": percent(found.visits, found.of),
    }


def _flow_row(direction: Direction, found: Flow) -> Row:
    ways = [found.near, found.far]
    start, end = ways if direction is Direction.AFTER else reversed(ways)
    return {
        "step": found.step,
        "from": start,
        "to": end,
        "visits": found.visits,
        "visitors": found.visitors,
        "share": percent(found.visits, found.of),
    }


def _cohort_row(found: Cohort, *, as_csv: bool) -> Row:
    people, told = found.retained[0], list(found.retained)
    rates = [None if each is None else percent(each, people or 0) for each in told]
    row: Row = {"cohort": found.bucket.label.date().isoformat(), "people": people}
    if as_csv:
        return row | {"retained": {str(n): each for n, each in enumerate(told)}}
    return row | {"retained": told, "rates": rates}


def _funnel_keys(rows: list[Row]) -> list[Hashable]:
    return [(row.get("value"), row["step"]) for row in rows]


def _funnel_rows(question: FunnelQuestion, found: Funnel) -> list[Row]:
    rows = []
    people = "users" if question.within is Within.USER else "visitors"
    for n, step in enumerate(question.steps):
        row: Row = {} if question.by is None else {"value": names.shown(question.by, found.value)}
        row |= {"step": n + 1, "label": step.label, people: found.people[n]}
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
