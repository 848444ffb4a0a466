"""Every report, in every form it is exported in, says what `/api/stats` answers with."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow.parquet as pq
import pytest

from mallard.query.forms import Form
from mallard.query.named import numbers, whole
from mallard.query.named.asking import Asked, Asking, Found, Page
from mallard.query.named.columns import Column, Kind, Row
from mallard.query.named.registry import REPORTS, exported
from mallard.query.named.whole import FORMS, Whole, pages_of, write_rows, write_whole
from mallard.query.period import Period
from mallard.query.plausible import names
from mallard.query.plausible.filtering import Context
from mallard.query.still import Paging, Still, still
from mallard.server import Server
from mallard.transfer.exporter import read_wanted
from mallard.web.app import Application
from tests.stored import SettableClock
from tests.web.running import Running, started, talking_to
from tests.web.test_reports import EVENTS, GOALS, MINUTE_US, NOON_US, SITE, _add_goal, custom, view
from tests.web.test_stats import get

Json = dict[str, Any]
NOW_US = NOON_US + 60 * MINUTE_US
BEFORE = {"compare": "previous_period", "period": "day"}
MONEY = {"metrics": "total_revenue,average_revenue,visitors"}
STEPS = "page:/,goal:Signup,event:PurchaseUSD"
# A report's name in exports, and parameters.
CASES: list[tuple[str, dict[str, str]]] = [
    *((name, {}) for name in ("page", "visit:source", "city", "country_name", "name")),
    *((name, {"metrics": "events,percentage"}) for name in ("page", "props:plan", "props/plan")),
    *(("summary", given) for given in ({}, BEFORE, MONEY, {"filters": "country==DE"})),
    *(("timeseries", given) for given in ({}, BEFORE, {"interval": "hour", **MONEY})),
    *(("goals", given) for given in ({}, {"period": "day", "compare": "previous_year"})),
    *((name, {}) for name in ("time:day", "time:hour", "time", "goal", "realtime")),
    ("breakdown/source", {"order": "-visitors", **BEFORE}),
    ("breakdown/visit:city", {"filters": "page==/blog/**"}),
    ("funnel", {"steps": STEPS}),
    ("funnel", {"steps": STEPS, "by": "source", "within": "visitor", "window": "1h", **BEFORE}),
    ("funnel", {"steps": STEPS, "within": "user"}),
    *(("journeys", given) for given in ({}, {"of": "page:/"}, {"steps": "1"})),
    ("journeys", {"of": "event:Signup", "direction": "before", "steps": "2"}),
    *(("retention", given) for given in ({}, {"interval": "day", "person": "user_id"})),
    *(("revenue", given) for given in ({}, {"by": "goal"}, {"by": "page"}, BEFORE)),
    *(("revenue", {"interval": interval}) for interval in ("day", "hour")),
    ("attribution", {"goal": "PurchaseUSD", "by": "utm_source"}),
    ("attribution", {"goal": "Signup", "within": "user"}),
    *(("visits", given) for given in ({}, {"filters": "event:name==Signup"})),
    ("visits/2024-09-16-0000000000000001-1", {}),
    ("props", {}),
]
HOSTILE = [
    view(9, "=cmd|'/c calc'!A1", 5, user_id="ada"),
    view(9, "/a > /b", 6, props='{"plan": "\\u2028\\"", "n": [1, {"a": null}]}'),
    custom(9, "-2+3", 7, referrer_source="@x", revenue_amount=Decimal("0.10"), props='{"": 1}'),
    custom(9, "Euros", 8, revenue_amount=Decimal("19.99"), revenue_currency="EUR", user_id="ada"),
    view(9, "/later", day=-4, user_id="ada"),
    view(4, "/now", 57, country_code=None),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Application]]:
    folder = tmp_path_factory.mktemp("mallard")
    with started(folder, clock=SettableClock(NOW_US)) as (server, app):
        for goal in GOALS:
            server.accounts.change_now(partial(_add_goal, goal))
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(server.buffer.append([*EVENTS, *HOSTILE]))
        yield server, app


@pytest.fixture
async def site(shared: tuple[Server, Application]) -> AsyncIterator[Running]:
    async with talking_to(*shared) as client:
        yield client


def whole_of(site: Running, what: str, given: dict[str, str]) -> tuple[Whole, Still]:
    """What is wanted of a server, and what it has."""
    server = site.server
    directory = server.accounts.directory_now()
    first = server.answers.first_date(SITE)
    now = datetime.fromtimestamp(NOW_US / 1e6, UTC)
    zone = ZoneInfo(directory.site(SITE).timezone)
    context = Context(zone, now, first, directory.goals_of(SITE), directory.segments_of(SITE))
    asking = Asking(directory.site(SITE), context, given, default_period="all")
    wanted = read_wanted(what, asking)
    assert isinstance(wanted, Whole)
    tail = server.tail.view()
    return wanted, still(tail, server.store.snapshot(), SITE, server.store.source)


def written(site: Running, what: str, form: Form, given: dict[str, str]) -> bytes:
    """What a process, or the command, writes of a server's report."""
    sink = io.BytesIO()
    with duckdb.connect() as connection:
        write_whole(connection, *whole_of(site, what, given), form, sink, 128 * 2**20)
    return sink.getvalue()


def in_each_form(site: Running, what: str, given: dict[str, str]) -> dict[Form, bytes]:
    """The same in each form, of rows that are looked for once."""
    wanted, of_site = whole_of(site, what, given)
    asked = wanted.asked()
    with duckdb.connect() as connection, closing(Paging(connection.cursor())) as session:
        pages = [*pages_of(session, of_site.answers(), asked)]
    sinks = {form: io.BytesIO() for form in FORMS}
    for form, sink in sinks.items():
        write_rows(pages, asked.columns, wanted.asking.context.zone, form, sink)
    return {form: sink.getvalue() for form, sink in sinks.items()}


def flat(row: Json) -> Iterator[tuple[str, Any]]:
    """The values of a row in JSON by the names that columns have."""
    for name, value in row.items():
        if name == "rates":  # which is made of two others
            continue
        if name == "retained":
            yield from ((f"{name}.{n}", each) for n, each in enumerate(value))
        elif isinstance(value, dict) and name not in {"revenue", "props"}:
            yield from ((f"{name}.{inner}", each) for inner, each in flat(value))
        else:
            yield name, value


def plain(value: Any) -> Any:
    """A value of Parquet as JSON would have it; instants as what they are compared by."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, date):
        return value.isoformat()
    return value


def text(value: Any) -> str:
    """A value in JSON as a cell of CSV."""
    if value is None or value == {}:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        value = " > ".join(value)
    if isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and value.startswith(tuple("=+-@")) else str(value)


def instant(name: str, value: Any) -> Any:
    if name in {"time", "started_at", "ended_at"} and value and len(value) > 10:
        found = datetime.fromisoformat(value)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    return value


def path_of(what: str) -> str:
    report, argument, _ = exported(what)
    return f"{report.name}/{argument}" if report.argument else report.name


@pytest.mark.parametrize(("what", "given"), CASES)
async def test_every_report_is_what_stats_answers(
    what: str, given: dict[str, str], site: Running
) -> None:
    bare = {"period": None} if what in {"realtime", "visits/2024-09-16-0000000000000001-1"} else {}
    interval = what.partition(":")[2] if what in names.TIMES else ""
    asked = {**given, **bare, **({"interval": interval} if interval else {})}
    answer = await get(site, path_of(what), limit=None, **asked)
    assert answer.status_code == 200, answer.text
    rows = [dict(flat(row)) for row in answer.json()["rows"]]
    in_csv = await get(site, path_of(what), format="csv", **asked)
    content = in_each_form(site, what, given)
    assert content[Form.CSV].decode() == in_csv.text
    told = [*csv.DictReader(io.StringIO(in_csv.text))]
    lines = content[Form.NDJSON].splitlines()
    table = pq.read_table(io.BytesIO(content[Form.PARQUET]))
    names_told = next(iter(csv.reader(io.StringIO(in_csv.text))))
    assert table.column_names == names_told
    found = table.to_pylist()
    assert len(lines) == len(found) == len(told) == len(rows)
    for row, line, typed, cells in zip(rows, map(json.loads, lines), found, told, strict=True):
        assert {name for name, value in row.items() if value is not None} <= {*names_told}
        assert line == {name: row.get(name) for name in names_told}
        assert cells == {name: text(row.get(name)) for name in names_told}
        for name in names_told:
            shown = plain(typed[name])
            if name == "props":
                shown = json.loads(shown)
            elif name == "revenue" and isinstance(shown, list):
                shown = {currency: float(amount) for currency, amount in shown}
            assert shown == instant(name, row.get(name)), name


def test_every_report_is_among_them_and_a_dimension_is_a_breakdown_by_it() -> None:
    assert {exported(what)[0].key for what, _ in CASES} == {each.key for each in REPORTS}
    for name in names.DIMENSIONS:
        report, argument, _ = exported(name)
        assert (report.key, argument) == ("breakdown", name)


async def test_values_have_their_types(site: Running) -> None:
    def kinds(what: str, **given: str) -> dict[str, str]:
        content = written(site, what, Form.PARQUET, given)
        schema = pq.read_table(io.BytesIO(content)).schema
        return {field.name: str(field.type) for field in schema}

    assert kinds("timeseries", metrics="visitors,bounce_rate,views_per_visit") == {
        "time": "date32[day]",
        "visitors": "int64",
        "bounce_rate": "int64",
        "views_per_visit": "double",
    }
    assert kinds("time:hour", metrics="total_revenue")["time"] == "timestamp[us, tz=UTC]"
    money = kinds("goals", metrics="total_revenue")
    assert money["total_revenue.value"] == "decimal128(38, 2)"
    visits = kinds("visits")
    assert (visits["started_at"], visits["bounce"]) == ("timestamp[us, tz=UTC]", "bool")
    assert visits["revenue"].startswith("map<string, decimal128(38, 2)")


async def test_a_report_without_rows_has_its_columns(site: Running) -> None:
    nothing = {"from": "2020-01-01", "to": "2020-01-02"}
    for what in ("page", "journeys", "visits", "props"):
        (head,) = written(site, what, Form.CSV, nothing).decode().splitlines()
        assert written(site, what, Form.NDJSON, nothing) == b""
        table = pq.read_table(io.BytesIO(written(site, what, Form.PARQUET, nothing)))
        assert (table.num_rows, table.column_names) == (0, head.split(","))


@pytest.mark.parametrize("rows", [1, 3])
async def test_pages_of_any_size_come_to_the_same(
    rows: int, site: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases: list[tuple[str, dict[str, str]]] = [
        *(("page", {}), ("goals", BEFORE), ("props", {}), ("visits", {}), ("journeys", {})),
        *(("journeys", {"of": "page:/"}), ("revenue", {"by": "page"})),
        ("funnel", {"steps": STEPS, "by": "source"}),
    ]
    expected = [written(site, what, Form.CSV, given) for what, given in cases]
    monkeypatch.setattr(numbers, "LIMIT_MAX", rows)
    for module in ("visits", "journeys", "money"):
        monkeypatch.setattr(f"mallard.query.named.{module}.ROWS_MAX", rows)
    monkeypatch.setattr("mallard.query.named.insights.ROWS_MAX", rows * 3)  # of three steps each
    assert [written(site, what, Form.CSV, given) for what, given in cases] == expected


def report(pages: list[int], told: list[str]) -> Asked:
    """A report of pages with so many rows each, that says when it makes one."""

    def answered(session: object, answers: object, page: Page) -> Found:
        count = pages[page.offset // page.limit]
        told.append(f"made {count}")
        return Found([{"n": n} for n in range(count)], count=count)

    zone = ZoneInfo("UTC")
    period = Period.of_days(date(2024, 5, 1), date(2024, 5, 1), zone)
    return Asked(period, (Column("n", Kind.WHOLE),), answered, pages=1_000)


@pytest.mark.parametrize("form", FORMS)
def test_a_page_is_written_before_the_next_is_made(form: Form) -> None:
    told: list[str] = []

    class Sink:
        def write(self, content: bytes, /) -> None:
            if told[-1] != "written":
                told.append("written")

    pages: Iterator[list[Row]] = pages_of(None, None, report([1_000, 1_000, 7], told))  # type: ignore[arg-type]
    columns = (Column("n", Kind.WHOLE),)
    assert write_rows(pages, columns, ZoneInfo("UTC"), form, Sink()) == 2_007
    full = ["made 1000", "written"]
    assert told == [*full, *full, "made 7", "written"]


def test_a_last_page_that_is_full_is_followed_by_an_empty_one() -> None:
    told: list[str] = []
    pages = [*pages_of(None, None, report([1_000, 0], told))]  # type: ignore[arg-type]
    assert [len(page) for page in pages] == [1_000, 0]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_wrong_with_the_first_page_comes_before_any_byte(form: Form) -> None:
    def pages() -> Iterator[list[Row]]:
        raise RuntimeError("wrong")
        yield []

    sink = io.BytesIO()
    with pytest.raises(RuntimeError):
        whole.write_rows(pages(), (), ZoneInfo("UTC"), form, sink)
    assert sink.getvalue() == b""
