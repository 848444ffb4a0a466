from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.event import Event
from mallard.query.dimensions import Dimension
from mallard.query.filters import Condition, Operator
from mallard.query.period import Interval, buckets, micros
from mallard.query.reports.revenue import Income, Revenue, RevenueQuestion, revenue
from mallard.query.reports.table import Goal
from tests.oracle import Stored
from tests.oracle_answers import fits, value_of
from tests.query.reports.laid import CHOICES, PHASES, asked, chosen, laid_out

GOALS = (
    Goal("Buys", Condition(Dimension.NAME, Operator.IS, ("purchase",))),
    Goal("Prices", Condition(Dimension.PAGE, Operator.IS, ("/pricing",))),
)
QUESTIONS = st.builds(
    lambda choice, how: RevenueQuestion(choice, currency="USD", **how),
    CHOICES,
    st.sampled_from(
        [
            {},
            {"by": Dimension.SOURCE},
            {"by": Dimension.PAGE},
            {"by": Dimension.UTM_SOURCE},
            {"goals": GOALS},
            {"goals": ()},
            {"interval": Interval.DAY},
        ]
    ),
)


def by_hand(stored: list[Stored], question: RevenueQuestion) -> dict[object, tuple[Decimal, int]]:
    cut = buckets(question.choice.period, question.interval)
    found: dict[object, tuple[Decimal, int]] = defaultdict(lambda: (Decimal(0), 0))
    currencies = set()
    for one in chosen(stored, question.choice):
        amount, currency = one.event.revenue_amount, one.event.revenue_currency
        if amount is None or currency is None:
            continue
        currencies.add(currency)
        groups: list[object] = [None]
        if question.by:
            groups = [value_of(question.by, one.event, one.visit)]
        if question.goals is not None:
            groups = [goal.name for goal in question.goals if fits(goal.keep, one.event, one.visit)]
        if question.interval:
            at = one.event.timestamp
            groups = [each for each in cut if micros(each.start) <= at < micros(each.end)]
        for group in groups:
            before = found[group, currency]
            found[group, currency] = (before[0] + amount, before[1] + 1)
    if question.interval:
        for bucket in cut:
            for currency in currencies:
                found.setdefault((bucket, currency), (Decimal(0), 0))
    return dict(found)


def group(row: Income, question: RevenueQuestion) -> object:
    return row.bucket if question.interval else row.value


@settings(max_examples=7, deadline=None)
@given(phases=PHASES, questions=st.lists(QUESTIONS, min_size=6, max_size=6))
def test_revenue_is_what_plain_python_says(
    phases: tuple[list[Event], ...], questions: list[RevenueQuestion]
) -> None:
    with laid_out(phases) as room:
        for question in questions:
            found: Revenue = asked(room, revenue, question)
            told = {
                (group(row, question), row.currency): (row.amount, row.events) for row in found.rows
            }
            assert told == by_hand(room.events, question)
            assert len(told) == found.total_rows == len(found.rows)
            if not question.interval:
                assert [row.currency != "USD" for row in found.rows] == sorted(
                    row.currency != "USD" for row in found.rows
                )


def test_an_average_is_of_the_events_that_brought_money() -> None:
    assert Income(None, None, "EUR", Decimal("10.00"), 3).average == Decimal("3.33")
    assert Income(None, None, "EUR", Decimal("0.00"), 0).average is None
