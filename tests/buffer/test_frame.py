from __future__ import annotations

import struct
from decimal import Decimal
from zlib import crc32

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.buffer.frame import (
    HEADER_BYTES,
    MAGIC,
    Damage,
    Header,
    decode,
    encode,
    scan,
    size_bytes,
)
from mallard.errors import CorruptData
from mallard.event import LINE_COLUMNS, LOG_SCHEMA_VERSION, Event, Frame, pack
from tests.factories import make_event
from tests.strategies import EVENTS

FRAMES = [
    Frame(1, 10, 3, (Event("a.example", 5, "one"),)),
    Frame(2, 20, 3, (Event("b.example", 6, "two"), Event("b.example", 7, "three"))),
    Frame(4, 30, 3, (Event("c.example", 8, "four", url="https://c.example/é"),)),
]


def to_bytes(frame: Frame) -> bytes:
    return b"".join(encode(frame))


def read(data: bytes) -> tuple[list[Frame], list[Damage]]:
    items = list(scan(data))
    return (
        [decode(*item) for item in items if not isinstance(item, Damage)],
        [item for item in items if isinstance(item, Damage)],
    )


@pytest.mark.parametrize("rows", [1, 2])
def test_a_text_may_hold_what_stands_between_rows(rows: int) -> None:
    frame = Frame(1, 1, 0, (make_event(props='{"a":"],["}'),) * rows)
    assert read(to_bytes(frame)) == ([frame], [])


@settings(max_examples=200)
@given(
    st.lists(EVENTS, min_size=1, max_size=3),
    st.integers(1, 2**63 - 10),
    st.integers(0, 2**62),
    st.integers(0, 4095),
)
def test_what_goes_into_the_log_comes_out_of_it_every_column(
    events: list[Event], position: int, loaded_at: int, node: int
) -> None:
    frame = Frame(position, loaded_at, node, tuple(events))
    data = to_bytes(frame)
    frames, damage = read(data)
    assert frames == [frame]
    assert damage == []
    assert size_bytes(frame) == len(data)
    types = [type(value) for event in frame.events for value in event]
    assert [type(value) for event in frames[0].events for value in event] == types


def test_a_decimal_keeps_its_digits() -> None:
    frame = Frame(1, 1, 0, (make_event(revenue_amount=Decimal("10.10")),))
    ((found,), _) = read(to_bytes(frame))
    assert str(found.events[0].revenue_amount) == "10.10"


def test_a_log_cut_at_any_byte_of_its_last_frame_reads_up_to_it_and_says_torn() -> None:
    first, second, third = map(to_bytes, FRAMES)
    start = len(first + second)
    for cut in range(1, len(third)):
        frames, damage = read((first + second + third)[: start + cut])
        assert frames == FRAMES[:2]
        assert damage == [Damage(start, cut, torn=True)]
    assert read(first + second) == (FRAMES[:2], [])


def test_one_flipped_bit_anywhere_costs_one_frame_at_most_and_is_told() -> None:
    log = b"".join(map(to_bytes, FRAMES))
    starts = [0, len(to_bytes(FRAMES[0])), len(to_bytes(FRAMES[0]) + to_bytes(FRAMES[1])), len(log)]
    for bit in range(len(log) * 8):
        changed = bytearray(log)
        changed[bit // 8] ^= 1 << bit % 8
        hit = max(index for index in range(3) if starts[index] <= bit // 8)
        frames, damage = read(bytes(changed))
        assert frames == [frame for index, frame in enumerate(FRAMES) if index != hit]
        # Bytes that changed are never called the remains of an unfinished write.
        expected = Damage(starts[hit], starts[hit + 1] - starts[hit], torn=False)
        assert damage == [expected], f"bit {bit}"


def test_other_bytes_at_the_end_are_damage() -> None:
    log = to_bytes(FRAMES[0])
    assert read(log + b"\xff" * 100) == ([FRAMES[0]], [Damage(len(log), 100, torn=False)])


def test_zeros_between_frames_are_damage() -> None:
    first, _, third = map(to_bytes, FRAMES)
    frames, damage = read(first + bytes(64) + third)
    assert frames == [FRAMES[0], FRAMES[2]]
    assert damage == [Damage(len(first), 64, torn=False)]


def forged_header() -> str:
    """A header whose bytes are all printable, so that it can stand in an event's text."""
    for guess in range(0x20202020, 0x7E7E7E7E):
        fields = struct.pack(
            "<4sHHIIqqI", MAGIC, 1 << 13 | 32, 0x2020, 0x20202020, 0x20202020, guess, guess, guess
        )
        fields = fields.replace(b"\0", b" ")
        checksum = struct.pack("<I", crc32(fields))
        if all(0x20 <= byte < 0x7F and byte not in b'"\\' for byte in fields + checksum):
            return (fields + checksum).decode()
    raise AssertionError("no such header")


def test_a_sender_who_writes_the_magic_or_a_whole_header_hides_no_frame() -> None:
    evil = Frame(1, 1, 3, (make_event(props=orjson.dumps({"a": "MWF1" * 20}).decode()),) * 2)
    forged = Frame(3, 2, 3, (make_event(event_name=forged_header()),))
    after = Frame(4, 3, 3, (make_event(),))
    log = bytearray(b"".join(map(to_bytes, (evil, forged, after))))
    assert forged_header().encode() in log
    start = len(to_bytes(evil))
    log[1] ^= 1  # both headers are damaged, so that their text is searched for the next frame
    log[start + 1] ^= 1
    frames, damage = read(bytes(log))
    assert frames == [after]
    assert damage == [Damage(0, start + len(to_bytes(forged)), torn=False)]


@given(st.lists(EVENTS, min_size=1, max_size=3))
def test_a_frame_of_the_first_release_which_has_every_column_reads_the_same(
    events: list[Event],
) -> None:
    payload = orjson.dumps([tuple(event) for event in events], default=str)
    frame = Frame(5, 7, 3, events)
    header = Header(MAGIC, 1, 3, len(events), len(payload), 5, 7, crc32(payload))
    assert decode(header, memoryview(payload)) == frame


def test_a_frame_of_a_newer_release_is_not_guessed_at() -> None:
    header = Header(MAGIC, LOG_SCHEMA_VERSION + 1, 0, 1, 2, 1, 1, 0)
    with pytest.raises(CorruptData, match="newer Mallard"):
        decode(header, memoryview(b"[]"))


def test_text_that_is_no_unicode_is_a_type_error_and_a_number_too_big_a_value_error() -> None:
    with pytest.raises(TypeError):
        pack((make_event(url="\ud800"),))
    with pytest.raises(ValueError, match="cannot"):
        pack((make_event(quantity=2**63),))


def test_the_format_on_disk_is_the_one_that_is_described() -> None:
    data = to_bytes(FRAMES[1])
    payload = data[40:]
    assert HEADER_BYTES == 40
    fields = (b"MWF1", 2, 3, 2, len(payload), 2, 20, crc32(payload))
    assert struct.unpack("<4sHHIIqqI", data[:36]) == fields
    assert struct.unpack("<I", data[36:40]) == (crc32(data[:36]),)
    rows = [orjson.loads(b"[%b]" % line) for line in payload.split(b"\n")]
    assert [row[:3] for row in rows] == [["b.example", 6, None], ["b.example", 7, None]]
    assert {len(row) for row in rows} == {len(LINE_COLUMNS)}
