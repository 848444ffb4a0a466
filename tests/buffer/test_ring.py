from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mallard.buffer.ring import Ring
from mallard.event import Frame
from tests.factories import make_event

EVENT = make_event()
CAPACITY = 12


def make_frame(first_position: int, count: int) -> Frame:
    return Frame(first_position, 100 + first_position, 0, (EVENT,) * count)


def test_room_is_given_up_to_the_bound_in_events_and_not_beyond() -> None:
    ring = Ring(3, 1_000)
    assert ring.reserve(2)
    assert not ring.reserve(2)
    assert ring.reserve(1)
    assert not ring.reserve(1)
    ring.cancel(2)
    assert ring.reserve(2)


def test_what_is_free_could_be_reserved_and_who_asked_is_told_when_there_is_more() -> None:
    ring = Ring(100, 1_000)
    free: list[int] = []
    ring.tell(lambda: free.append(ring.free_events))
    assert ring.reserve(80)
    assert ring.free_events == 20
    ring.cancel(5)
    ring.publish([(make_frame(1, 75), 1_000)])
    assert ring.free_events == 0
    ring.release(75)
    assert free == [25, 100]


def test_no_room_is_given_once_the_bound_in_bytes_is_reached() -> None:
    ring = Ring(100, 1_000)
    assert ring.reserve(1)
    ring.publish([(make_frame(1, 1), 1_000)])
    assert not ring.reserve(1)
    ring.release(1)
    assert ring.reserve(1)


def test_what_the_log_gives_back_is_held_even_when_it_is_more_than_the_bound() -> None:
    ring = Ring(2, 10)
    ring.restore(make_frame(1, 5), 50)
    assert ring.events == 5
    assert not ring.reserve(1)
    ring.release(5)
    assert ring.reserve(2)


def test_a_release_lets_go_of_whole_frames_only_and_of_the_oldest_first() -> None:
    ring = Ring(10, 1_000)
    first, second = make_frame(1, 2), make_frame(3, 2)
    assert ring.reserve(4)
    ring.publish([(first, 10), (second, 10)])
    ring.release(3)
    assert ring.tail() == (second,)
    assert ring.size_bytes == 10
    ring.release(4)
    assert ring.tail() == ()


class RingMachine(RuleBasedStateMachine):
    """A ring beside plain lists that say what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = Ring(CAPACITY, 10_000)
        self.waiting: list[int] = []
        self.held: list[Frame] = []
        self.next = 1

    @rule(count=st.integers(1, 5))
    def reserve(self, count: int) -> None:
        used = sum(self.waiting) + sum(len(frame.events) for frame in self.held)
        assert self.ring.reserve(count) == (used + count <= CAPACITY)
        if used + count <= CAPACITY:
            self.waiting.append(count)

    @rule()
    def cancel(self) -> None:
        if self.waiting:
            self.ring.cancel(self.waiting.pop())

    @rule()
    def publish(self) -> None:
        frames = []
        for count in self.waiting:
            frames.append(make_frame(self.next, count))
            self.next += count
        self.waiting = []
        self.ring.publish([(frame, len(frame.events) * 7) for frame in frames])
        self.held += frames

    @rule(back=st.integers(0, 8))
    def release(self, back: int) -> None:
        watermark = self.next - 1 - back
        self.ring.release(watermark)
        self.held = [frame for frame in self.held if frame.last_position > watermark]

    @invariant()
    def holds_what_was_published_and_not_released(self) -> None:
        events = sum(len(frame.events) for frame in self.held)
        assert self.ring.tail() == tuple(self.held)
        assert self.ring.events == events <= CAPACITY
        assert self.ring.size_bytes == events * 7


RingMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestRing = RingMachine.TestCase
