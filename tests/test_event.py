from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given

from mallard.event import (
    ARROW_SCHEMA,
    INSTANT_MAX,
    INT32_MAX,
    INT64_MAX,
    INT64_MIN,
    Event,
    Frame,
    check,
    to_table,
)
from tests.factories import make_event
from tests.strategies import EVENTS

TOO_MUCH: list[tuple[str, Any]] = [
    ("timestamp", -1),
    ("timestamp", INSTANT_MAX + 1),
    ("sent_at", -1),
    ("sent_at", INT64_MAX),
    ("received_at", INSTANT_MAX + 1),
    ("screen_width", -1),
    ("screen_width", INT32_MAX + 1),
    ("scroll_depth", -1),
    ("scroll_depth", 101),
    ("visitor_id", INT64_MAX + 1),
    ("visitor_id", INT64_MIN - 1),
    ("sequence_number", INT64_MAX + 1),
    ("quantity", 2**70),
    ("engaged_ms", INT64_MAX + 1),
    ("revenue_amount", Decimal("10000000000.00")),
    ("revenue_amount", Decimal("-10000000000.00")),
    ("revenue_amount", Decimal("0.001")),
    ("revenue_amount", Decimal("NaN")),
    ("revenue_amount", Decimal("sNaN")),
    ("revenue_amount", Decimal("-Infinity")),
    ("revenue_amount", Decimal("9E+999999999")),
]


@pytest.mark.parametrize(("column", "value"), TOO_MUCH)
def test_a_number_that_its_column_cannot_hold_is_refused(column: str, value: object) -> None:
    with pytest.raises(ValueError, match="cannot"):
        check(make_event(**{column: value}))


@given(EVENTS)
def test_whatever_passes_the_check_becomes_a_row_that_says_the_same(event: Event) -> None:
    check(event)
    (row,) = to_table([Frame(1, 1, 0, (event,))]).to_pylist()
    assert row["revenue_amount"] == event.revenue_amount
    assert row["visitor_id"] == event.visitor_id
    assert row["props"] == event.props
    assert row["interactive"] == event.interactive


def test_rows_of_several_frames_carry_their_position_node_and_commit_time() -> None:
    table = to_table(
        [
            Frame(7, 100, 5, (make_event(), make_event())),
            Frame(9, 200, 5, (make_event(event_name="signup"),)),
        ]
    )
    assert table.schema.equals(ARROW_SCHEMA, check_metadata=True)
    assert table["position"].to_pylist() == [7, 8, 9]
    assert table["node"].to_pylist() == [5, 5, 5]
    assert [t.microsecond for t in table["loaded_at"].to_pylist()] == [100, 100, 200]
    assert table["event_name"].to_pylist() == ["pageview", "pageview", "signup"]


def test_no_frames_make_a_table_with_every_column_and_no_row() -> None:
    table = to_table([])
    assert table.num_rows == 0
    assert table.schema.equals(ARROW_SCHEMA)


def test_every_column_of_an_event_is_a_column_of_the_table_in_the_same_order() -> None:
    assert tuple(ARROW_SCHEMA.names) == ("position", "node", "loaded_at", *Event._fields)


def test_the_last_position_of_a_frame_is_that_of_its_last_event() -> None:
    assert Frame(7, 0, 0, (make_event(), make_event())).last_position == 8
