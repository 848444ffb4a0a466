"""Every statement and example of the founding document 003, sent as printed.

The headings below are the document's own; a test's name is the statement that it proves.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from mallard.clock import Clock
from mallard.config import Config, IngestConfig, PrivacyConfig
from mallard.query.events import open_folder
from mallard.server import Server
from mallard.web.app import Application
from tests.web.running import BROWSER, VISITOR_ADDRESS, Running, running, started, talking_to

REQUEST_BODY = """{
"d": "example.com",
"n": "pageview",
"u": "https://example.com/pricing",
"r": "https://google.com/",
"w": 1920,
"p": "{\\"plan\\": \\"pro\\"}",
"ra": 99.00,
"rc": "USD"
}"""
REQUIRED = {"d": "example.com", "n": "pageview", "u": "https://example.com/pricing"}
JSON = {"content-type": "application/json"}
ORIGIN = "https://example.com"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Application]]:
    """One server with its default settings for all tests of a file; it starts in half a second."""
    with started(tmp_path_factory.mktemp("mallard")) as pair:
        yield pair


@pytest.fixture
async def mallard(shared: tuple[Server, Application]) -> AsyncIterator[Running]:
    """A client of the shared server, which sees the events of its own test alone."""
    async with talking_to(*shared) as client:
        yield client


def body(**fields: Any) -> str:
    return json.dumps({name: value for name, value in (REQUIRED | fields).items() if value != ...})


def assert_problem(answer: httpx.Response, status: int, field: str | None = None) -> None:
    assert answer.status_code == status
    problem = answer.json()
    assert set(problem) <= {"error", "detail", "field", "rule"}
    assert problem["error"]
    assert problem["detail"]
    if field is not None:
        assert problem["field"] == field
        assert problem["rule"]
    assert answer.headers["access-control-allow-origin"] == "*"


# --- POST /api/event ---


async def test_post_records_a_single_analytics_event(mallard: Running) -> None:
    answer = await mallard.client.post("/api/event", content=REQUEST_BODY, headers=JSON)
    assert answer.status_code == 202
    event = mallard.event()
    assert event.site_id == "example.com"
    assert event.event_name == "pageview"
    assert event.url == "https://example.com/pricing"
    assert event.referrer == "https://google.com/"
    assert event.screen_width == 1920
    assert json.loads(event.props or "") == {"plan": "pro"}
    assert event.revenue_amount == Decimal("99.00")
    assert event.revenue_currency == "USD"
    assert (event.hostname, event.pathname) == ("example.com", "/pricing")
    assert (event.referrer_source, event.channel) == ("Google", "Organic Search")
    assert (event.browser, event.os) == ("Chrome", "Windows")


async def test_no_authentication_is_required(mallard: Running) -> None:
    answer = await mallard.post(body())
    assert "www-authenticate" not in answer.headers
    assert "set-cookie" not in answer.headers
    assert answer.status_code == 202


async def test_cors_is_fully_permissive(mallard: Running) -> None:
    for answer in (
        await mallard.post(body(), origin="https://elsewhere.example"),
        await mallard.post(body()),
        await mallard.post("{}", origin="https://elsewhere.example"),
        await mallard.get("/api/event?d=example.com&u=https://example.com/page"),
        await mallard.get("/api/event"),
        await mallard.client.put("/api/event"),
        await mallard.client.options("/api/event"),
    ):
        assert answer.headers["access-control-allow-origin"] == "*"


async def test_a_preflight_lets_cross_origin_calls_of_the_script_through(mallard: Running) -> None:
    preflight = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }
    answer = await mallard.client.options("/api/event", headers=preflight)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "content-type" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-max-age"] == "86400"


# --- Request body ---


async def test_required_fields_alone_are_enough(mallard: Running) -> None:
    assert (await mallard.post(body())).status_code == 202
    event = mallard.event()
    assert (event.referrer, event.screen_width, event.props) == (None, None, None)
    assert (event.revenue_amount, event.revenue_currency) == (None, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", "https://google.com/"),
        ("w", 1920),
        ("p", '{"plan": "pro"}'),
        ("ra", 99.0),
        ("rc", "USD"),
    ],
)
async def test_each_optional_field_may_come_alone(
    mallard: Running, field: str, value: object
) -> None:
    assert (await mallard.post(body(**{field: value}))).status_code == 202
    assert len(mallard.stored()) == 1


@pytest.mark.parametrize("site", ["example.com", "a-b_c.d:8080", "X9", "x" * 256])
async def test_d_is_letters_digits_dot_dash_underscore_and_colon(
    mallard: Running, site: str
) -> None:
    assert (await mallard.post(body(d=site))).status_code == 202
    assert mallard.event().site_id == site


@pytest.mark.parametrize("name", ["pageview", "signup", "purchase"])
async def test_n_is_the_event_name(mallard: Running, name: str) -> None:
    assert (await mallard.post(body(n=name))).status_code == 202
    assert mallard.event().event_name == name


async def test_w_helps_to_detect_the_device_type(mallard: Running) -> None:
    agent = "SomeApp/1.0"
    await mallard.post(body(w=400), user_agent=agent)
    await mallard.post(body(w=1920), user_agent=agent)
    phone, desktop = mallard.stored()
    assert phone.device_type != desktop.device_type
    assert phone.device_type is not None


@pytest.mark.parametrize(
    ("sent", "stored"), [("99.00", "99.00"), ("0.1", "0.10"), ("9999999999.99", "9999999999.99")]
)
async def test_ra_is_stored_as_decimal_12_2(mallard: Running, sent: str, stored: str) -> None:
    text = REQUEST_BODY.replace("99.00", sent)
    assert (await mallard.post(text)).status_code == 202
    assert str(mallard.event().revenue_amount) == stored


@pytest.mark.parametrize("currency", ["USD", "EUR"])
async def test_rc_is_an_iso_4217_code(mallard: Running, currency: str) -> None:
    assert (await mallard.post(body(ra=1, rc=currency))).status_code == 202
    assert mallard.event().revenue_currency == currency


async def test_rc_has_at_most_3_characters(mallard: Running) -> None:
    assert_problem(await mallard.post(body(ra=1, rc="DOLLARS")), 400, "rc")


# --- Response ---


async def test_the_answer_is_202_with_an_empty_body(mallard: Running) -> None:
    answer = await mallard.client.post("/api/event", content=REQUEST_BODY, headers=JSON)
    assert (answer.status_code, answer.reason_phrase, answer.content) == (202, "Accepted", b"")
    assert answer.headers["content-length"] == "0"
    assert "content-type" not in answer.headers


async def test_202_means_the_event_is_in_the_buffer_and_then_in_parquet(tmp_path: Path) -> None:
    async with running(tmp_path) as mallard:
        assert (await mallard.post(REQUEST_BODY)).status_code == 202
        assert len(mallard.stored()) == 1
    parts = str(tmp_path / "data" / "recent" / "*.parquet")
    with duckdb.connect() as connection:
        row = connection.execute(
            """
            SELECT json_extract_string(props, '$.plan'), sum(revenue_amount), any_value(site_id)
            FROM read_parquet($1) GROUP BY 1
            """,
            [parts],
        ).fetchall()
    assert row == [("pro", Decimal("99.00"), "example.com")]


async def test_props_are_queryable_by_json_extract(tmp_path: Path) -> None:
    async with running(tmp_path) as mallard:
        await mallard.post(REQUEST_BODY)
    with open_folder(tmp_path / "data") as connection:
        rows = connection.execute(
            "SELECT json_extract(props, '$.plan')::VARCHAR, typeof(revenue_amount) FROM events"
        ).fetchall()
    assert rows == [('"pro"', "DECIMAL(12,2)")]


# --- Validation errors ---


@pytest.mark.parametrize("field", ["d", "n", "u"])
async def test_a_missing_required_field_is_422(mallard: Running, field: str) -> None:
    assert_problem(await mallard.post(body(**{field: ...})), 422, field)
    assert mallard.stored() == []


@pytest.mark.parametrize("field", ["d", "n", "u"])
async def test_an_empty_d_n_or_u_is_400(mallard: Running, field: str) -> None:
    assert_problem(await mallard.post(body(**{field: ""})), 400, field)
    assert mallard.stored() == []


@pytest.mark.parametrize("site", ["exa mple.com", "a/b", "münchen.de", "a\n", "x" * 257, "a;b"])
async def test_d_with_invalid_characters_or_over_256_is_400(mallard: Running, site: str) -> None:
    assert_problem(await mallard.post(body(d=site)), 400, "d")
    assert mallard.stored() == []


@pytest.mark.parametrize(
    ("field", "longest"),
    [
        ("n", "n" * 256),
        ("n", "é" * 256),
        ("u", "https://example.com/" + "é" * 2028),
        ("r", "https://google.com/" + "x" * 2029),
        ("p", '{"k": "' + "é" * 4087 + '"}'),
    ],
)
async def test_a_field_over_its_length_limit_is_400(
    mallard: Running, field: str, longest: str
) -> None:
    assert len(longest) == {"n": 256, "u": 2048, "r": 2048, "p": 4096}[field]
    assert (await mallard.post(body(**{field: longest}))).status_code == 202
    longer = longest + ("x" if field != "p" else " ")
    assert_problem(await mallard.post(body(**{field: longer})), 400, field)
    assert len(mallard.stored()) == 1


async def test_a_body_over_64_kb_is_413(mallard: Running) -> None:
    start, end = body()[:-1] + ', "x": "', '"}'
    fits = start + "x" * (65_536 - len(start) - len(end)) + end
    assert len(fits) == 65_536
    assert (await mallard.post(fits)).status_code == 202
    assert_problem(await mallard.post(fits.replace("xx", "xxx", 1)), 413)
    assert len(mallard.stored()) == 1


async def test_an_origin_that_does_not_match_site_ids_is_403(tmp_path: Path) -> None:
    config = Config(ingest=IngestConfig(site_ids=("example.com",)))
    async with running(tmp_path, config) as mallard:
        assert_problem(await mallard.post(body(), origin="https://elsewhere.example"), 403)
        assert mallard.stored() == []
        assert (await mallard.post(body(), origin=ORIGIN)).status_code == 202
        assert (await mallard.post(body())).status_code == 202


async def test_the_origin_is_not_looked_at_without_site_ids(mallard: Running) -> None:
    assert (await mallard.post(body(), origin="https://elsewhere.example")).status_code == 202


async def test_over_the_rate_limit_of_a_site_is_429(tmp_path: Path) -> None:
    config = Config(ingest=IngestConfig(rate_limit_per_site=2))
    async with running(tmp_path, config, clock=StandingClock()) as mallard:
        for _ in range(2):
            assert (await mallard.post(body())).status_code == 202
        answer = await mallard.post(body())
        assert_problem(answer, 429, "d")
        assert answer.json()["rule"] == "at most 2 events a second for each site"
        assert int(answer.headers["retry-after"]) >= 1
        assert (await mallard.post(body(d="other.example"))).status_code == 202
        assert len(mallard.stored()) == 3


# --- GET /api/event ---

USAGE = "/api/event?d=example.com&u=https://example.com/page"


async def test_the_pixel_is_a_transparent_gif_of_one_pixel_in_43_bytes(mallard: Running) -> None:
    answer = await mallard.get(USAGE)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/gif"
    assert answer.headers["content-length"] == "43"
    assert len(answer.content) == 43
    assert answer.content.startswith(b"GIF89a\x01\x00\x01\x00")
    assert answer.content.endswith(b";")
    # The graphic control extension says that there is a transparent colour.
    control = answer.content.index(b"\x21\xf9\x04")
    assert answer.content[control + 3] & 1 == 1


async def test_the_pixel_as_printed_is_a_pageview(mallard: Running) -> None:
    await mallard.get(USAGE)
    event = mallard.event()
    assert (event.site_id, event.event_name) == ("example.com", "pageview")
    assert event.url == "https://example.com/page"
    assert event.source == "Pixel"


async def test_the_pixel_takes_n_r_and_w(mallard: Running) -> None:
    await mallard.get(USAGE + "&n=open&r=https://google.com/&w=800")
    event = mallard.event()
    assert (event.event_name, event.referrer, event.screen_width) == (
        "open",
        "https://google.com/",
        800,
    )


async def test_the_pixel_takes_no_revenue_and_no_props(mallard: Running) -> None:
    answer = await mallard.get(USAGE + "&ra=5&rc=USD&p=%7B%22a%22%3A1%7D")
    assert answer.status_code == 200
    event = mallard.event()
    assert (event.revenue_amount, event.revenue_currency, event.props) == (None, None, None)


@pytest.mark.parametrize(
    "query", ["", "u=https://example.com/", "d=example.com", "d=&u=x", "d=e&u="]
)
async def test_the_pixel_requires_d_and_u(mallard: Running, query: str) -> None:
    assert_problem(await mallard.get(f"/api/event?{query}"), 400)
    assert mallard.stored() == []


async def test_the_pixel_needs_no_authentication_and_is_not_kept(mallard: Running) -> None:
    answer = await mallard.get(USAGE)
    assert "no-store" in answer.headers["cache-control"]


# --- Bot filtering ---

BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


async def test_an_event_of_a_bot_is_answered_202_and_discarded(mallard: Running) -> None:
    answer = await mallard.post(body(), user_agent=BOT)
    assert (answer.status_code, answer.content) == (202, b"")
    assert (await mallard.get(USAGE, user_agent=BOT)).status_code == 200
    assert mallard.stored() == []


async def test_filter_bots_can_be_turned_off(tmp_path: Path) -> None:
    async with running(tmp_path, Config(ingest=IngestConfig(filter_bots=False))) as mallard:
        await mallard.post(body(), user_agent=BOT)
        assert len(mallard.stored()) == 1


# --- Privacy processing ---


class StandingClock(Clock):
    """Stands still, at an instant that tests can move."""

    def __init__(self) -> None:
        self.instant_us = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()) * 1_000_000

    def now_us(self) -> int:
        return self.instant_us

    def monotonic(self) -> float:
        return 1000.0


@pytest.mark.parametrize("salt", ["random", "derived"])
async def test_a_visitor_is_address_agent_and_utc_date(tmp_path: Path, salt: str) -> None:
    config = Config(privacy=PrivacyConfig(visitor_salt=salt, secret="s" * 32))
    clock = StandingClock()
    async with running(tmp_path, config, clock=clock) as mallard:
        await mallard.post(body())
        await mallard.post(body(n="signup"))
        await mallard.post(body(), user_agent=BROWSER + " Other/1")
        clock.instant_us += 86_400_000_000
        mallard.server.visitors.prepare(clock.instant_us)
        await mallard.post(body())
        first, again, other_agent, next_day = (event.visitor_id for event in mallard.stored())
    assert first is not None
    assert first == again
    assert len({first, other_agent, next_day}) == 3


async def test_the_address_is_never_written_to_disk(tmp_path: Path) -> None:
    async with running(tmp_path) as mallard:
        await mallard.post(REQUEST_BODY)
        await mallard.get(USAGE)
    packed = bytes(map(int, VISITOR_ADDRESS.split(".")))
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert any(path.suffix == ".parquet" for path in files)
    for path in files:
        content = path.read_bytes()
        assert VISITOR_ADDRESS.encode() not in content
        assert packed not in content
        assert BROWSER.encode() not in content


# --- Server-side example ---


async def test_the_server_side_example_is_taken(mallard: Running) -> None:
    example = """{
"d": "example.com",
"n": "server_signup",
"u": "https://example.com/signup"
}"""
    headers = {**JSON, "user-agent": "curl/8.5.0", "accept": "*/*"}
    answer = await mallard.client.post("/api/event", content=example, headers=headers)
    assert (answer.status_code, answer.content) == (202, b"")
    event = mallard.event()
    assert (event.event_name, event.url) == ("server_signup", "https://example.com/signup")
    assert event.source == "API"
