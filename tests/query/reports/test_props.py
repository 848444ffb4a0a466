from __future__ import annotations

from collections import defaultdict

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.event import Event
from mallard.query.period import Period
from mallard.query.reports.props import PropsQuestion, props
from tests.oracle import Stored, day_of
from tests.query.reports.laid import CHOICES, PERIODS, PHASES, again, asked, chosen, laid_out

QUESTIONS = st.builds(PropsQuestion, CHOICES, st.sampled_from([1, 100]), st.integers(0, 1))


def by_hand(stored: list[Stored], question: PropsQuestion) -> list[tuple[str, int, int]]:
    events: dict[str, int] = defaultdict(int)
    visitors: dict[str, set[object]] = defaultdict(set)
    for one in chosen(stored, question.choice):
        if one.event.event_type != "engagement":
            for key in orjson.loads(one.event.props or "{}"):
                events[key] += 1
                if one.event.visitor_id is not None:
                    visitors[key].add((day_of(one.event), one.event.visitor_id))
    found = [(key, len(visitors[key]), count) for key, count in events.items()]
    return sorted(found, key=lambda each: (-each[2], each[0]))


@settings(max_examples=10, deadline=None)
@given(phases=PHASES, questions=st.lists(QUESTIONS, min_size=3, max_size=3), shifted=PERIODS)
def test_properties_are_counted_as_plain_python_counts_them(
    phases: tuple[list[Event], ...], questions: list[PropsQuestion], shifted: Period
) -> None:
    with laid_out(phases) as room:
        for question in again(questions, shifted):
            found = asked(room, props, question)
            every = by_hand(room.events, question)
            told = [(each.key, each.visitors, each.events) for each in found.rows]
            assert told == every[question.offset :][: question.limit]
            assert found.total_rows == len(every)
