from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.buffer.buffer import Buffer
from mallard.event import Frame
from mallard.query import tail
from mallard.query.tail import Tail, view_of
from tests.factories import NOON_US, make_event

SITES = ("a.example", "b.example", "c.example")


class Held:
    """Stands for a buffer: the frames that are not in parts yet."""

    def __init__(self) -> None:
        self.frames: tuple[Frame, ...] = ()
        self.next_position = 1

    def tail(self) -> tuple[Frame, ...]:
        return self.frames

    def append(self, sites: list[str]) -> None:
        events = [make_event(site_id=site) for site in sites]
        self.frames += (Frame(self.next_position, NOON_US, 1, events),)
        self.next_position += len(events)

    def release(self, watermark: int) -> None:
        self.frames = tuple(each for each in self.frames if each.last_position > watermark)

    def positions(self, site: str, watermark: int) -> list[int]:
        return [
            frame.first_position + number
            for frame in self.frames
            for number, event in enumerate(frame.events)
            if event.site_id == site and frame.first_position + number > watermark
        ]


@settings(deadline=None)
@given(st.data())
def test_however_often_it_is_looked_at_a_view_has_each_event_past_the_watermark_once(
    data: st.DataObject,
) -> None:
    held, watermark = Held(), 0
    looking = Tail(cast(Buffer, held))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tail, "CHUNK_EVENTS", 4)
        for step in data.draw(st.lists(st.sampled_from(["append", "look", "release"]))):
            if step == "append":
                held.append(data.draw(st.lists(st.sampled_from(SITES), min_size=1, max_size=6)))
            elif step == "release":
                watermark = data.draw(st.integers(watermark, held.next_position - 1))
                held.release(watermark)
            else:
                view = looking.view()
                last = held.next_position - 1 if held.frames else 0
                assert view.last_position == looking.last_position == last
                for site in SITES[:2]:
                    found = view.after(watermark, site)
                    positions = [] if found is None else found["position"].to_pylist()
                    assert positions == held.positions(site, watermark)
                both = view.all_after(watermark, SITES[1:])["position"].to_pylist()
                expected = [p for site in SITES[1:] for p in held.positions(site, watermark)]
                assert both == sorted(expected)


def test_a_view_stays_what_it_was_when_more_comes_and_what_it_has_goes() -> None:
    held = Held()
    looking = Tail(cast(Buffer, held))
    held.append(["a.example", "b.example"])
    before = looking.view()
    held.append(["a.example"])
    assert looking.view().all_after(0, None)["position"].to_pylist() == [1, 2, 3]
    held.release(3)
    assert looking.view().all_after(0, None).num_rows == 0
    assert before.all_after(0, None)["position"].to_pylist() == [1, 2]


def test_a_log_that_was_read_is_viewed_the_same_way() -> None:
    held = Held()
    for _ in range(3):
        held.append(["a.example", "b.example"])
    view = view_of(held.frames)
    assert view.last_position == 6
    found = view.after(3, "a.example")
    assert found is not None
    assert found["position"].to_pylist() == [5]
