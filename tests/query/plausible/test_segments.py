"""A segment is kept if it can be used as a filter later."""

from __future__ import annotations

from typing import Any

import pytest

from mallard.errors import InvalidInput
from mallard.query.plausible.segments import check_segment
from mallard.site import Goal

GERMAN = ["is", "visit:country", ["DE"]]
SIGNUP = Goal(1, "a.example", "Signup", event_name="signup")


@pytest.mark.parametrize(
    "filters",
    [
        [GERMAN],
        [GERMAN, ["or", [["contains", "event:page", ["/docs"]], ["not", GERMAN]]]],
        [["is", "event:props:plan", ["segment", "segment", "x"]]],
        [["is", "event:name", ["and", "segment"]]],
        [["has_done", ["is", "event:name", ["signup"]]]],
    ],
)
def test_filters_that_mean_something_pass(filters: list[Any]) -> None:
    check_segment(filters, ())


@pytest.mark.parametrize(
    "filters",
    [
        ["is"],
        [[]],
        [["is", "visit:planet", ["Mars"]]],
        [["equals", "visit:country", ["DE"]]],
        [GERMAN, GERMAN, None],
        [["not", ["is", "visit:country", []]]],
    ],
)
def test_filters_that_mean_nothing_are_refused(filters: list[Any]) -> None:
    with pytest.raises(InvalidInput):
        check_segment(filters, ())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: inner,
        lambda inner: ["not", inner],
        lambda inner: ["and", [GERMAN, ["or", [inner]]]],
    ],
)
@pytest.mark.parametrize("number", [1, 2])
def test_a_segment_of_segments_is_refused_with_its_reason(wrap: Any, number: int) -> None:
    with pytest.raises(InvalidInput, match="not made of segments") as caught:
        check_segment([GERMAN, wrap(["is", "segment", [number]])], (SIGNUP,))
    assert caught.value.field == "filters"
