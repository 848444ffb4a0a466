"""One frame of the write-ahead log: the events of a request, or of some at once, checksummed.

A frame is a header of 40 bytes, little-endian, and a payload:

    magic "MWF1" | schema u16 | node u16 | count u32 | payload bytes u32 | first position i64 |
    loaded at i64 (microseconds) | CRC-32 of the payload u32 | CRC-32 of the header so far u32

The payload is that of `event.Frame`: a line for each row, which is JSON of the columns that
`COLUMNS_BY_VERSION[schema]` lists, and b"\\n" between two; of schema 1, a JSON array of arrays of
them. The header has a checksum of its own, so that a damaged payload does not hide where the next
frame begins, and a magic, so that after a damaged header the next frame can be searched for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import orjson

from mallard.errors import CorruptData
from mallard.event import (
    COLUMNS_BY_VERSION,
    LOG_SCHEMA_VERSION,
    Frame,
    to_event,
)

MAGIC = b"MWF1"
_FIELDS = struct.Struct("<4sHHIIqqI")
_CHECKSUM = struct.Struct("<I")
NODE_MAX = 0xFFF
HEADER_BYTES = _FIELDS.size + _CHECKSUM.size


class Header(NamedTuple):
    """What a frame says of itself before its payload."""

    magic: bytes
    schema: int
    node: int
    rows: int
    payload_bytes: int
    first_position: int
    loaded_at: int
    payload_crc: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a segment that are no whole frame.

    torn: they end the file and look like a write that never finished; nothing in them was
    acknowledged as durable. Otherwise something changed them after they were written.
    """

    offset: int
    length: int
    torn: bool


def encode(frame: Frame) -> tuple[bytes, bytes]:
    """Return a frame as it lies in the log: its header and its payload, which is not copied."""
    first_position, loaded_at, node, rows, payload = frame
    fields = _FIELDS.pack(
        MAGIC,
        LOG_SCHEMA_VERSION,
        node,
        rows,
        len(payload),
        first_position,
        loaded_at,
        crc32(payload),
    )
    return fields + _CHECKSUM.pack(crc32(fields)), payload


def size_bytes(frame: Frame) -> int:
    """Return what a frame takes in the log."""
    return HEADER_BYTES + len(frame.payload)


def decode(header: Header, payload: memoryview) -> Frame:
    """Return the frame of a header and its payload, whose checksum is known to be right."""
    first_position, loaded_at, node = header.first_position, header.loaded_at, header.node
    if header.schema == LOG_SCHEMA_VERSION:
        return Frame._make((first_position, loaded_at, node, header.rows, bytes(payload)))
    if header.schema in COLUMNS_BY_VERSION:
        columns = COLUMNS_BY_VERSION[header.schema]
        events = [to_event(columns, row) for row in orjson.loads(payload)]
        return Frame(first_position, loaded_at, node, events)
    raise CorruptData(
        f"the log was written by a newer Mallard (schema {header.schema}, this one reads up "
        f"to {LOG_SCHEMA_VERSION}). Start that version again, or upgrade this one."
    )


def scan(data: bytes) -> Iterator[tuple[Header, memoryview] | Damage]:
    """Yield the whole frames of a segment in order, and what lies between them that is none.

    data: without zeros at its end, where a frame begins that was not written, or not wholly.
    """
    view = memoryview(data)
    offset = 0
    while offset < len(data):
        header = _header(view, offset)
        if header is None:
            found = _next_frame(data, offset + 1)
            end = len(data) if found is None else found
            torn = found is None and end - offset < HEADER_BYTES
            yield Damage(offset, end - offset, torn)
            offset = end
            continue
        start = offset + HEADER_BYTES
        end = start + header.payload_bytes
        if end > len(data):
            yield Damage(offset, len(data) - offset, torn=True)
            return
        payload = view[start:end]
        if crc32(payload) == header.payload_crc:
            yield header, payload
        else:
            yield Damage(offset, end - offset, torn=False)
        offset = end


def _header(view: memoryview, offset: int) -> Header | None:
    fields = view[offset : offset + _FIELDS.size]
    checksum = view[offset + _FIELDS.size : offset + HEADER_BYTES]
    if len(checksum) < _CHECKSUM.size or crc32(fields) != _CHECKSUM.unpack(checksum)[0]:
        return None
    header = Header._make(_FIELDS.unpack(fields))
    # A node has 12 bits, so its high byte is a control character, which JSON never holds raw, and
    # the end of a line follows a null or a brace and a quote: no sender can write text that would
    # pass for a header when the search for one goes through it.
    return header if header.magic == MAGIC and header.node <= NODE_MAX else None


def _next_frame(data: bytes, start: int) -> int | None:
    view = memoryview(data)
    found = data.find(MAGIC, start)
    while found >= 0:
        if _header(view, found) is not None:
            return found
        found = data.find(MAGIC, found + 1)
    return None
