"""Reports about money: what came in, and to what it is owed."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from decimal import Decimal

from mallard.errors import InvalidInput
from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.goals import conversions
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
from mallard.query.named.parameters import ROWS_MAX, needed, word
from mallard.query.period import Interval
from mallard.query.plausible import names
from mallard.query.plausible.compact import full_name
from mallard.query.reports.attribution import (
    DIMENSIONS,
    Across,
    AttributionQuestion,
    Credit,
    Model,
)
from mallard.query.reports.attribution import attribution as ask_attribution
from mallard.query.reports.revenue import Income, RevenueQuestion
from mallard.query.reports.revenue import revenue as ask_revenue
from mallard.query.reports.steps import read_goal
from mallard.query.reports.table import Goal

OF_REVENUE = (*PAGED, "compare", "by", "interval")
OF_ATTRIBUTION = (*SHARED, "goal", "by", "model", "within")
INTERVALS = tuple(each.value for each in Interval)
MODELS = {each.value: each for each in Model}
ACROSS = {each.value: each for each in Across}
_NOTHING: Row = {"total": 0.0, "average": None, "events": 0}
_NUMBERS = (*columns(Kind.AMOUNT, "total", "average"), Column("events", Kind.WHOLE))


def revenue(asking: Asking) -> Asked:
    """A row for each currency, of all or of each group."""
    choice, question = asking.choice(), _revenue_question(asking)
    compared = asking.compared(choice)
    interval = question.interval

    def answered(session: Session, answers: Answers, page: Page) -> Found:
        asked = question
        if not interval:
            asked = replace(question, limit=page.limit, offset=page.offset)
        found = ask_revenue(session, answers, asked)
        rows = [_income_row(asking, question, each) for each in found.rows]
        if compared:
            shown = None if interval else tuple((row.value, row.currency) for row in found.rows)
            other = replace(question, choice=compared, groups=shown)
            before = ask_revenue(session, answers, other).rows
            told = [_income_row(asking, other, each) for each in before]
            others = dict(zip(_keys(before), told, strict=True))
            beside(rows, _keys(found.rows), others, _NOTHING)
        return Found(rows, {"total_rows": found.total_rows}, len(rows))

    key: tuple[Column, ...] = ()
    if interval:
        key = columns(Kind.INSTANT if interval is Interval.HOUR else Kind.DAY, "time")
    elif question.by is not None or question.goals is not None:
        key = columns(Kind.TEXT, "value")
    told = (*key, *columns(Kind.TEXT, "currency"), *_NUMBERS)
    if compared:
        told = (*told, *compared_columns(_NUMBERS))
    return Asked(choice.period, told, answered, asking.page(), 0 if interval else ROWS_MAX)


def _revenue_question(asking: Asking) -> RevenueQuestion:
    given = asking.given
    of_goals = full_name(given.get("by", "")) == names.GOAL
    by = None if of_goals else asking.by()
    interval = None
    if "interval" in given:
        interval = Interval(word(given, "interval", INTERVALS, ""))
        if "by" in given:
            raise InvalidInput(
                "Revenue is either by a dimension or over time.",
                field="interval",
                rule="one of by and interval",
            )
    goals = tuple(Goal(each.display_name, conversions(each)) for each in asking.context.goals)
    return RevenueQuestion(
        asking.choice(), by, goals if of_goals else None, interval, asking.site.currency
    )


def attribution(asking: Asking) -> Asked:
    """What a goal's conversions are owed to."""
    given = asking.given
    goal = read_goal(needed(given, "goal", "the name of a goal"), asking.context, "goal")
    known = {each.value: each for each in DIMENSIONS}
    by = known.get(full_name(given.get("by", "source")))
    if by is None:
        raise InvalidInput(
            f"by {given['by'][:200]!r} is nothing that conversions are owed to.",
            field="by",
            rule="one of " + ", ".join(known),
        )
    question = AttributionQuestion(
        asking.choice(),
        conversions(goal),
        by,
        MODELS[word(given, "model", tuple(MODELS), "last")],
        ACROSS[word(given, "within", tuple(ACROSS), "visitor")],
    )

    def answered(session: Session, answers: Answers, page: Page) -> Found:
        found = ask_attribution(session, answers, question)
        rows = [_credit_row(question, each) for each in found if each.touched]
        untouched = sum(each.conversions for each in found if not each.touched)
        head = {
            "goal": goal.display_name,
            "model": question.model.value,
            "within": question.across.value,
            "conversions": round(sum(each.conversions for each in found)),
            "without_touch": round(untouched),
        }
        return Found(rows, head)

    told = (
        *columns(Kind.TEXT, "value"),
        *columns(Kind.NUMBER, "conversions"),
        *columns(Kind.WHOLE, _people(question)),
        *columns(Kind.AMOUNTS, "revenue"),
    )
    return Asked(question.choice.period, told, answered)


def _keys(rows: list[Income]) -> list[Hashable]:
    """What each row is of: intervals of two periods are the same by their number."""
    number = {bucket: n for n, bucket in enumerate(dict.fromkeys(row.bucket for row in rows))}
    return [(number[row.bucket], row.value, row.currency) for row in rows]


def _income_row(asking: Asking, question: RevenueQuestion, found: Income) -> Row:
    row: Row = {}
    if found.bucket is not None:
        label = found.bucket.label
        row["time"] = (
            asking.local(label) if question.interval is Interval.HOUR else label.date().isoformat()
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


def _people(question: AttributionQuestion) -> str:
    return "users" if question.across is Across.USER else "visitors"


def _credit_row(question: AttributionQuestion, found: Credit) -> Row:
    return {
        "value": names.shown(question.by, found.value),
        "conversions": round(found.conversions, 2),
        _people(question): found.people,
        "revenue": {currency: round(amount, 2) for currency, amount in found.revenue},
    }


def _number(amount: Decimal) -> float:
    return float(round(amount, 2))
