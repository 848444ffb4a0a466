from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.errors import InvalidInput
from mallard.query.goals import page_expression
from mallard.query.plausible.compact import full_name, read_compact


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("", []),
        ("page==/pricing", [["is", "event:page", ["/pricing"]]]),
        ("visit:country!=DE|FR", [["is_not", "visit:country", ["DE", "FR"]]]),
        (
            "source~goo;props:plan==pro",
            [["contains", "visit:source", ["goo"]], ["is", "event:props:plan", ["pro"]]],
        ),
        ("source!~goo", [["contains_not", "visit:source", ["goo"]]]),
        ("goal==Sign up", [["is", "event:goal", ["Sign up"]]]),
        ("segment!=Phones|Tablets", [["is_not", "segment", ["Phones", "Tablets"]]]),
        ("page==/blog/**", [["matches", "event:page", ["(?s)^/blog/.*$"]]]),
        ("entry_page!=/a*", [["matches_not", "visit:entry_page", ["(?s)^/a[^/]*$"]]]),
        (r"page==/a\*b\|c\;d", [["is", "event:page", ["/a*b|c;d"]]]),
        ("event:props:a=b==c", [["is", "event:props:a=b", ["c"]]]),
        ("browser==", [["is", "visit:browser", [""]]]),
    ],
)
def test_a_line_of_conditions_is_filters(text: str, filters: list[Any]) -> None:
    assert read_compact(text) == filters


@pytest.mark.parametrize("text", ["page", "==/", "page=/", "a" * 9_000])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        read_compact(text)
    assert refusal.value.field == "filters"


@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=3))
def test_any_value_can_be_written(values: list[str]) -> None:
    written = "|".join(re.sub(r"([\\|;*~=!])", r"\\\1", value) for value in values)
    assert read_compact(f"page=={written}") == [["is", "event:page", values]]


def test_names_may_be_short() -> None:
    assert full_name("utm_source") == "visit:utm_source"
    assert full_name("page") == "event:page"
    assert full_name("goal") == "event:goal"
    assert full_name("nothing") == "nothing"


@given(st.text(alphabet="/ab.+(*) é", max_size=8), st.text(alphabet="/ab.+() é", max_size=8))
def test_an_asterisk_is_anything_within_a_segment_and_two_are_anything(
    pattern: str, page: str
) -> None:
    told = re.search(page_expression(pattern), page) is not None
    assert told == _fits(pattern, page)


def _fits(pattern: str, page: str) -> bool:
    if not pattern:
        return not page
    if pattern.startswith("**"):
        return any(_fits(pattern[2:], page[n:]) for n in range(len(page) + 1))
    if pattern.startswith("*"):
        within = len(page.split("/", 1)[0])
        return any(_fits(pattern[1:], page[n:]) for n in range(within + 1))
    return page[:1] == pattern[0] and _fits(pattern[1:], page[1:])
