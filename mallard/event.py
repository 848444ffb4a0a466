"""An event: one immutable row, with the same columns in the log, the ring, the parts and every API.

`Event` is the one list of columns. What the commit alone can say of a row, its `position`,
`node` and `loaded_at`, stands on the `Frame` that carries it: the events of a frame
are neighbours, so the position of the i-th is `first_position + i`.

Instants are whole microseconds since 1970-01-01 UTC. A time that equals `timestamp` is None and
restored by the view in `query/events.py`; so is `event_id`, a UUIDv7 made of the milliseconds of
`timestamp`, `node` and `position`.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Any, NamedTuple, Self

import orjson
import pyarrow as pa
from pyarrow import csv

REVENUE_MAX = Decimal("9999999999.99")  # DECIMAL(12,2)
INT32_MAX = 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
INSTANT_MAX = 253_402_300_799_999_999  # the end of the year 9999, in microseconds


class Event(NamedTuple):
    """What is known of one event before it is committed; None where it is not known."""

    site_id: str
    timestamp: int
    event_name: str
    event_type: str = "track"
    source: str = "API"
    ingest_api: str = "event"
    interactive: bool = True
    stream_id: str | None = None
    sequence_number: int | None = None
    idempotency_key: str | None = None
    sent_at: int | None = None
    received_at: int | None = None
    visitor_id: int | None = None
    session_id: str | None = None
    anonymous_id: str | None = None
    user_id: str | None = None
    company_id: str | None = None
    url: str | None = None
    hostname: str | None = None
    pathname: str | None = None
    referrer: str | None = None
    referrer_source: str | None = None
    channel: str | None = None
    utm_source: str | None = None
    utm_medium: str | None = None
    utm_campaign: str | None = None
    utm_content: str | None = None
    utm_term: str | None = None
    click_id_kind: str | None = None
    country_code: str | None = None
    region: str | None = None
    city: str | None = None
    browser: str | None = None
    browser_version: str | None = None
    os: str | None = None
    os_version: str | None = None
    device_type: str | None = None
    screen_width: int | None = None
    language: str | None = None
    props: str | None = None
    data: str | None = None
    metadata: str | None = None
    revenue_amount: Decimal | None = None
    revenue_currency: str | None = None
    quantity: int | None = None
    engaged_ms: int | None = None
    scroll_depth: int | None = None
    backfill: bool = False
    trusted_clock: bool = False


# An event as its columns in their order: an `Event`, or the same as a plain tuple.
Row = tuple[Any, ...]
# A row as the JSON array of `LINE_COLUMNS`, without the brackets: what the log, the ring and
# Arrow's reader of CSV have in common. It holds no end of a line: JSON writes those as escapes.
Line = bytes


class _Packed(NamedTuple):
    first_position: int
    loaded_at: int
    node: int
    rows: int
    payload: bytes


class Frame(_Packed):
    """Events that were committed together, at once or not at all, packed as they lie in the log.

    first_position: of its first event; the i-th has first_position + i. loaded_at: when, in
    microseconds; it never goes back as positions grow. node: 12 bits, which server. rows: how many
    events. payload: `pack(events)`, a line for each; `Frame._make` takes it as it is, in the place
    of events.

    Nobody but tests looks at single events of a frame. Packed they are one object instead of
    fifty, which is a third of the memory, and freeing them after a flush costs nothing.
    """

    __slots__ = ()

    def __new__(cls, first_position: int, loaded_at: int, node: int, events: Sequence[Row]) -> Self:
        """Pack events; raises what `pack` raises."""
        return cls._make((first_position, loaded_at, node, len(events), pack(events)))

    @property
    def events(self) -> tuple[Event, ...]:
        """The events, unpacked."""
        return unpack(self.payload)

    @property
    def last_position(self) -> int:
        """The position of the last event."""
        return self.first_position + self.rows - 1


# What nearly no event says, and what it is then. A line has one value for all of them: null, or
# the JSON of an object of those that are something else. As columns of their own they made the
# log a fifth longer, and its way into Arrow's columns take a third longer.
RARE: dict[str, Any] = {
    name: Event._field_defaults[name]
    for name in (
        *("stream_id", "sequence_number", "idempotency_key", "sent_at", "received_at"),
        *("session_id", "anonymous_id", "user_id", "company_id"),
        *("data", "metadata", "quantity", "backfill", "trusted_clock"),
    )
}
# First what depends on the site, then what depends on the name: lines are put together in pieces.
_FIRST = (
    *("site_id", "timestamp", "visitor_id"),
    *("event_name", "event_type", "interactive", "source", "ingest_api"),
)
LINE_COLUMNS = (
    *_FIRST,
    *(name for name in Event._fields if name not in RARE and name not in _FIRST),
    "rare",
)

# The number of the column list of parts; each carries it.
SCHEMA_VERSION = 1
# The same of log frames: rows written by an older release are read with the list of their time.
LOG_SCHEMA_VERSION = 2
COLUMNS_BY_VERSION: dict[int, tuple[str, ...]] = {1: Event._fields, 2: LINE_COLUMNS}

_INSTANT = pa.timestamp("us")
_TYPES: dict[str, pa.DataType] = {
    "timestamp": _INSTANT,
    "sent_at": _INSTANT,
    "received_at": _INSTANT,
    "interactive": pa.bool_(),
    "backfill": pa.bool_(),
    "trusted_clock": pa.bool_(),
    "sequence_number": pa.int64(),
    "visitor_id": pa.int64(),
    "quantity": pa.int64(),
    "screen_width": pa.int32(),
    "engaged_ms": pa.int64(),
    "scroll_depth": pa.int16(),
    "revenue_amount": pa.decimal128(12, 2),
}

ARROW_SCHEMA = pa.schema(
    [
        pa.field("position", pa.int64(), nullable=False),
        pa.field("node", pa.int16(), nullable=False),
        pa.field("loaded_at", _INSTANT, nullable=False),
        *(pa.field(name, _TYPES.get(name, pa.string())) for name in Event._fields),
    ],
    metadata={"mallard.schema_version": str(SCHEMA_VERSION)},
)


# How `to_table` has the rows of a payload read. An instant is a number until its column is whole.
_ROWS = csv.ConvertOptions(
    column_types={
        name: pa.int64() if kind == _INSTANT else kind
        for name, kind in ((name, _TYPES.get(name, pa.string())) for name in LINE_COLUMNS)
    },
    include_columns=LINE_COLUMNS,
    null_values=["null"],
    true_values=["true"],
    false_values=["false"],
    strings_can_be_null=True,
    quoted_strings_can_be_null=False,
    check_utf8=False,  # JSON is written in nothing else
)
# Of a payload that the reader takes at a time, or one frame's where that is longer. Its memory is
# used again: 20,000 rows took 1.1 us each so, and 1.3 at once or by a thousand. The interpreter is
# let go of once for all of them; while batches come in, each time is a wait to have it back.
READ_BYTES = 512 * 1024
JSON_ROWS = 1_000  # so many, beside one that needs it, are read by way of Python's own values
_INSTANTS = {name for name, kind in _TYPES.items() if kind == _INSTANT}
_QUOTING = csv.ParseOptions(escape_char="\\", double_quote=False)
# What of that which JSON writes behind a backslash CSV understands as well.
_PLAIN = b'"\\'
_usual_of = itemgetter(*map(Event._fields.index, LINE_COLUMNS[:-1]))
_rare_of = itemgetter(*map(Event._fields.index, RARE))


# The columns that `check` looks at, in its order.
_numbers_of = itemgetter(
    *map(
        Event._fields.index,
        (
            *("timestamp", "sent_at", "received_at", "screen_width", "scroll_depth"),
            *("visitor_id", "sequence_number", "quantity", "engaged_ms", "revenue_amount"),
        ),
    )
)


def check(event: Row) -> None:
    """Raise ValueError for numbers that no part can hold; a door must have refused them before.

    Called where an event enters the log: one that could not leave it again would stop every flush.
    """
    # Each event comes through here: no loop, and no call for what is absent, as nearly all is.
    timestamp, sent, received, width, depth, visitor, number, quantity, engaged, amount = (
        _numbers_of(event)
    )
    if (
        not 0 <= timestamp <= INSTANT_MAX
        or (sent is not None and not 0 <= sent <= INSTANT_MAX)
        or (received is not None and not 0 <= received <= INSTANT_MAX)
        or (width is not None and not 0 <= width <= INT32_MAX)
        or (depth is not None and not 0 <= depth <= 100)
        or (visitor is not None and not INT64_MIN <= visitor <= INT64_MAX)
        or (number is not None and not INT64_MIN <= number <= INT64_MAX)
        or (quantity is not None and not INT64_MIN <= quantity <= INT64_MAX)
        or (engaged is not None and not INT64_MIN <= engaged <= INT64_MAX)
        or (amount is not None and not _fits_revenue(amount))
    ):
        raise ValueError("an event holds a number that its column cannot")


def _fits_revenue(amount: Decimal) -> bool:
    # Compared, not abs(): arithmetic rounds, and raises for the exponents a decimal can have.
    exponent = amount.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -2 and -REVENUE_MAX <= amount <= REVENUE_MAX


def line_of(event: Row) -> Line:
    """Return an event as a line; a decimal is text.

    Raises TypeError for text that is not Unicode, ValueError for numbers that no part can hold.
    """
    check(event)
    said = zip(RARE.items(), _rare_of(event), strict=True)
    rare = {name: value for (name, usual), value in said if value != usual}
    text = orjson.dumps(rare).decode() if rare else None
    return orjson.dumps((*_usual_of(event), text), default=_plain)[1:-1]


def pack(events: Sequence[Row]) -> bytes:
    """Return the lines of events, with an end of a line between two; raises what `line_of` does."""
    return b"\n".join(map(line_of, events))


def unpack(payload: bytes) -> tuple[Event, ...]:
    """Return the events that `pack` made a payload of."""
    rows = orjson.loads(b"[[%b]]" % payload.replace(b"\n", b"],["))
    return tuple(to_event(LINE_COLUMNS, row) for row in rows)


def to_event(columns: Sequence[str], row: Sequence[Any]) -> Event:
    """Return the event of a row of the log. columns: those of the row."""
    said = dict(zip(columns, row, strict=True))
    if rare := said.pop("rare", None):
        said |= orjson.loads(rare)
    if (amount := said.get("revenue_amount")) is not None:
        said["revenue_amount"] = Decimal(str(amount))
    return Event(**{name: value for name, value in said.items() if name in Event._fields})


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"an event cannot hold a {type(value).__name__}")


def to_table(frames: Sequence[Frame]) -> pa.Table:
    """Return the events of frames as an Arrow table of `ARROW_SCHEMA`, in order of position."""
    if not frames:
        return ARROW_SCHEMA.empty_table()
    positions, nodes, loaded = array("q"), array("h"), array("q")
    for first, at, node, count, _ in frames:
        if count == 1:
            positions.append(first)
            nodes.append(node)
            loaded.append(at)
        else:
            positions.extend(range(first, first + count))
            nodes.extend(array("h", (node,)) * count)
            loaded.extend(array("q", (at,)) * count)
    own = [
        pa.Array.from_buffers(field.type, len(values), [None, pa.py_buffer(values)])
        for field, values in zip(ARROW_SCHEMA, (positions, nodes, loaded), strict=False)
    ]
    return pa.Table.from_arrays([*own, *_columns(frames, len(positions))], schema=ARROW_SCHEMA)


def _columns(frames: Sequence[Frame], rows: int) -> list[pa.ChunkedArray]:
    """Return the columns of payloads; rows: how many there are."""
    payloads = [payload for _, _, _, _, payload in frames]
    text = b"\n".join(payloads)
    if _is_csv(text):
        return _read_as_csv(text, max(READ_BYTES, *map(len, payloads)))
    if rows <= JSON_ROWS or len(frames) == 1:
        return _read_as_json(payloads)
    half = len(frames) // 2  # so that one such row does not cost what many do
    first, second = (
        _columns(some, sum(frame.rows for frame in some)) for some in (frames[:half], frames[half:])
    )
    return [
        pa.chunked_array([*one.chunks, *other.chunks], one.type)
        for one, other in zip(first, second, strict=True)
    ]


def _is_csv(text: bytes) -> bool:
    """Tell whether there is nothing in payloads that CSV would read as something else."""
    at = text.find(b"\\")
    while at >= 0:
        if text[at + 1] not in _PLAIN:
            return False
        at = text.find(b"\\", at + 2)
    return True


def _read_as_csv(text: bytes, block_bytes: int) -> list[pa.ChunkedArray]:
    """Return the columns of payloads by way of Arrow's CSV reader, which must not misread them.

    What is text is in quotes, and a quote in it has a backslash. The reader does not need Python's
    interpreter, which answers requests meanwhile. block_bytes: no row may be longer.
    """
    options = csv.ReadOptions(
        column_names=LINE_COLUMNS, block_size=block_bytes + 1, use_threads=False
    )
    table = csv.read_csv(pa.BufferReader(text), options, _QUOTING, _ROWS)
    rare = _rare_columns(table["rare"])
    # A view: a cast would let go of the interpreter, and wait for it again.
    return [
        rare[name]
        if name in RARE
        else pa.chunked_array([chunk.view(_INSTANT) for chunk in table[name].chunks], _INSTANT)
        if name in _INSTANTS
        else table[name]
        for name in Event._fields
    ]


def _rare_columns(texts: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    """Return the columns of `RARE` by name; texts: what lines say of them."""
    rows = len(texts)
    said: list[dict[str, Any]] = []
    if texts.null_count < rows:
        said = [orjson.loads(text) if text else {} for text in texts.to_pylist()]
    columns = {}
    for name, usual in RARE.items():
        kind = _TYPES.get(name, pa.string())
        if any(name in row for row in said):
            column = pa.array([row.get(name, usual) for row in said], kind)
        else:
            column = pa.nulls(rows, kind) if usual is None else pa.repeat(usual, rows)
        columns[name] = pa.chunked_array([column], kind)
    return columns


def _read_as_json(payloads: Sequence[bytes]) -> list[pa.ChunkedArray]:
    """Return the columns of payloads that hold escapes such as that of a line's end."""
    columns = zip(*(row for payload in payloads for row in unpack(payload)), strict=True)
    return [
        pa.chunked_array([values], type=_TYPES.get(name, pa.string()))
        for name, values in zip(Event._fields, columns, strict=True)
    ]
