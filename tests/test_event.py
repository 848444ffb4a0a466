from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mallard import event as event_module
from mallard.event import (
    ARROW_SCHEMA,
    INSTANT_MAX,
    INT32_MAX,
    INT64_MAX,
    INT64_MIN,
    Event,
    Frame,
    check,
    pack,
    to_table,
    unpack,
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


# What stands between rows, what CSV and JSON each give a meaning of their own, and what looks null.
_TRICKY = st.text(st.sampled_from('"\\,[]nulltrue \u2028\ufeffé-1'), max_size=8)
_TRICKY_EVENTS = st.builds(
    make_event,
    site_id=_TRICKY,
    event_name=_TRICKY | st.just("null"),
    props=_TRICKY | st.sampled_from(["", '{"a":"],[\\"null"}', "],[", "]],[["]) | st.none(),
    city=_TRICKY | st.sampled_from(["\n", "\r\n", "\x00", "\x7f", "\\n"]),
    revenue_amount=st.none() | st.sampled_from(list(map(Decimal, ("1E+3", "-0.01", "12.3", "0")))),
    quantity=st.none() | st.integers(INT64_MIN, INT64_MAX),
    interactive=st.booleans(),
)


@given(st.lists(st.lists(_TRICKY_EVENTS | EVENTS, min_size=1, max_size=3), min_size=1, max_size=4))
@example([[make_event(props="],[")], [make_event(), make_event()]])
@example([[make_event(props="],["), make_event(props="[]")]])
def test_a_table_holds_what_the_events_hold_however_its_rows_were_read(
    groups: list[list[Event]],
) -> None:
    frames, position = [], 1
    for group in groups:
        frames.append(Frame(position, 1, 0, group))
        position += len(group)
    events = [event for group in groups for event in group]
    expected = {
        name: pa.array(values, type=ARROW_SCHEMA.field(name).type).to_pylist()
        for name, values in zip(Event._fields, zip(*events, strict=True), strict=True)
    }
    table = to_table(frames)
    table.validate(full=True)
    assert table.drop_columns(["position", "node", "loaded_at"]).to_pydict() == expected
    assert table["position"].to_pylist() == list(range(1, position))


@pytest.mark.parametrize(
    ("text", "by_csv"),
    [
        ("plain", True),
        ('"quoted\\', True),
        ("[1],[2]", True),
        ('{"text":"two\\nlines"}', True),
        ("two\nlines", False),
        ("a backslash and\\\nanother line", False),
    ],
)
@pytest.mark.parametrize("rows", [1, 2])
def test_only_rows_with_other_escapes_than_of_quotes_need_the_interpreter(
    text: str, by_csv: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(payload: bytes) -> tuple[Event, ...]:
        raise AssertionError("unpacked")

    monkeypatch.setattr(event_module, "unpack", never)
    frames = [Frame(1, 1, 0, [make_event(props=text)] * rows)]
    if by_csv:
        assert to_table(frames)["props"].to_pylist() == [text] * rows
    else:
        with pytest.raises(AssertionError, match="unpacked"):
            to_table(frames)


def test_of_many_rows_only_those_beside_one_with_such_an_escape_need_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unpacked: list[int] = []

    def counted(payload: bytes) -> tuple[Event, ...]:
        unpacked.append(payload.count(b"\n") + 1)
        return unpack(payload)

    monkeypatch.setattr(event_module, "unpack", counted)
    frames = [Frame(1 + 100 * number, 1, 0, [make_event()] * 100) for number in range(80)]
    frames[50] = Frame(5001, 1, 0, [make_event(props="two\nlines")] * 100)
    table = to_table(frames)
    assert sum(unpacked) <= event_module.JSON_ROWS
    assert table["position"].to_pylist() == list(range(1, 8001))
    assert [row for row, text in enumerate(table["props"].to_pylist()) if text] == [
        *range(5000, 5100)
    ]


def test_rows_are_read_whole_where_a_block_ends_within_one() -> None:
    texts = [f"{number} " + "é" * (number * 37 % 4096) for number in range(1000)]
    long = "x" * (event_module.READ_BYTES + 1)
    frames = [Frame(1, 1, 0, [make_event(props=text) for text in texts])]
    assert len(frames[0].payload) > 2 * event_module.READ_BYTES
    for more in ([], [Frame(1001, 1, 0, [make_event(props=long)])]):
        some = [*(Frame(1 + at, 1, 0, [make_event(props=t)]) for at, t in enumerate(texts)), *more]
        expected = [*texts, *([long] if more else [])]
        assert to_table(some)["props"].to_pylist() == expected
    assert to_table(frames)["props"].to_pylist() == texts


@given(st.lists(EVENTS, min_size=1, max_size=3))
def test_what_is_packed_is_unpacked_as_it_was(events: list[Event]) -> None:
    assert unpack(pack(events)) == tuple(events)


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
