"""What is read of a batch at once is all that it says; anything unusual is left to others."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.errors import InvalidInput
from mallard.ingest.batch import document_of, more_of, read_sent
from mallard.ingest.payload import BATCH_EVENTS_MAX, LONG_NAMES

EVENT = {"d": "example.com", "n": "pageview", "u": "https://example.com/a"}
EVERYTHING = {
    **EVENT,
    "r": None,
    "w": 360,
    "e": 1000,
    "sd": 50,
    "p": {"a": ["b", {"c": '\\"\u00e9\n'}]},
    "ra": 1e2,
    "rc": "EUR",
    "$": {"amount": "1.50", "currency": "EUR"},
    "i": False,
    "h": 1,
    "v": 2,
}
LONG = {
    **{"domain": "example.com", "name": "signup", "url": "/a", "referrer": "https://b.org/"},
    **{"props": {"a": 1}, "revenue": {"amount": 1}, "interactive": True, "hashMode": False},
    **{"screen_width": 1920, "ra": 1, "e": 5},
}


@pytest.mark.parametrize(
    "body",
    [
        orjson.dumps([EVENT, EVERYTHING]),
        json.dumps([EVERYTHING, EVENT]).encode(),
        json.dumps([EVERYTHING], indent=2, ensure_ascii=False).encode(),
        orjson.dumps([dict(reversed(EVERYTHING.items()))]),
    ],
)
def test_events_come_out_as_they_were_sent(body: bytes) -> None:
    sent = read_sent(body)
    assert sent is not None
    assert [document_of(each) for each in sent] == orjson.loads(body)


def test_long_names_come_out_as_short_ones() -> None:
    (sent,) = read_sent(orjson.dumps([LONG])) or []
    assert document_of(sent) == {LONG_NAMES.get(name, name): value for name, value in LONG.items()}


def batch(*fields: str) -> bytes:
    """A batch of one event."""
    return f"[{{{','.join(fields)}}}]".encode()


D, REST = '"d":"a"', '"n":"x","u":"/"'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"[1]",
        b"[[]]",
        b"[" * 200_000,
        orjson.dumps([EVENT] * (BATCH_EVENTS_MAX + 1)),
        orjson.dumps([EVENT]) + b"]",
        orjson.dumps([EVENT, {**EVENT, "extra": 1}]),
        orjson.dumps([EVENT, LONG]),
        orjson.dumps([{**EVENT, "props": {}}]),
        orjson.dumps([{**EVENT, "u": None}]),
        orjson.dumps([{**EVENT, "n": 1}]),
        orjson.dumps([{**EVENT, "w": 360.0}]),
        orjson.dumps([{**EVENT, "w": True}]),
        orjson.dumps([{**EVENT, "sd": 50.5}]),
        orjson.dumps([{**EVENT, "w": 2**31}]),
        json.dumps([{**EVENT, "e": 10**4000}]).encode(),
        batch(D, REST).replace(b"x", b"\xff"),
        batch(r'"d":"\ud800"', REST),
        batch(D, D, REST),
        batch(D, '"d":"b"', REST, '"w": 1'),
        batch(D, r'"\u0064":"b"', REST),
        batch(D, REST, '"p":{}', '"p":{}'),
        batch(D, REST, '"w":1', '"w":100000000'),
        batch(D, r'"p":"\u005c"', REST, '"r":""', r'"r":"\\"'),
        b'[{"domain":"a","domain":"a","name":"x","url":"/"}]',
    ],
)
def test_what_is_unusual_is_left_to_others(body: bytes) -> None:
    assert read_sent(body) is None


@pytest.mark.parametrize(
    "value",
    [b'{"a":1,"a":2}', b'"\xff"', b"1e400", b"[" * 15 + b"]" * 15],
    ids=["twice", "no UTF-8", "infinite", "deep"],
)
def test_a_value_that_nobody_may_have_is_refused_where_it_is_looked_at(value: bytes) -> None:
    (sent,) = read_sent(batch(D, REST, '"p":1').replace(b"1", value)) or []
    with pytest.raises(InvalidInput):
        document_of(sent)
    with pytest.raises(InvalidInput):
        more_of(sent)


# Texts that look like the marks around them, written in every way that JSON has.
TEXTS = st.text('"\\{}[]:,u05cdn \n\u00e9', max_size=4)


def _escaped(value: str) -> str:
    return '"' + "".join(f"\\u{ord(character):04x}" for character in value) + '"'


STRINGS = st.builds(
    lambda write, value: write(value),
    st.sampled_from([json.dumps, _escaped, lambda value: orjson.dumps(value).decode()]),
    TEXTS,
)
NAMES = st.builds(
    lambda write, value: write(value),
    st.sampled_from([json.dumps, json.dumps, json.dumps, _escaped]),
    st.sampled_from([*EVERYTHING, *EVERYTHING, "extra"]),
)
VALUES = STRINGS | st.sampled_from(["1", "-0", "1e3", "null", "true", '{"a": "b"}', "[]"])
ROOM = st.sampled_from(["", "", " ", "\n\t"])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A batch of one, which has what it needs and then anything."""
    must = [(json.dumps(name), draw(STRINGS)) for name in EVENT]
    fields = draw(st.permutations(must + draw(st.lists(st.tuples(NAMES, VALUES), max_size=4))))
    inside = ",".join(
        f"{draw(ROOM)}{name}{draw(ROOM)}:{draw(ROOM)}{value}{draw(ROOM)}" for name, value in fields
    )
    return f"[{{{inside}}}]".encode()


@given(bodies())
def test_nothing_that_is_there_twice_or_unknown_comes_out(body: bytes) -> None:
    sent = read_sent(body)
    ((fields,),) = [json.loads(body, object_pairs_hook=tuple)]
    names = [name for name, _ in fields]
    if len(set(names)) < len(names) or not set(names) <= set(EVERYTHING):
        assert sent is None
    elif sent is not None:
        assert [document_of(sent[0])] == json.loads(body)
