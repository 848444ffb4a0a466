"""An event: one immutable row, with the same columns in the log, the ring, the parts and every API.

`Event` is the one list of columns. What the commit alone can say of a row, its `position`,
`node` and `loaded_at`, stands on the `Frame` that carries it: the events of a frame
are neighbours, so the position of the i-th is `first_position + i`.

Instants are whole microseconds since 1970-01-01 UTC. A time that equals `timestamp` is None and
restored by the view in `query/events.py`; so is `event_id`, a UUIDv7 made of the milliseconds of
`timestamp`, `node` and `position`.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import pyarrow as pa

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


class Frame(NamedTuple):
    """Events that were committed together, at once or not at all.

    first_position: of its first event; the i-th has first_position + i. loaded_at: when, in
    microseconds; it never goes back as positions grow. node: 12 bits, which server.
    """

    first_position: int
    loaded_at: int
    node: int
    events: tuple[Event, ...]

    @property
    def last_position(self) -> int:
        """The position of the last event."""
        return self.first_position + len(self.events) - 1


# The number of the column list above. Log frames and parts carry it: rows written by an older
# release are read with the list of their time.
SCHEMA_VERSION = 1
COLUMNS_BY_VERSION: dict[int, tuple[str, ...]] = {SCHEMA_VERSION: Event._fields}

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


def check(event: Event) -> None:
    """Raise ValueError for numbers that no part can hold; a door must have refused them before.

    Called where an event enters the log: one that could not leave it again would stop every flush.
    """
    amount = event.revenue_amount
    if (
        not 0 <= event.timestamp <= INSTANT_MAX
        or not _within(event.sent_at, 0, INSTANT_MAX)
        or not _within(event.received_at, 0, INSTANT_MAX)
        or not _within(event.screen_width, 0, INT32_MAX)
        or not _within(event.scroll_depth, 0, 100)
        or not _within(event.visitor_id, INT64_MIN, INT64_MAX)
        or not _within(event.sequence_number, INT64_MIN, INT64_MAX)
        or not _within(event.quantity, INT64_MIN, INT64_MAX)
        or not _within(event.engaged_ms, INT64_MIN, INT64_MAX)
        or (amount is not None and not _fits_revenue(amount))
    ):
        raise ValueError("an event holds a number that its column cannot")


def _within(value: int | None, least: int, most: int) -> bool:
    return value is None or least <= value <= most


def _fits_revenue(amount: Decimal) -> bool:
    # Compared, not abs(): arithmetic rounds, and raises for the exponents a decimal can have.
    exponent = amount.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -2 and -REVENUE_MAX <= amount <= REVENUE_MAX


def to_table(frames: Sequence[Frame]) -> pa.Table:
    """Return the events of frames as an Arrow table of `ARROW_SCHEMA`, in order of position."""
    rows = [event for frame in frames for event in frame.events]
    if not rows:
        return ARROW_SCHEMA.empty_table()
    positions: list[int] = []
    nodes: list[int] = []
    loaded: list[int] = []
    for frame in frames:
        count = len(frame.events)
        positions.extend(range(frame.first_position, frame.first_position + count))
        nodes.extend([frame.node] * count)
        loaded.extend([frame.loaded_at] * count)
    columns = [positions, nodes, loaded, *zip(*rows, strict=True)]
    arrays = [
        pa.array(values, type=field.type)
        for values, field in zip(columns, ARROW_SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=ARROW_SCHEMA)
