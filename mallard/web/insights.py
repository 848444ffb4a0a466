"""`/api/stats/...`: reports that look at single events and visits, as JSON or CSV."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mallard.errors import InvalidInput
from mallard.query.plausible import names
from mallard.query.reports.funnel import (
    STEPS_MAX,
    Funnel,
    FunnelQuestion,
    Within,
    conversion,
    funnel,
)
from mallard.query.reports.realtime import Realtime, RealtimeQuestion, realtime
from mallard.query.reports.steps import RULE, read_steps
from mallard.web.insight import PAGED, read, respond, run
from mallard.web.parameters import needed, number, word
from mallard.web.reports import Reports
from mallard.web.stats import Row

_WINDOW = re.compile(r"([1-9]\d{0,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_WITHIN = {each.value: each for each in Within}
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
        return respond(asked, minutes, visitors=found.visitors, **told)

    async def funnel(self, request: Request) -> Response:
        """Answer with a row for each step."""
        asked = await read(self._reports, request, (*PAGED, "steps", "window", "within", "by"))
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
        found = await run(self._reports, asked, funnel, question)
        rows = [row for each in found for row in _funnel_rows(question, each)]
        return respond(asked, rows, within=question.within.value, window=given.get("window"))


def _funnel_rows(question: FunnelQuestion, found: Funnel) -> list[Row]:
    rows = []
    people = "users" if question.within is Within.USER else "visitors"
    for n, step in enumerate(question.steps):
        row: Row = {} if question.by is None else {"value": names.shown(question.by, found.value)}
        row |= {"step": n + 1, "label": step.label, people: found.people[n]}
        if question.within is Within.VISIT:
            row["visits"] = found.units[n]
        row["conversion_rate"] = conversion(found.people, n, 0)
        row["step_conversion_rate"] = conversion(found.people, n, n - 1) if n else None
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
