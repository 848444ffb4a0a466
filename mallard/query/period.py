"""Ranges of time and their intervals, in a site's time zone, cut into slices of UTC days.

Visitors and visits live in one UTC date. So a range is whole UTC days, whose numbers can be kept,
and slices of the days at its edges; a local day of another zone is two slices, which share nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from mallard.errors import InvalidInput

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1)
_DAY_MICROS = _DAY // _MICROSECOND
_EPOCH_DAY = _EPOCH.toordinal()
BUCKETS_MAX = 10_000


class Interval(StrEnum):
    """How long a bucket of a series is; a week starts on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


_LENGTHS = {
    Interval.HOUR: timedelta(hours=1),
    Interval.DAY: _DAY,
    Interval.WEEK: timedelta(days=7),
    Interval.MONTH: timedelta(days=28),
}


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open range of time, [start, end), aware, in the zone that its buckets are cut by."""

    start: datetime
    end: datetime
    zone: ZoneInfo

    def __post_init__(self) -> None:
        assert self.start <= self.end, "a period ends after it starts"

    @classmethod
    def of_days(cls, first: date, last: date, zone: ZoneInfo) -> Period:
        """Return the local days from first to last, both included."""
        return cls(midnight(first, zone), midnight(last + _DAY, zone), zone)

    @property
    def first_day(self) -> date:
        """The local date it starts on."""
        return self.start.astimezone(self.zone).date()

    @property
    def last_day(self) -> date:
        """The local date of its last moment."""
        if self.end == self.start:
            return self.first_day
        return (self.end.astimezone(UTC) - _MICROSECOND).astimezone(self.zone).date()


@dataclass(frozen=True, slots=True)
class Bucket:
    """One interval of a series, cut to its period. label: its whole interval's start, local."""

    label: datetime
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of one UTC date, [start_us, end_us), and the number of the bucket it belongs to."""

    date: str
    start_us: int
    end_us: int
    bucket: int

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its date."""
        return self.end_us - self.start_us == _DAY_MICROS


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return a local day's first moment; where clocks skip midnight, the first there is."""
    local = datetime(day.year, day.month, day.day, tzinfo=zone)
    # A time that does not exist is named again by going through UTC; then it is later than it says.
    return local.astimezone(UTC).astimezone(zone)


def buckets(period: Period, interval: Interval | None) -> list[Bucket]:
    """Return the intervals of a period in order; with no interval, the period as one.

    Raises InvalidInput for more than BUCKETS_MAX: nobody reads them, and they take their memory.
    """
    if interval is None:
        return [Bucket(period.start, period.start, period.end)]
    if _utc(period.end) - _utc(period.start) > BUCKETS_MAX * _LENGTHS[interval]:
        raise InvalidInput(
            f"The period has more than {BUCKETS_MAX} intervals of one {interval}.",
            field="interval",
            rule="a longer interval, or a shorter period",
        )
    found = []
    label = _floor(period.start.astimezone(period.zone), interval)
    while _utc(label) < _utc(period.end):
        following = _next(label, interval)
        start, end = max(label, period.start, key=_utc), min(following, period.end, key=_utc)
        if _utc(start) < _utc(end):
            found.append(Bucket(label, start, end))
        label = following
    return found


def slices(cut: list[Bucket]) -> list[Slice]:
    """Cut buckets at midnight UTC."""
    return [piece for number, bucket in enumerate(cut) for piece in _slices(bucket, number)]


def dates(start_us: int, end_us: int) -> list[str]:
    """Return the UTC dates (ISO) that [start_us, end_us) touches."""
    first, end = start_us // _DAY_MICROS, -(-end_us // _DAY_MICROS)
    return [date.fromordinal(_EPOCH_DAY + day).isoformat() for day in range(first, end)]


def slices_of_date(day: str, zone: ZoneInfo) -> list[Slice]:
    """Cut a UTC date (ISO) where local days begin: what a series by day of a zone asks of it."""
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return slices(buckets(Period(start, start + _DAY, zone), Interval.DAY))


def micros(instant: datetime) -> int:
    """Return whole microseconds since 1970-01-01 UTC."""
    return (instant - _EPOCH) // _MICROSECOND


def _slices(bucket: Bucket, number: int) -> Iterator[Slice]:
    # By numbers, as each panel of a dashboard cuts up its year; instants take twice as long.
    start, end = micros(bucket.start), micros(bucket.end)
    while start < end:
        day = start // _DAY_MICROS
        following = min((day + 1) * _DAY_MICROS, end)
        yield Slice(date.fromordinal(_EPOCH_DAY + day).isoformat(), start, following, number)
        start = following


def _utc(instant: datetime) -> datetime:
    # Aware datetimes of one zone compare by what the clock shows, twice the same on some days.
    return instant.astimezone(UTC)


def _floor(local: datetime, interval: Interval) -> datetime:
    zone = local.tzinfo
    assert isinstance(zone, ZoneInfo)
    if interval is Interval.HOUR:
        past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        return (local.astimezone(UTC) - past).astimezone(zone)
    day = local.date()
    if interval is Interval.WEEK:
        day -= timedelta(days=day.weekday())
    if interval is Interval.MONTH:
        day = day.replace(day=1)
    return midnight(day, zone)


def _next(label: datetime, interval: Interval) -> datetime:
    zone = label.tzinfo
    assert isinstance(zone, ZoneInfo)
    if interval is Interval.HOUR:
        return _floor((label.astimezone(UTC) + timedelta(hours=1)).astimezone(zone), interval)
    day = label.date()
    if interval is Interval.MONTH:
        return midnight((day.replace(day=1) + timedelta(days=32)).replace(day=1), zone)
    return midnight(day + (timedelta(days=7) if interval is Interval.WEEK else _DAY), zone)
