from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.errors import InvalidInput
from mallard.query.period import Bucket, Interval, Period, buckets, micros, midnight, slices

BERLIN, UTC_ZONE = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",  # +05:45
    "Australia/Lord_Howe",  # half an hour of summer time
    "America/Sao_Paulo",  # used to skip midnight
    "Pacific/Apia",  # skipped a whole day in 2011
    "Pacific/Kiritimati",  # +14
]


def spans(cut: list[Bucket]) -> list[float]:
    return [
        (each.end.astimezone(UTC) - each.start.astimezone(UTC)) / timedelta(hours=1) for each in cut
    ]


def test_a_day_of_utc_is_one_whole_slice() -> None:
    period = Period.of_days(date(2024, 5, 1), date(2024, 5, 2), UTC_ZONE)
    cut = slices(buckets(period, Interval.DAY))
    assert [(each.date, each.bucket, each.is_whole) for each in cut] == [
        ("2024-05-01", 0, True),
        ("2024-05-02", 1, True),
    ]


def test_a_local_day_is_two_slices_and_a_range_of_them_has_whole_days_inside() -> None:
    period = Period.of_days(date(2024, 5, 1), date(2024, 5, 3), BERLIN)
    by_day = slices(buckets(period, Interval.DAY))
    assert [(each.date, each.bucket) for each in by_day] == [
        ("2024-04-30", 0),
        ("2024-05-01", 0),
        ("2024-05-01", 1),
        ("2024-05-02", 1),
        ("2024-05-02", 2),
        ("2024-05-03", 2),
    ]
    assert not any(each.is_whole for each in by_day)
    at_once = slices(buckets(period, None))
    assert [(each.date, each.is_whole) for each in at_once] == [
        ("2024-04-30", False),
        ("2024-05-01", True),
        ("2024-05-02", True),
        ("2024-05-03", False),
    ]


def test_days_on_which_clocks_change_are_23_and_25_hours_long() -> None:
    for day, long in ((date(2024, 3, 31), 23.0), (date(2024, 10, 27), 25.0)):
        period = Period.of_days(day, day, BERLIN)
        assert spans(buckets(period, Interval.DAY)) == [long]
        by_hour = buckets(period, Interval.HOUR)
        assert len(by_hour) == int(long)
        assert set(spans(by_hour)) == {1.0}
        assert len({each.label.isoformat() for each in by_hour}) == int(long)


def test_weeks_start_on_monday_months_on_the_first_and_the_edges_are_cut() -> None:
    period = Period.of_days(date(2024, 2, 28), date(2024, 4, 2), UTC_ZONE)
    weeks = buckets(period, Interval.WEEK)
    assert weeks[0].label.date() == date(2024, 2, 26)
    assert weeks[0].start.date() == date(2024, 2, 28)
    assert {each.label.weekday() for each in weeks} == {0}
    months = buckets(period, Interval.MONTH)
    assert [each.label.date().isoformat() for each in months] == [
        "2024-02-01",
        "2024-03-01",
        "2024-04-01",
    ]
    assert sum(spans(months)) == 35 * 24


def test_where_clocks_skip_midnight_the_day_starts_at_the_first_moment_there_is() -> None:
    start = midnight(date(2018, 11, 4), ZoneInfo("America/Sao_Paulo"))
    assert (start.hour, start.astimezone(UTC).isoformat()) == (1, "2018-11-04T03:00:00+00:00")


def test_a_periods_days_are_those_it_touches() -> None:
    noon = datetime(2024, 5, 1, 12, tzinfo=BERLIN)
    assert Period(noon, noon, BERLIN).last_day == date(2024, 5, 1)
    assert Period(noon, midnight(date(2024, 5, 3), BERLIN), BERLIN).last_day == date(2024, 5, 2)


@pytest.mark.parametrize("interval", list(Interval))
@given(
    zone=st.sampled_from(ZONES),
    start=st.datetimes(datetime(2009, 1, 1), datetime(2030, 1, 1)),
    length=st.timedeltas(timedelta(0), timedelta(days=40)),
)
def test_buckets_and_slices_cover_a_period_without_gap_or_overlap(
    interval: Interval, zone: str, start: datetime, length: timedelta
) -> None:
    first = start.replace(tzinfo=UTC)
    period = Period(first, first + length, ZoneInfo(zone))
    cut = buckets(period, interval)
    pieces = slices(cut)
    edge = micros(first)
    for piece in pieces:
        assert piece.start_us == edge
        assert piece.start_us < piece.end_us
        edge = piece.end_us
    assert edge == micros(first + length)
    assert [each.bucket for each in pieces] == sorted(each.bucket for each in pieces)
    labels = [each.label.astimezone(UTC) for each in cut]
    assert labels == sorted(set(labels))


def test_a_period_of_more_intervals_than_anybody_reads_is_refused() -> None:
    decade = Period.of_days(date(2010, 1, 1), date(2019, 12, 31), BERLIN)
    assert len(buckets(decade, Interval.DAY)) == 3652
    with pytest.raises(InvalidInput, match="more than 10000 intervals of one hour"):
        buckets(decade, Interval.HOUR)
