from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.errors import InvalidInput
from mallard.query.dimensions import Dimension, Property
from mallard.query.filters import AllOf, Condition, HasDone, Not, Operator
from mallard.query.period import Interval
from mallard.query.plausible.filtering import Context, read_filters
from mallard.query.plausible.ranges import a_year_before, before
from mallard.query.plausible.reading import Query, read_query
from mallard.site import Goal, Segment

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2024, 9, 16, 22, 30, tzinfo=UTC)  # the 17th in Berlin
SIGNUP = Goal(1, "a.example", "Signup", event_name="signup")
GERMANS = Segment(7, "a.example", "Germans", [["is", "visit:country", ["DE"]]])
CONTEXT = Context(BERLIN, NOW, date(2024, 1, 31), (SIGNUP,), (GERMANS,))


def read(**document: Any) -> Query:
    asked = {"site_id": "a.example", "metrics": ["visitors"], "date_range": "7d", **document}
    return read_query(asked, CONTEXT)


def days(value: Any, **document: Any) -> tuple[str, str]:
    period = read(date_range=value, **document).period
    return period.first_day.isoformat(), period.last_day.isoformat()


@pytest.mark.parametrize(
    ("value", "first", "last"),
    [
        ("day", "2024-09-17", "2024-09-17"),
        ("7d", "2024-09-10", "2024-09-16"),
        ("30d", "2024-08-18", "2024-09-16"),
        ("91d", "2024-06-18", "2024-09-16"),
        ("3d", "2024-09-14", "2024-09-16"),
        ("month", "2024-09-01", "2024-09-30"),
        ("6mo", "2024-03-01", "2024-08-31"),
        ("12mo", "2023-09-01", "2024-08-31"),
        ("year", "2024-01-01", "2024-12-31"),
        ("all", "2024-01-31", "2024-09-17"),
        (["2024-02-28", "2024-03-01"], "2024-02-28", "2024-03-01"),
        (["2024-02-28T23:00:00Z", "2024-02-28T23:59:59Z"], "2024-02-29", "2024-02-29"),
    ],
)
def test_ranges_are_of_local_days_and_today_is_not_over(value: Any, first: str, last: str) -> None:
    assert days(value) == (first, last)


def test_the_last_day_is_24_hours_to_the_end_of_this_one() -> None:
    period = read(date_range="24h").period
    assert (period.end - period.start).total_seconds() == 86_400
    assert period.end == datetime(2024, 9, 16, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "0d",
            "week",
            "7D",
            "99999d",
            None,
            7,
            [],
            ["2024-01-01"],
            ["2024-02-01", "2024-01-01"],
        ),
        *(["2024-02-30", "2024-03-01"], ["2024-02-01", "2024-03-01T00:00:00Z"], [1, 2]),
        *(["2024-02-01T00:00:00", "2024-03-01T00:00:00"], ["0001-01-01", "0001-01-02"]),
        *(["9999-12-30", "9999-12-31"], {"day": 1}),
    ],
)
def test_what_is_no_range_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput) as refusal:
        read(date_range=value)
    assert refusal.value.field == "date_range"


def test_comparisons_are_as_long_or_a_year_before() -> None:
    month = read(date_range=["2024-03-01", "2024-03-31"]).period
    assert before(month).first_day.isoformat() == "2024-01-30"
    assert before(month).last_day.isoformat() == "2024-02-29"
    leap = read(date_range=["2024-02-29", "2024-02-29"]).period
    assert a_year_before(leap).first_day.isoformat() == "2023-02-28"
    compared = read(include={"comparisons": {"mode": "previous_period"}}).compared
    assert compared is not None
    assert compared.last_day.isoformat() == "2024-09-09"
    hours = read(date_range="24h", include={"comparisons": {"mode": "previous_period"}})
    assert hours.compared is not None
    assert hours.compared.end == hours.period.start


def test_a_series_without_an_interval_takes_one_that_fits() -> None:
    found = {
        value: read(date_range=value, dimensions=["time"]).interval
        for value in ("day", "7d", "6mo", "all")
    }
    assert found == {
        "day": Interval.HOUR,
        "7d": Interval.DAY,
        "6mo": Interval.WEEK,
        "all": Interval.WEEK,
    }
    assert read(date_range=["2020-01-01", "2024-01-01"], dimensions=["time"]).interval is (
        Interval.MONTH
    )


def test_filters_are_read_as_written() -> None:
    found = read_filters(
        [
            ["is_not", "visit:source", ["Direct / None", "Google"]],
            ["contains", "event:page", ["/Blog"], {"case_sensitive": False}],
            ["has_done", ["is", "event:props:plan", ["pro"]]],
            ["not", ["or", [["matches", "event:page", ["^/a"]], ["is", "segment", [7]]]]],
        ],
        CONTEXT,
    )
    assert isinstance(found, AllOf)
    (inner,) = found.parts
    assert isinstance(inner, AllOf)
    source, page, done, negated = inner.parts
    assert source == Not(Condition(Dimension.SOURCE, Operator.IS, (None, "Google")))
    assert page == Condition(Dimension.PAGE, Operator.CONTAINS, ("/Blog",), False)
    assert done == HasDone(Condition(Property("plan"), Operator.IS, ("pro",)))
    assert isinstance(negated, Not)


@pytest.mark.parametrize(
    ("document", "field", "says"),
    [
        ({"metrics": ["visitor"]}, "metrics", "unknown metric, 'visitor'"),
        ({"metrics": []}, "metrics", "no list of metrics"),
        ({"metrics": ["visitors", "visitors"]}, "metrics", "twice"),
        ({"metrics": ["percentage"]}, "metrics", "without dimensions"),
        ({"metrics": ["conversion_rate"]}, "metrics", "without goals"),
        ({"metrics": ["scroll_depth"]}, "metrics", "without pages"),
        ({"dimensions": ["visit:sauce"]}, "dimensions", "unknown dimension, 'visit:sauce'"),
        ({"dimensions": ["time", "time:day"]}, "dimensions", "two times"),
        ({"dimensions": ["visit:city", "visit:city"]}, "dimensions", "twice"),
        ({"dimensions": ["event:props:"]}, "dimensions", "unknown dimension"),
        ({"filters": [["is", "event:page"]]}, "filters", "[operator, dimension, clauses]"),
        ({"filters": [["like", "event:page", ["/"]]]}, "filters", "no operator 'like'"),
        ({"filters": [["is", "time:day", ["2024-01-01"]]]}, "filters", "date_range says when"),
        ({"filters": [["is", "event:page", ["a\0b"]]]}, "filters", "without NUL"),
        ({"filters": [["is", "event:goal", ["Sign-up"]]]}, "filters", "it has 'Signup'"),
        ({"filters": [["matches", "event:goal", ["S"]]]}, "filters", "goals are filtered by"),
        ({"filters": [["is", "segment", [8]]]}, "filters", "no segment 8"),
        ({"filters": [["and", []]]}, "filters", "takes one list of filters"),
        ({"filters": "all"}, "filters", "filters are a list"),
        ({"order_by": [["events", "desc"]]}, "order_by", "events"),
        ({"order_by": [["visitors", "down"]]}, "order_by", "down"),
        ({"include": {"everything": True}}, "include", "'everything'"),
        ({"include": {"time_labels": True}}, "include", "without times"),
        ({"include": {"comparisons": {"mode": "last"}}}, "include", "unknown mode"),
        ({"pagination": {"limit": 0}}, "pagination", "number"),
        ({"pagination": {"limit": 10_001}}, "pagination", "number"),
        ({"pagination": {"offset": True}}, "pagination", "number"),
        ({"property": "visit:source"}, "property", "nothing that a query has"),
        ({"site_id": ""}, "site_id", "no text"),
    ],
)
def test_what_is_wrong_is_named(document: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        read(**document)
    assert refusal.value.field == field
    assert says in refusal.value.detail
    assert refusal.value.rule


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InvalidInput, match="date_range is missing"):
        read_query({"site_id": "a.example", "metrics": ["visitors"]}, CONTEXT)


def test_filters_have_a_bound_in_depth() -> None:
    deep: list[Any] = ["is", "event:page", ["/"]]
    for _ in range(100):
        deep = ["not", deep]
    with pytest.raises(InvalidInput, match="too deep"):
        read(filters=[deep])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(
    key=st.sampled_from(["metrics", "date_range", "dimensions", "filters", "order_by"]), value=JSON
)
def test_whatever_is_sent_is_read_or_refused(key: str, value: Any) -> None:
    try:
        read(**{key: json.loads(json.dumps(value))})
    except InvalidInput as refusal:
        assert refusal.detail
