"""What time it is: the one place that asks the operating system, so that tests can set it."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECONDS_PER_DAY = 86_400_000_000


class Clock:
    """The system's clock. Tests pass a subclass that says what they like."""

    def now_us(self) -> int:
        """Return the instant in whole microseconds since 1970-01-01 UTC, as rows hold it."""
        return time.time_ns() // 1000

    def now_ms(self) -> int:
        """Return the instant in whole milliseconds: as precise as what an event says of itself.

        What comes in within a millisecond is told apart by position; the digits that are left
        out would take two bytes of every stored event.
        """
        return self.now_us() // 1000

    def monotonic(self) -> float:
        """Return seconds that never go back, for measuring how long something took."""
        return time.monotonic()

    def now(self) -> datetime:
        """Return the instant as an aware UTC datetime."""
        return to_datetime(self.now_us())


def to_datetime(instant_us: int) -> datetime:
    """Return microseconds since 1970 UTC as an aware datetime."""
    return EPOCH + timedelta(microseconds=instant_us)


def utc_date(instant_us: int) -> date:
    """Return the UTC date an instant lies in."""
    return date.fromordinal(719_163 + instant_us // MICROSECONDS_PER_DAY)
