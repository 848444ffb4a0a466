"""Ranges of dates as Plausible writes them, in a site's time zone."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from mallard.errors import InvalidInput
from mallard.query.period import Interval, Period

RULE = (
    'one of "day", "24h", "7d", "28d", "30d", "91d", "month", "6mo", "12mo", "year", "all", '
    '"<number>d", "<number>mo", or two ISO 8601 dates or times with an offset'
)
_DAYS = re.compile(r"(\d{1,4})d")
_MONTHS = re.compile(r"(\d{1,3})mo")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_EARLIEST = date(1970, 1, 1)
_LATEST = date(9998, 12, 31)
_DAY = timedelta(days=1)
# Each day of a period is looked for; no site has more.
_LONGEST = timedelta(days=36_600)


def read_range(value: object, zone: ZoneInfo, now: datetime, first_day: date | None) -> Period:
    """Return the period that a `date_range` names.

    now: aware. first_day: the local day of the first event, where "all" starts; None without any.
    Raises InvalidInput.
    """
    today = now.astimezone(zone).date()
    if isinstance(value, list):
        period = _read_pair(value, zone)
        if period.end - period.start > _LONGEST:
            raise InvalidInput(
                f"date_range {value} is longer than {_LONGEST.days} days.",
                field="date_range",
                rule="a shorter range",
            )
        return period
    if value == "24h":
        end = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        return Period(end - timedelta(hours=24), end, zone)
    days = _named(value, today, first_day)
    if days is None:
        raise _no_range(value)
    return Period.of_days(*days, zone)


def _named(value: object, today: date, first_day: date | None) -> tuple[date, date] | None:
    if not isinstance(value, str):
        return None
    named = {
        "day": (today, today),
        "month": (today.replace(day=1), month_end(today)),
        "year": (today.replace(month=1, day=1), today.replace(month=12, day=31)),
        "all": (min(first_day or today, today), today),
    }
    if value in named:
        return named[value]
    if (found := _DAYS.fullmatch(value)) and int(found[1]):
        # Days before today, as in Plausible: today is not over.
        return max(today - int(found[1]) * _DAY, _EARLIEST), today - _DAY
    if (found := _MONTHS.fullmatch(value)) and int(found[1]):
        last = today.replace(day=1) - _DAY
        return max(months_before(today.replace(day=1), int(found[1])), _EARLIEST), last
    return None


def _read_pair(value: list[object], zone: ZoneInfo) -> Period:
    if len(value) == 2 and all(isinstance(each, str) for each in value):
        first, last = str(value[0]), str(value[1])
        try:
            if _DATE.fullmatch(first) and _DATE.fullmatch(last):
                return _of_days(date.fromisoformat(first), date.fromisoformat(last), zone)
            start, end = datetime.fromisoformat(first), datetime.fromisoformat(last)
        except ValueError:
            pass
        else:
            if start.tzinfo and end.tzinfo and _EARLIEST < start.date() <= end.date() <= _LATEST:
                # The last second is of the period: 23:59:59 ends a day.
                until = end.astimezone(UTC) + timedelta(seconds=1)
                if start.astimezone(UTC) < until:
                    return Period(start.astimezone(UTC), until, zone)
    raise _no_range(value)


def _no_range(value: object) -> InvalidInput:
    shown = repr(value)
    shown = shown if len(shown) <= 200 else shown[:200] + "..."
    return InvalidInput(f"date_range {shown} is no range of dates.", field="date_range", rule=RULE)


def _of_days(first: date, last: date, zone: ZoneInfo) -> Period:
    if not _EARLIEST < first <= last <= _LATEST:
        raise InvalidInput(
            f"date_range {first} to {last} does not end after it starts.",
            field="date_range",
            rule=RULE,
        )
    return Period.of_days(first, last, zone)


def fitting_interval(period: Period) -> Interval:
    """Return the interval of a series over a period, for who names none."""
    length = period.end - period.start
    if length <= timedelta(hours=49):  # two days, of which one may have 25 hours
        return Interval.HOUR
    if length <= timedelta(days=41):
        return Interval.DAY
    return Interval.WEEK if length <= timedelta(days=366) else Interval.MONTH


def before(period: Period) -> Period:
    """Return the period of the same length just before: as many local days, or as much time."""
    zone = period.zone
    whole = Period.of_days(period.first_day, period.last_day, zone)
    if whole.start != period.start or whole.end != period.end:
        length = period.end.astimezone(UTC) - period.start.astimezone(UTC)
        return Period(period.start.astimezone(UTC) - length, period.start, zone)
    days = period.last_day - period.first_day + _DAY
    return Period.of_days(period.first_day - days, period.last_day - days, zone)


def a_year_before(period: Period) -> Period:
    """Return the same days of the year before; of 29 February the 28th."""
    return Period.of_days(
        months_before(period.first_day, 12), months_before(period.last_day, 12), period.zone
    )


def months_before(day: date, months: int) -> date:
    """Return the day so many months earlier, or the last of its month where that is shorter."""
    number = day.year * 12 + day.month - 1 - months
    year, month = number // 12, number % 12 + 1
    if year < 1:
        return _EARLIEST
    return date(year, month, min(day.day, monthrange(year, month)[1]))


def month_end(day: date) -> date:
    """Return the last day of a day's month."""
    return day.replace(day=monthrange(day.year, day.month)[1])
