from __future__ import annotations

from collections import Counter
from datetime import timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.clock import to_datetime
from mallard.event import Event
from mallard.query.period import Period, micros
from mallard.query.reports.chosen import Choice
from mallard.query.reports.realtime import RealtimeQuestion, realtime
from tests.oracle import Stored, day_of
from tests.query.reports.laid import FILTERS, PHASES, asked, chosen, laid_out
from tests.query.test_answers import SITE

UTC = ZoneInfo("UTC")
MIDNIGHT_US = 1_714_608_000_000_000  # of strategies.VISITED_AT
MINUTE_US = 60_000_000
QUESTIONS = st.builds(
    lambda minute, second, keep: RealtimeQuestion(
        SITE, to_datetime(MIDNIGHT_US + minute * MINUTE_US + second * 1_000_000), UTC, keep, 100
    ),
    st.sampled_from([-27, 0, 3, 12, 31]),
    st.sampled_from([0, 1, 59]),
    FILTERS,
)


def by_hand(stored: list[Stored], question: RealtimeQuestion) -> dict[str, object]:
    now_us = micros(question.now)
    minute = now_us // MINUTE_US
    start, end = to_datetime((minute - 29) * MINUTE_US), to_datetime((minute + 1) * MINUTE_US)
    ones = chosen(stored, Choice(SITE, Period(start, end, UTC), question.keep))
    with_visitor = [one for one in ones if one.event.visitor_id is not None]
    minutes = []
    for number in range(minute - 29, minute + 1):
        of_minute = [one for one in ones if one.event.timestamp // MINUTE_US == number]
        visitors = {
            (day_of(one.event), one.event.visitor_id)
            for one in of_minute
            if one.event.visitor_id is not None
        }
        pages = sum(one.event.event_type == "page" for one in of_minute)
        minutes.append((len(visitors), pages))
    current = [one for one in with_visitor if one.event.timestamp > now_us - 5 * MINUTE_US]
    page: dict[object, str | None] = {}
    source: dict[object, str | None] = {}
    for one in current:
        who = (day_of(one.event), one.event.visitor_id)
        page.setdefault(who, None)
        if one.event.event_type == "page":
            page[who] = one.event.pathname
        told = one.visit.events[0].event if one.visit else one.event
        source[who] = told.referrer_source
    return {
        "visitors": len(page),
        "minutes": minutes,
        "pages": Counter(page.values()),
        "sources": Counter(source.values()),
    }


@settings(max_examples=7, deadline=None)
@given(phases=PHASES, questions=st.lists(QUESTIONS, min_size=4, max_size=4))
def test_who_is_there_now_is_what_plain_python_says(
    phases: tuple[list[Event], ...], questions: list[RealtimeQuestion]
) -> None:
    with laid_out(phases) as room:
        for question in questions:
            found = asked(room, realtime, question)
            assert by_hand(room.events, question) == {
                "visitors": found.visitors,
                "minutes": [(each.visitors, each.pageviews) for each in found.minutes],
                "pages": dict(found.pages),
                "sources": dict(found.sources),
            }
            (last,) = found.minutes[-1:]
            assert last.start <= question.now < last.start + timedelta(minutes=1)
            assert sum(count for _, count in found.countries) == found.visitors
