"""`/api/stats/revenue` and `/api/stats/attribution`: what came in, and to what it is owed."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from decimal import Decimal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mallard.errors import InvalidInput
from mallard.query.goals import conversions
from mallard.query.period import Interval
from mallard.query.plausible import names
from mallard.query.plausible.compact import full_name
from mallard.query.reports.attribution import (
    DIMENSIONS,
    Across,
    AttributionQuestion,
    Credit,
    Model,
    attribution,
)
from mallard.query.reports.revenue import Income, Revenue, RevenueQuestion, revenue
from mallard.query.reports.steps import read_goal
from mallard.query.reports.table import Goal
from mallard.web.insight import PAGED, SHARED, Asked, beside, read, respond, run
from mallard.web.parameters import needed, word
from mallard.web.reports import Reports
from mallard.web.stats import Row

INTERVALS = tuple(each.value for each in Interval)
MODELS = {each.value: each for each in Model}
ACROSS = {each.value: each for each in Across}
_NOTHING: Row = {"total": 0.0, "average": None, "events": 0}


class MoneyReports:
    """Answers reports about money by their parameters."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/api/stats/revenue", self.revenue),
            Route("/api/stats/attribution", self.attribution),
        ]

    async def revenue(self, request: Request) -> Response:
        """Answer with a row for each currency, of all or of each group."""
        asked = await read(self._reports, request, (*PAGED, "compare", "by", "interval"))
        given = asked.given
        of_goals = full_name(given.get("by", "")) == names.GOAL
        by = None if of_goals else asked.by()
        interval = None
        if "interval" in given:
            interval = Interval(word(given, "interval", INTERVALS, ""))
            if "by" in given:
                raise InvalidInput(
                    "Revenue is either by a dimension or over time.",
                    field="interval",
                    rule="one of by and interval",
                )
        goals = tuple(Goal(each.display_name, conversions(each)) for each in asked.context.goals)
        limit, offset = asked.page()
        question = RevenueQuestion(
            asked.choice,
            by,
            goals if of_goals else None,
            interval,
            asked.caller.site.currency,
            None if interval else limit,
            0 if interval else offset,
        )
        found: Revenue = await run(self._reports, asked, revenue, question)
        rows = [_income_row(asked, question, each) for each in found.rows]
        if asked.compared:
            shown = None if interval else tuple((row.value, row.currency) for row in found.rows)
            other = replace(question, choice=asked.compared, limit=None, offset=0, groups=shown)
            before: Revenue = await run(self._reports, asked, revenue, other)
            told = [_income_row(asked, other, each) for each in before.rows]
            others = dict(zip(_keys(before.rows), told, strict=True))
            beside(rows, _keys(found.rows), others, _NOTHING)
        return respond(asked, rows, total_rows=found.total_rows)

    async def attribution(self, request: Request) -> Response:
        """Answer with what a goal's conversions are owed to."""
        asked = await read(self._reports, request, (*SHARED, "goal", "by", "model", "within"))
        given = asked.given
        goal = read_goal(needed(given, "goal", "the name of a goal"), asked.context, "goal")
        known = {each.value: each for each in DIMENSIONS}
        by = known.get(full_name(given.get("by", "source")))
        if by is None:
            raise InvalidInput(
                f"by {given['by'][:200]!r} is nothing that conversions are owed to.",
                field="by",
                rule="one of " + ", ".join(known),
            )
        question = AttributionQuestion(
            asked.choice,
            conversions(goal),
            by,
            MODELS[word(given, "model", tuple(MODELS), "last")],
            ACROSS[word(given, "within", tuple(ACROSS), "visitor")],
        )
        found: list[Credit] = await run(self._reports, asked, attribution, question)
        rows = [_credit_row(question, each) for each in found if each.touched]
        untouched = sum(each.conversions for each in found if not each.touched)
        return respond(
            asked,
            rows,
            goal=goal.display_name,
            model=question.model.value,
            within=question.across.value,
            conversions=round(sum(each.conversions for each in found)),
            without_touch=round(untouched),
        )


def _keys(rows: list[Income]) -> list[Hashable]:
    """What each row is of: intervals of two periods are the same by their number."""
    number = {bucket: n for n, bucket in enumerate(dict.fromkeys(row.bucket for row in rows))}
    return [(number[row.bucket], row.value, row.currency) for row in rows]


def _income_row(asked: Asked, question: RevenueQuestion, found: Income) -> Row:
    row: Row = {}
    if found.bucket is not None:
        label = found.bucket.label
        row["time"] = (
            asked.local(label) if question.interval is Interval.HOUR else label.date().isoformat()
        )
    elif question.by is not None:
        row["value"] = names.shown(question.by, found.value)
    elif question.goals is not None:
        row["value"] = found.value
    return row | {
        "currency": found.currency,
        "total": _number(found.amount),
        "average": None if found.average is None else _number(found.average),
        "events": found.events,
    }


def _credit_row(question: AttributionQuestion, found: Credit) -> Row:
    people = "users" if question.across is Across.USER else "visitors"
    return {
        "value": names.shown(question.by, found.value),
        "conversions": round(found.conversions, 2),
        people: found.people,
        "revenue": {currency: round(amount, 2) for currency, amount in found.revenue},
    }


def _number(amount: Decimal) -> float:
    return float(round(amount, 2))
