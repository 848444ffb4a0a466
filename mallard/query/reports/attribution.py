"""Attribution: which sources, channels or campaigns a goal's conversions are owed to.

A touch is a visit with a pageview, and it may have led to the conversions at or after its start of
the same person: an anonymous visitor within one UTC day, or a user by `user_id` across the days
that the period touches. A conversion that no touch leads to is owed to none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import pyarrow as pa

from mallard.query.answers import Answers
from mallard.query.dimensions import Dimension
from mallard.query.engine import Session
from mallard.query.filters import Filter, fits
from mallard.query.reports.chosen import DONE, ORDER, Choice, chosen
from mallard.query.reports.daily import EVENTS, VISITS, added
from mallard.query.reports.given import made_once, of_choice
from mallard.query.sql import Sql

DIMENSIONS = (
    *(Dimension.SOURCE, Dimension.CHANNEL, Dimension.REFERRER),
    *(Dimension.UTM_SOURCE, Dimension.UTM_MEDIUM, Dimension.UTM_CAMPAIGN),
)
_GROUP = {
    "in_all": pa.bool_(),
    "touched": pa.bool_(),
    "value": pa.string(),
    "currency": pa.string(),
}
_NUMBERS = {"conversions": pa.float64(), "people": pa.int64(), "revenue": pa.float64()}


class Model(Enum):
    """Which touches a conversion is owed to; `sql` is the share of the nth of `touches`."""

    sql: Sql

    FIRST = "first", "(number = 1)::INT"
    LAST = "last", "(number = greatest(touches, 1))::INT"
    # All of them, in equal parts.
    LINEAR = "linear", "1 / greatest(touches, 1)"

    def __new__(cls, name: str, sql: str) -> Model:
        """Make a member whose value is its name."""
        member = object.__new__(cls)
        member._value_ = name
        member.sql = Sql(f"({sql})::DOUBLE")
        return member


class Across(Enum):
    """Within what a conversion and its touches are one person's; `sql` names the person.

    is_daily: of one UTC date only.
    """

    sql: Sql
    is_daily: bool

    VISITOR = "visitor", "visitor_id", True
    USER = "user", "user_id", False

    def __new__(cls, name: str, sql: str, is_daily: bool) -> Across:
        """Make a member whose value is its name."""
        member = object.__new__(cls)
        member._value_ = name
        member.sql, member.is_daily = Sql(sql), is_daily
        return member


@dataclass(frozen=True, slots=True)
class AttributionQuestion:
    """What is asked. goal: what conversions are; by: one of DIMENSIONS. The filter is of them."""

    choice: Choice
    goal: Filter
    by: Dimension
    model: Model
    across: Across


@dataclass(frozen=True, slots=True)
class Credit:
    """What is owed to the touches of one value. touched: False for what is owed to no touch.

    conversions: in parts, where a conversion is owed to several. people: who converted, owed in
    any part. revenue: by currency, in parts too.
    """

    touched: bool
    value: str | None
    conversions: float
    people: int
    revenue: tuple[tuple[str, float], ...] = ()


@made_once(of_choice)
def attribution(session: Session, answers: Answers, question: AttributionQuestion) -> list[Credit]:
    """Return the credits, the largest first."""
    if question.across is Across.USER:
        with chosen(session, answers, question.choice) as found:
            owed = Sql(f"({_owed(question, found.events, found.visits)})")
            rows = session.rows(_ordered(owed))
    else:
        counted = _owed(question, EVENTS, VISITS)
        owed = added(session, answers, question.choice, counted, _GROUP, _NUMBERS)
        rows = session.rows(_ordered(owed))
    given: dict[tuple[bool, str | None], Credit] = {}
    for in_all, touched, value, currency, conversions, people, revenue in rows:
        if in_all:
            given[touched, value] = Credit(touched, value, conversions, people)
        elif currency is not None:
            credit = given[touched, value]
            more = tuple(sorted((*credit.revenue, (currency, revenue))))
            given[touched, value] = replace(credit, revenue=more)
    return list(given.values())


def _ordered(owed: Sql) -> Sql:
    # Ten tenths are a little less than one: what is as much has to be so in the order too.
    return Sql(f"""
        SELECT in_all, touched, value, currency, conversions, people, revenue FROM {owed}
        ORDER BY in_all DESC, round(conversions, 6) DESC, value NULLS LAST, currency""")


def _owed(question: AttributionQuestion, events: Sql, visits: Sql) -> Sql:
    """Sum up what is owed to each value, in all and by currency; of each date, where it matters."""
    across = question.across
    date, same_date = ("date, ", " AND date = touch_date") if across.is_daily else ("", "")
    return Sql(f"""
        SELECT {date}grouping(currency) = 1 AS in_all, touched, value, currency,
            sum(weight) AS conversions, count(DISTINCT person) AS people,
            sum(amount * weight) AS revenue
        FROM (
            SELECT *, touches > 0 AS touched, {question.model.sql} AS weight
            FROM (
                SELECT *, count(touch_key) OVER (PARTITION BY position) AS touches,
                    row_number() OVER (PARTITION BY position ORDER BY touch_key) AS number
                FROM ({_conversions(question, events, visits)})
                LEFT JOIN ({_touches(question, visits)})
                    ON person = touch_person AND touch_key <= key{same_date}
            )
        )
        WHERE weight > 0
        GROUP BY GROUPING SETS (({date}touched, value), ({date}touched, value, currency))""")


def _conversions(question: AttributionQuestion, events: Sql, visits: Sql) -> Sql:
    done = Sql(f"""
        SELECT *, timestamp::DATE AS date, {ORDER} AS key
        FROM ({events}) WHERE {DONE} AND {fits(question.goal)}""")
    if question.across is Across.USER:
        # A server that knows the visitor alone means the user of the visit, where one is known.
        done = Sql(f"""
            SELECT own.* REPLACE (coalesce(own.user_id, told.user_id) AS user_id)
            FROM ({done}) own
            LEFT JOIN (SELECT date, visitor_id, visit, user_id FROM ({visits})) told
                USING (date, visitor_id, visit)""")
    return Sql(f"""
        SELECT date, position, key, {question.across.sql} AS person,
            CASE WHEN revenue_currency IS NOT NULL THEN revenue_amount::DOUBLE END AS amount,
            CASE WHEN revenue_amount IS NOT NULL THEN revenue_currency END AS currency
        FROM ({done})""")


def _touches(question: AttributionQuestion, visits: Sql) -> Sql:
    return Sql(f"""
        SELECT date AS touch_date, {question.across.sql} AS touch_person,
            {question.by.sql} AS value,
            (epoch_us(started_at)::HUGEINT << 62) + first_position AS touch_key
        FROM ({visits}) WHERE pageviews > 0""")
