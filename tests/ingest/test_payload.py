"""What clients send, read and checked."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.errors import InvalidInput, MissingInput
from mallard.event import REVENUE_MAX
from mallard.ingest.payload import (
    BATCH_EVENTS_MAX,
    RawEvent,
    batch_from_json,
    from_json,
    from_query,
)

BASE = {"d": "example.com", "n": "signup", "u": "https://example.com/"}


def read(**fields: Any) -> RawEvent:
    return from_json(json.dumps({**BASE, **fields}).encode())


def refusal(body: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        from_json(body)
    return caught.value


def refused(**fields: Any) -> InvalidInput:
    return refusal(json.dumps({**BASE, **fields}).encode())


def test_short_and_long_names_say_the_same() -> None:
    short = from_json(
        b'{"d":"e.com","n":"x","u":"https://e.com","r":"https://a.b/","p":{"a":1},'
        b'"$":{"currency":"EUR","amount":"1.5"},"i":false,"h":1,"w":9}'
    )
    long = from_json(
        b'{"domain":"e.com","name":"x","url":"https://e.com","referrer":"https://a.b/",'
        b'"props":{"a":1},"revenue":{"currency":"eur","amount":1.5},"interactive":false,'
        b'"hashMode":true,"screen_width":9.0}'
    )
    assert short == long
    assert short.revenue_amount == Decimal("1.50")
    assert (short.revenue_currency, short.interactive, short.hash_mode) == ("EUR", False, True)
    assert from_json(b'{"d":"e","n":"x","u":"/","m":{"a":1}}').props == '{"a":1}'
    assert from_json(b'{"d":"e","n":"x","u":"/","meta":{"a":1}}').props == '{"a":1}'


def test_of_two_spellings_the_shorter_counts() -> None:
    assert read(name="other").name == "signup"


def test_a_field_is_named_as_it_was_sent() -> None:
    error = refusal(b'{"domain":"a b","n":"x","u":"/"}')
    assert error.field == "domain"
    assert "domain" in error.detail
    assert refused(screen_width="wide").field == "screen_width"


@pytest.mark.parametrize("field", ["d", "n", "u"])
@pytest.mark.parametrize("absent", ["missing", "null"])
def test_a_missing_field_is_told_from_an_empty_one(field: str, absent: str) -> None:
    fields: dict[str, Any] = {**BASE, field: None}
    if absent == "missing":
        del fields[field]
    error = refusal(json.dumps(fields).encode())
    assert isinstance(error, MissingInput)
    assert error.field == field
    assert not isinstance(refused(**{field: ""}), MissingInput)
    assert refused(**{field: ""}).field == field


def test_missing_comes_before_every_other_mistake() -> None:
    assert isinstance(refusal(b'{"d":"not a site","n":""}'), MissingInput)


@pytest.mark.parametrize(
    ("sent", "sites"),
    [
        ("example.com", ("example.com",)),
        ("www.example.com", ("example.com",)),
        ("a.com,b.com", ("a.com", "b.com")),
        ("a.com, www.b.com ,a.com", ("a.com", "b.com")),
        ("localhost:3000", ("localhost:3000",)),
        ("my-site_2", ("my-site_2",)),
        ("x" * 256, ("x" * 256,)),
    ],
)
def test_sites_are_split_trimmed_and_told_once(sent: str, sites: tuple[str, ...]) -> None:
    assert read(d=sent).sites == sites


@pytest.mark.parametrize(
    "sent",
    [
        *("", "a b", "a/b", "é.com", "a\n", "a.com,", ",", "www.", "x" * 257, " a.com"),
        *(".", "..", "...", "a..b", "../etc", "www..", "a.com,..", "a\\b", "a\0", "a'b"),
        ",".join(f"s{i}" for i in range(17)),
    ],
)
def test_a_site_that_is_none_is_refused(sent: str) -> None:
    error = refused(d=sent)
    assert (error.field, type(error)) == ("d", InvalidInput)
    assert error.rule


@pytest.mark.parametrize(
    ("field", "length_max", "fill"),
    [
        ("n", 256, "é"),
        ("u", 2048, "/é"),
        ("r", 2048, "/\N{DUCK}"),
        ("p", 4096, '{"é": "\N{DUCK}"}'),
    ],
)
def test_limits_count_characters(field: str, length_max: int, fill: str) -> None:
    longest = (
        json.dumps({"k": "é" * (length_max - 9)}, ensure_ascii=False)
        if field == "p"
        else (fill * length_max)[:length_max]
    )
    assert len(longest) == length_max
    read(**{field: longest})
    error = refused(**{field: longest + "x" if field != "p" else longest + " "})
    assert error.field == field
    assert str(length_max) in (error.rule or "")


def test_props_as_an_object_are_limited_by_their_text() -> None:
    assert read(p={"k": "é" * 4088}).props is not None
    assert refused(p={"k": "é" * 4089}).field == "p"


@pytest.mark.parametrize(
    ("sent", "props"),
    [
        ('{"plan": "pro"}', '{"plan":"pro"}'),
        ({"plan": "pro", "n": 1, "ok": True}, '{"plan":"pro","n":1,"ok":true}'),
        ('{"a": {"b": [1, null]}}', '{"a":{"b":[1,null]}}'),
        ("{}", None),
        ({}, None),
        (None, None),
        ({"a": "C:\\u0000"}, '{"a":"C:\\\\u0000"}'),
    ],
)
def test_props_are_an_object_or_the_text_of_one(sent: object, props: str | None) -> None:
    assert read(p=sent).props == props


@pytest.mark.parametrize(
    "sent",
    [
        *("", "plan=pro", "[1]", "1", "null", '"x"', '{"a":1', [1], 5, True),
        *('{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', '{"a":1,"a":2}'),
        *('{"a": "\\u0000"}', '{"\\u0000": 1}', {"a": ["x\0"]}, {"\0": 1}),
        '{"a":' * 17 + "1" + "}" * 17,
    ],
)
def test_props_that_are_no_such_object_are_refused(sent: object) -> None:
    error = refused(p=sent)
    assert error.field == "p"
    assert error.rule


@pytest.mark.parametrize("field", ["d", "n", "u", "r", "v"])
def test_nul_and_other_types_are_refused_by_name(field: str) -> None:
    wrongs: tuple[object, ...] = ("x\0y", [], {}, True)
    for wrong in wrongs:
        assert refused(**{field: wrong}).field == field


@pytest.mark.parametrize("field", ["n", "u", "r", "p", "anything"])
@pytest.mark.parametrize("wrong", ['"\\ud800"', "NaN", "-Infinity", "1e999"])
def test_half_a_pair_and_no_number_are_refused_by_name(field: str, wrong: str) -> None:
    base = {key: value for key, value in BASE.items() if key != field}
    body = json.dumps(base)[:-1] + f', "{field}": {wrong}}}'
    assert refusal(body.encode()).field == field


@pytest.mark.parametrize("name", ["a\nb", "a\x7fb", "a\x85b", "a\u2028b", "  ", "\t"])
def test_a_name_is_one_line_of_text(name: str) -> None:
    assert refused(n=name).field == "n"
    assert read(n=" achat café \N{DUCK}\u200b ").name == "achat café \N{DUCK}\u200b"


@pytest.mark.parametrize("url", ["data:text/html,x", "JavaScript:alert(1)", " javascript:x"])
def test_an_url_that_is_a_program_is_refused(url: str) -> None:
    assert refused(u=url).field == "u"
    assert refused(url=url, u=None).field == "url"


@pytest.mark.parametrize("url", ["app://localhost/x", "/pricing", "example.com", "file:///x"])
def test_an_url_of_another_kind_is_taken(url: str) -> None:
    assert read(u=url).url == url


@pytest.mark.parametrize("width", [0, 1920, 1920.0, 2**31 - 1])
def test_a_screen_width_is_a_whole_number(width: float) -> None:
    assert read(w=width).screen_width == int(width)


@pytest.mark.parametrize("width", [-1, 0.5, 2**31, 1e300, 10**40, "1920", True, [], {}])
def test_another_width_is_refused(width: object) -> None:
    assert refused(w=width).field == "w"


@pytest.mark.parametrize(
    ("sent", "amount"),
    [
        (99.00, "99.00"),
        (99, "99.00"),
        ("99.9", "99.90"),
        (0.125, "0.12"),
        (0.135, "0.14"),
        (1.005, "1.00"),
        (-5.5, "-5.50"),
        (-0.001, "0.00"),
        (1e-300, "0.00"),
        (9999999999.99, "9999999999.99"),
        ("-9999999999.994", "-9999999999.99"),
    ],
)
def test_revenue_is_rounded_half_to_even(sent: object, amount: str) -> None:
    raw = read(ra=sent, rc="usd")
    assert str(raw.revenue_amount) == amount
    assert raw.revenue_currency == "USD"


@pytest.mark.parametrize(
    "sent",
    [
        *(1e10, 1e300, -1e10, 10**30, "9999999999.995", "1e5", "NaN", "Infinity", "1_000", "abc"),
        *("", " 1", "\u0661", "1,50", True, [], {}),
    ],
)
def test_an_amount_that_does_not_fit_is_refused(sent: object) -> None:
    assert refused(ra=sent, rc="USD").field == "ra"


@pytest.mark.parametrize("sent", ["US", "DOLLARS", "U5D", "", "€€€", 840, True, []])
def test_a_currency_is_three_letters(sent: object) -> None:
    assert refused(ra=1, rc=sent).field == "rc"
    assert refused(rc=sent).field == "rc"


def test_an_amount_alone_is_kept_and_a_currency_alone_says_nothing() -> None:
    assert read(ra=1)[6:8] == (Decimal("1.00"), None)
    assert read(rc="USD")[6:8] == (None, None)


@pytest.mark.parametrize(
    "sent",
    [
        *({"amount": 1}, {"currency": "USD"}, {"amount": 1, "currency": "US"}, "x", "[1]", 5, []),
        *({"amount": "x", "currency": "USD"}, {"amount": 1e10, "currency": "USD"}, {}),
    ],
)
def test_a_bad_plausible_revenue_is_dropped_and_the_event_kept(sent: object) -> None:
    raw = read(**{"$": sent})
    assert (raw.name, raw.revenue_amount, raw.revenue_currency) == ("signup", None, None)


def test_a_plausible_revenue_may_be_a_text_and_yields_to_ra() -> None:
    sent = '{"amount": "1322.22", "currency": "EUR"}'
    assert read(**{"$": sent})[6:8] == (Decimal("1322.22"), "EUR")
    assert read(**{"$": sent, "ra": 1, "rc": "usd"})[6:8] == (Decimal("1.00"), "USD")


@pytest.mark.parametrize(
    ("sent", "depth"), [(0, 0), (55, 55), (99.6, 100), (104, 100), (-3, 0), (1e300, 100)]
)
def test_a_scroll_depth_is_brought_to_the_page(sent: float, depth: int) -> None:
    assert read(sd=sent).scroll_depth == depth


@pytest.mark.parametrize(
    ("sent", "engaged_ms"), [(0, 0), (3120, 3120), (1.6, 2), (-1, None), (86_400_001, None)]
)
def test_an_engaged_time_is_within_a_day(sent: float, engaged_ms: int | None) -> None:
    assert read(e=sent).engaged_ms == engaged_ms


@pytest.mark.parametrize("field", ["sd", "e", "i", "h"])
@pytest.mark.parametrize("wrong", ["1", [], {}, 0.5])
def test_wrong_types_are_refused_by_name(field: str, wrong: object) -> None:
    if wrong == 0.5 and field in ("sd", "e"):
        wrong = True
    assert refused(**{field: wrong}).field == field


def test_a_version_is_a_number_or_a_text() -> None:
    assert (read(v=30).script_version, read(v="1.2").script_version) == ("30", "1.2")
    assert refused(v="x" * 33).field == "v"


def test_unknown_fields_are_passed_over() -> None:
    assert read(x=1, y={"z": [1]}) == read()


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"null",
            b"[]",
            b"5",
            b'"x"',
            b"{",
            b"\xff\xfe",
            b"\xef\xbb\xbf{}",
            b"d=example.com",
        ),
        *(b"[" * 60_000, b'{"a":' * 12_000, b'{"d":' + b"[" * 500 + b"]" * 500 + b"}", b"{}{}"),
    ],
)
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    assert not isinstance(refusal(body), MissingInput)


@pytest.mark.parametrize(
    "body",
    [
        b'{"d":"a","n":"x","u":"/","d":"b"}',
        b'{"d":"a","n":"x","u":"/","p":{"k":1,"k":2}}',
        b'{"d":"a","n":"x","u":"/","n":1}',
        b'{"d":"a","n":"x","u":"\\u0022","x":"\\u0022","n":"y"}',
        b'{"d":"a","n":"\\\\","u":"/","x":{},"x":{}}',
    ],
)
def test_a_key_that_is_there_twice_is_refused(body: bytes) -> None:
    assert "twice" in refusal(body).detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(), st.text(), st.dictionaries(st.text(), JSON, max_size=3))
def test_quotes_and_escapes_are_no_repeated_keys(
    name: str, value: str, props: dict[str, Any]
) -> None:
    for ascii_only in (True, False):
        text = json.dumps({**BASE, "x" + name: value, "y": props}, ensure_ascii=ascii_only)
        try:
            from_json(text.encode())
        except (InvalidInput, UnicodeEncodeError) as error:
            assert "twice" not in str(error)


@given(
    st.dictionaries(
        st.sampled_from(["d", "n", "u", "r", "w", "p", "ra", "rc", "$", "i", "h", "sd", "e", "v"])
        | st.text(max_size=3),
        JSON,
    )
)
def test_any_json_is_an_event_that_can_be_stored_or_a_refusal(fields: dict[str, Any]) -> None:
    try:
        raw = read(**fields)
    except InvalidInput as error:
        assert error.detail
        return
    assert raw.sites
    for text in (*raw.sites, raw.name, raw.url, raw.referrer or "", raw.props or ""):
        assert "\0" not in text.encode().decode()
    assert raw.revenue_amount is None or abs(raw.revenue_amount) <= REVENUE_MAX
    assert raw.screen_width is None or 0 <= raw.screen_width < 2**31
    assert raw.scroll_depth is None or 0 <= raw.scroll_depth <= 100


@given(st.binary(max_size=300))
def test_any_bytes_are_an_event_or_a_refusal(body: bytes) -> None:
    for read_body in (from_json, batch_from_json, from_query):
        try:
            read_body(body)
        except InvalidInput as error:
            assert error.detail


def test_a_batch_is_an_array_in_its_order() -> None:
    body = json.dumps([{**BASE, "n": f"e{i}"} for i in range(BATCH_EVENTS_MAX)]).encode()
    assert [raw.name for raw in batch_from_json(body)] == [f"e{i}" for i in range(1000)]


def test_a_batch_says_which_event_is_wrong() -> None:
    body = json.dumps([BASE, {**BASE, "n": ""}, {}]).encode()
    with pytest.raises(InvalidInput, match="Event 1") as caught:
        batch_from_json(body)
    assert caught.value.field == "[1].n"
    with pytest.raises(MissingInput, match="Event 0"):
        batch_from_json(b"[{}]")
    with pytest.raises(InvalidInput, match="Event 0"):
        batch_from_json(b"[[]]")


@pytest.mark.parametrize(
    "body",
    [
        *(b"[]", b"{}", b"1", b"[1", json.dumps([BASE] * 1001).encode()),
        json.dumps([{**BASE, "d": "a,b"}] * 501).encode(),
    ],
)
def test_a_batch_has_one_to_a_thousand_events(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        batch_from_json(body)


def test_the_pixel_reads_the_fields_that_003_prints() -> None:
    raw = from_query(
        b"d=example.com&u=https://example.com/page&r=https%3A%2F%2Fgoogle.com%2F&w=800"
        b"&n=open&p=%7B%22a%22%3A1%7D&ra=5&rc=USD"
    )
    assert raw == RawEvent(
        ("example.com",), "open", "https://example.com/page", "https://google.com/", 800
    )


def test_the_pixel_is_a_pageview_unless_told() -> None:
    assert from_query(b"d=e&u=/").name == "pageview"
    assert from_query(b"d=e&u=/&n=").name == "pageview"
    assert from_query(b"d=e&u=/&w=").screen_width is None


@pytest.mark.parametrize(
    "query", [b"", b"d=e", b"u=/", b"d=&u=/", b"d=e&u=", b"d=e&u=+", b"D=e&u=/"]
)
def test_the_pixel_tells_missing_and_empty_from_the_rest(query: bytes) -> None:
    with pytest.raises(MissingInput):
        from_query(query)


@pytest.mark.parametrize(
    "query",
    [
        *(b"d=a%20b&u=/", b"d=e&u=%00", b"d=e&u=/&w=wide", b"d=e&u=/&w=9999999999"),
        *(b"d=e&u=/&w=-1", b"d=e&u=/" + b"&x=1" * 100, b"d=e&u=" + b"x" * 2049),
    ],
)
def test_the_pixel_refuses_what_the_post_refuses(query: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_query(query)
    assert not isinstance(caught.value, MissingInput)


def test_every_field_lands_under_its_own_name() -> None:
    document = {
        "d": "example.com",
        "n": " signup ",
        "u": " https://example.com/x ",
        "r": "https://b.org/",
        "w": 800,
        "p": {"a": 1},
        "ra": 2,
        "rc": "eur",
        "i": False,
        "h": True,
        "sd": 70,
        "e": 900,
        "v": "3",
    }
    raw = from_json(json.dumps(document).encode())
    assert raw == RawEvent(
        sites=("example.com",),
        name="signup",
        url="https://example.com/x",
        referrer="https://b.org/",
        screen_width=800,
        props='{"a":1}',
        revenue_amount=Decimal("2.00"),
        revenue_currency="EUR",
        interactive=False,
        hash_mode=True,
        scroll_depth=70,
        engaged_ms=900,
        script_version="3",
    )
    assert type(raw) is RawEvent
