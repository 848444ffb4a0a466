"""What JSON is read, and what of it is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.errors import InvalidInput
from mallard.ingest.json_reader import DEPTH_MAX, read_json

EVENT = {"d": "a", "n": "x", "u": "/"}


def refusal(text: bytes) -> str | None:
    try:
        read_json(text)
    except InvalidInput as error:
        return error.detail
    return None


def nested(levels: int) -> Any:
    value: Any = "x"
    for number in range(levels):
        value = [1, value, "y"] if number % 2 else {"a": "b", "k": value}
    return value


@pytest.mark.parametrize("aside", ["", "[{", "}]}]}]", '"}]', "\\}"])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_brackets_are_nested_sixteen_deep_at_most_but_those_in_texts_do_not_count(
    aside: str, separators: tuple[str, str]
) -> None:
    for levels, is_refused in ((DEPTH_MAX - 2, False), (DEPTH_MAX - 1, True)):
        # The array and an event's object are two levels.
        events = [{**EVENT, "x": aside, "y": nested(levels), "z": aside}] + [EVENT] * 20
        said = refusal(json.dumps(events, separators=separators).encode())
        assert (said is not None and "deep" in said) is is_refused


TEXTS = st.text(st.sampled_from('[]{}"\\,:a'), max_size=6)
VALUES = st.recursive(
    TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


def depth_of(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)


@given(value=VALUES, more=st.integers(0, DEPTH_MAX))
def test_whatever_texts_hold_what_is_too_deep_is_refused_and_nothing_else(
    value: Any, more: int
) -> None:
    for _ in range(more):
        value = [value, ["x"]]
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    assert (refusal(text) is not None) is (depth_of(value) > DEPTH_MAX)


@pytest.mark.parametrize(
    "event",
    [
        b'{"d":"a","n":"x","u":"/","d":"b"}',
        b'{"d":"a","n":"x","u":"/","p":{"k":1,"k":2}}',
        b'{"d":"a", "n":"x", "u":"/", "n":1}',
    ],
)
def test_a_key_that_is_twice_in_one_of_many_objects_is_refused(event: bytes) -> None:
    many = [json.dumps(EVENT, separators=(",", ":")).encode()] * 20
    said = refusal(b"[" + b",".join([*many, event, *many]) + b"]")
    assert said is not None
    assert "twice" in said
