from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest

from mallard.store.turns import turns


def order_of(visits: Sequence[tuple[int | None, int | None]]) -> list[int]:
    visitor_id, visit = zip(*visits, strict=True)
    order = turns(pa.array(visitor_id, pa.int64()), pa.array(visit, pa.int16()))
    found: list[int] = order.to_pylist()
    return found


def test_first_come_the_first_events_of_visits_that_have_as_many_then_the_second() -> None:
    events = [(visitor, 1) for visitor in range(8) for _ in range(3)]
    firsts = list(range(0, 24, 3))
    assert order_of(events) == [
        *firsts,
        *(at + 1 for at in firsts),
        *(at + 2 for at in firsts),
    ]


def test_visits_of_another_length_between_them_and_less_than_eight_take_no_turns() -> None:
    events = [(visitor, 1) for visitor in range(7) for _ in range(2)]
    events += [(7, 1)]
    events += [(visitor, 1) for visitor in range(8, 15) for _ in range(2)]
    assert order_of(events) == list(range(len(events)))


@pytest.mark.parametrize("visits", [1, 8, 31, 32, 33, 40, 75, 256])
def test_every_row_comes_once_and_those_of_a_visit_in_their_order(visits: int) -> None:
    events: list[tuple[int | None, int | None]] = [(None, None)] * 3
    events += [(at % 11, at) for at in range(visits) for _ in range(2)]
    events += [(5, 900 + at) for at in range(9) for _ in range(4)]
    found = order_of(events)
    assert sorted(found) == list(range(len(events)))
    for one in set(events):
        rows = [at for at in found if events[at] == one]
        assert rows == sorted(rows)


def test_at_most_thirty_two_visits_take_turns_and_the_last_of_them_in_eights() -> None:
    found = order_of([(visitor, 1) for visitor in range(50) for _ in range(2)])
    assert found[:64] == [*range(0, 64, 2), *range(1, 64, 2)]
    assert found[64:96] == [*range(64, 96, 2), *range(65, 96, 2)]
    assert found[96:] == [96, 97, 98, 99]
