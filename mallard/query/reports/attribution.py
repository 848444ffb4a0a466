"""Attribution: which sources, channels or campaigns a goal's conversions are owed to.

A touch is a visit with a pageview, and it may have led to the conversions at or after its start of
the same person: an anonymous visitor within one UTC day, or a user by `user_id` across the days
that the period touches. A conversion that no touch leads to is owed to none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from mallard.query.answers import Answers
from mallard.query.dimensions import Dimension
from mallard.query.engine import Session
from mallard.query.filters import Filter, fits
from mallard.query.reports.chosen import DONE, ORDER, Choice, Chosen, chosen
from mallard.query.sql import Sql

DIMENSIONS = (
    *(Dimension.SOURCE, Dimension.CHANNEL, Dimension.REFERRER),
    *(Dimension.UTM_SOURCE, Dimension.UTM_MEDIUM, Dimension.UTM_CAMPAIGN),
)


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
    """Within what a conversion and its touches are one person's; `sql` names the person."""

    sql: Sql

    VISITOR = "visitor", "CASE WHEN visitor_id IS NOT NULL THEN (date, visitor_id) END"
    USER = "user", "user_id"

    def __new__(cls, name: str, sql: str) -> Across:
        """Make a member whose value is its name."""
        member = object.__new__(cls)
        member._value_ = name
        member.sql = Sql(sql)
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


def attribution(session: Session, answers: Answers, question: AttributionQuestion) -> list[Credit]:
    """Return the credits, the largest first."""
    with chosen(session, answers, question.choice) as found:
        rows = session.rows(
            Sql(f"""
            SELECT touches > 0 AS touched, value, currency, grouping(currency) AS in_all,
                sum(weight) AS conversions, count(DISTINCT person) AS people,
                sum(amount * weight) AS revenue
            FROM (
                SELECT *, {question.model.sql} AS weight
                FROM (
                    SELECT *, count(touch_key) OVER (PARTITION BY position) AS touches,
                        row_number() OVER (PARTITION BY position ORDER BY touch_key) AS number
                    FROM ({_conversions(found, question)})
                    LEFT JOIN ({_touches(found, question)})
                        ON person = touch_person AND touch_key <= key
                )
            )
            WHERE weight > 0
            GROUP BY GROUPING SETS ((touched, value), (touched, value, currency))
            ORDER BY in_all DESC, conversions DESC, value NULLS LAST, currency""")
        )
    owed: dict[tuple[bool, str | None], Credit] = {}
    for touched, value, currency, in_all, conversions, people, revenue in rows:
        if in_all:
            owed[touched, value] = Credit(touched, value, conversions, people)
        elif currency is not None:
            credit = owed[touched, value]
            more = tuple(sorted((*credit.revenue, (currency, revenue))))
            owed[touched, value] = replace(credit, revenue=more)
    return list(owed.values())


def _conversions(found: Chosen, question: AttributionQuestion) -> Sql:
    # A server that knows the visitor alone means the user of the visit, where one is known.
    return Sql(f"""
        SELECT position, key, {question.across.sql} AS person,
            CASE WHEN revenue_currency IS NOT NULL THEN revenue_amount::DOUBLE END AS amount,
            CASE WHEN revenue_amount IS NOT NULL THEN revenue_currency END AS currency
        FROM (
            SELECT own.* REPLACE (coalesce(own.user_id, told.user_id) AS user_id)
            FROM (
                SELECT *, timestamp::DATE AS date, {ORDER} AS key
                FROM ({found.events}) WHERE {DONE} AND {fits(question.goal)}
            ) own
            LEFT JOIN (SELECT date, visitor_id, visit, user_id FROM ({found.visits})) told
                USING (date, visitor_id, visit)
        )""")


def _touches(found: Chosen, question: AttributionQuestion) -> Sql:
    return Sql(f"""
        SELECT {question.across.sql} AS touch_person, {question.by.sql} AS value,
            (epoch_us(started_at)::HUGEINT << 62) + first_position AS touch_key
        FROM ({found.visits}) WHERE pageviews > 0""")
