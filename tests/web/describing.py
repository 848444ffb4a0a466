"""Requests for every operation of the API, with the status each is to get, over a seeded server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mallard.accounts.control import Control
from mallard.server import Server
from mallard.web.app import Application
from tests.stored import SettableClock
from tests.web.running import started
from tests.web.test_reports import EVENTS, GOALS, MINUTE_US, NOON_US, SITE

__all__ = ["ALL", "SITE", "Asked", "documented", "seeded"]

ALL = {"period": "all"}
EVENT = {"d": SITE, "n": "pageview", "u": f"https://{SITE}/"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and the status of its answer. is_stranger: it comes without a key."""

    status: int
    method: str
    path: str
    query: dict[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    is_stranger: bool = False

    @property
    def is_right(self) -> bool:
        """Whether it is answered with what it asks for."""
        return self.status < 300

    @property
    def content(self) -> bytes | None:
        """The body as it is sent."""
        if self.body is None or isinstance(self.body, bytes):
            return self.body
        return json.dumps(self.body).encode()


@contextmanager
def seeded(folder: Path) -> Iterator[tuple[Server, Application, str]]:
    """Run a server with the events and goals of test_reports; give an admin's token too."""
    clock = SettableClock(NOON_US + 60 * MINUTE_US)
    with started(folder, clock=clock) as (server, app):
        for goal in GOALS:
            server.accounts.change_now(partial(_add_goal, goal))
        fields = {"name": "everything", "scopes": ["admin"], "sites": "*"}
        _, token = server.accounts.change_now(lambda control: control.keys.create(fields))
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(server.buffer.append(EVENTS))
        yield server, app, token


def _add_goal(goal: dict[str, str], control: Control) -> object:
    return control.goals.add(SITE, goal)


def documented() -> Iterator[Asked]:
    """Every request, in an order in which each finds what it needs."""
    yield from _collecting()
    yield from _managing()
    yield from _reports()
    yield from _insights()
    yield from _queries()
    yield from _version_1()
    yield from _sql()
    yield from _operating()


def _collecting() -> Iterator[Asked]:
    debug = {"x-debug-request": "true"}
    bot = {"user-agent": "Googlebot/2.1 (+http://www.google.com/bot.html)"}
    event, batch = "/api/event", "/api/event/batch"
    yield Asked(202, "POST", event, body=EVENT)
    yield Asked(202, "POST", event, body=EVENT, headers=bot)
    yield Asked(200, "POST", event, body=EVENT, headers=debug)
    yield Asked(200, "POST", event, body=EVENT, headers=debug | bot)
    yield Asked(200, "POST", event, body={"d": SITE}, headers=debug)
    yield Asked(400, "POST", event, body=b"{")
    yield Asked(422, "POST", event, body={"d": SITE})
    yield Asked(413, "POST", event, body=b" " * 70_000)
    yield Asked(415, "POST", event, body=EVENT, headers={"content-encoding": "br"})
    yield Asked(202, "POST", batch, body=[EVENT, EVENT])
    yield Asked(200, "POST", batch, body=[EVENT], headers=debug)
    yield Asked(200, "POST", batch, body=[], headers=debug)
    yield Asked(400, "POST", batch, body=[])
    yield Asked(422, "POST", batch, body=[{"d": SITE}])
    yield Asked(200, "GET", event, {"d": SITE, "u": "/"})
    yield Asked(200, "GET", event, {"d": SITE, "u": "/", "w": "wide"})
    yield Asked(200, "GET", event, {"d": SITE, "u": "/"}, headers=debug)
    yield Asked(400, "GET", event, {"d": SITE})


def _managing() -> Iterator[Asked]:
    site = "/api/sites/new.example"
    yield Asked(201, "POST", "/api/sites", body={"site_id": "new.example", "currency": "EUR"})
    yield Asked(409, "POST", "/api/sites", body={"site_id": "new.example"})
    yield Asked(400, "POST", "/api/sites", body={"site": "new.example"})
    yield Asked(200, "GET", "/api/sites")
    yield Asked(401, "GET", "/api/sites", is_stranger=True)
    yield Asked(200, "GET", site)
    yield Asked(200, "GET", "/api/sites/unknown.example")
    yield Asked(400, "GET", "/api/sites/a..b")
    yield Asked(200, "PATCH", site, body={"timezone": "Europe/Berlin", "currency": None})
    yield Asked(400, "PATCH", site, body={"timezone": "Europe/Nowhere"})
    goal = {"event_name": "signup", "props": {"plan": "pro"}}
    segment = {"name": "Germans", "filters": [["is", "visit:country", ["DE"]]]}
    for kind, given in (("goals", goal), ("segments", segment)):
        yield Asked(201, "POST", f"{site}/{kind}", body=given)
        yield Asked(409, "POST", f"{site}/{kind}", body=given)
        yield Asked(400, "POST", f"{site}/{kind}", body={"name": 7})
        yield Asked(200, "GET", f"{site}/{kind}")
        yield Asked(400, "GET", f"/api/sites/a..b/{kind}")
        number = 1 + len(GOALS) if kind == "goals" else 1
        yield Asked(200, "PUT", f"{site}/{kind}/{number}", body=given)
        yield Asked(400, "PUT", f"{site}/{kind}/{number}", body=[])
        yield Asked(404, "PUT", f"{site}/{kind}/99", body=given)
        yield Asked(204, "DELETE", f"{site}/{kind}/{number}")
        yield Asked(404, "DELETE", f"{site}/{kind}/{number}")
    yield Asked(422, "POST", f"{site}/segments", body={"filters": segment["filters"]})
    yield Asked(204, "DELETE", site)
    yield Asked(404, "DELETE", site)
    key = {"name": "reader", "scopes": ["stats:read"], "sites": [SITE]}
    yield Asked(201, "POST", "/api/keys", body=key)
    yield Asked(400, "POST", "/api/keys", body={**key, "scopes": ["everything"]})
    yield Asked(422, "POST", "/api/keys", body={**key, "name": None})
    yield Asked(200, "GET", "/api/keys")
    yield Asked(401, "GET", "/api/keys", is_stranger=True)
    yield Asked(204, "DELETE", "/api/keys/2")
    yield Asked(404, "DELETE", "/api/keys/99")


def _reports() -> Iterator[Asked]:
    given = {**ALL, "site_id": SITE}
    compared = {"compare": "previous_period", "period": "day", "site_id": SITE}
    for path in ("summary", "timeseries", "breakdown/page", "breakdown/props:plan", "goals"):
        yield Asked(200, "GET", f"/api/stats/{path}", given)
        yield Asked(200, "GET", f"/api/stats/{path}", compared)
        yield Asked(200, "GET", f"/api/stats/{path}", {**given, "format": "csv"})
        money = {**given, "metrics": "total_revenue,visitors"}
        yield Asked(200, "GET", f"/api/stats/{path}", money)
        yield Asked(400, "GET", f"/api/stats/{path}", {**given, "period": "soon"})
        yield Asked(401, "GET", f"/api/stats/{path}", given, is_stranger=True)


def _insights() -> Iterator[Asked]:
    given = {**ALL, "site_id": SITE}
    yield Asked(200, "GET", "/api/stats/realtime", {"site_id": SITE})
    yield Asked(400, "GET", "/api/stats/realtime", given)
    yield Asked(400, "GET", "/api/stats/realtime", {"site_id": ""})
    steps = {"steps": "page:/,goal:Signup"}
    reports: list[tuple[str, list[dict[str, str]]]] = [
        ("funnel", [steps, {**steps, "by": "source", "window": "1h"}, {**steps, "within": "user"}]),
        ("funnel", [{**steps, "compare": "previous_year"}]),
        ("revenue", [{"compare": "previous_year"}]),
        ("journeys", [{}, {"of": "page:/"}, {"of": "page:/pricing", "direction": "before"}]),
        ("retention", [{}, {"interval": "day", "person": "anonymous_id"}]),
        ("revenue", [{}, {"by": "goal"}, {"by": "page"}, {"interval": "day"}]),
        ("attribution", [{"goal": "PurchaseUSD"}, {"goal": "Signup", "within": "user"}]),
        ("sessions", [{}, {"limit": "1"}]),
        ("props", [{}]),
        ("props/plan", [{}, {"order": "-visitors"}]),
    ]
    for path, variants in reports:
        for more in variants:
            for form in ("json", "csv"):
                found = {**given, **more, "format": form}
                yield Asked(200, "GET", f"/api/stats/{path}", found)
        yield Asked(400, "GET", f"/api/stats/{path}", {**given, "period": "soon"})
        yield Asked(401, "GET", f"/api/stats/{path}", given, is_stranger=True)
    one = "/api/stats/sessions/2024-09-16-0000000000000001-1"
    yield Asked(200, "GET", one, {"site_id": SITE})
    yield Asked(404, "GET", "/api/stats/sessions/none", {"site_id": SITE})


def _queries() -> Iterator[Asked]:
    path = "/api/v2/query"
    query = {"site_id": SITE, "metrics": ["visitors", "total_revenue"], "date_range": "all"}
    yield Asked(200, "POST", path, body=query)
    include = {"time_labels": True, "total_rows": True, "imports": True}
    comparisons = {"comparisons": {"mode": "previous_period"}}
    by = {"dimensions": ["time:day", "event:goal"]}
    yield Asked(200, "POST", path, body={**query, **by, "include": include})
    yield Asked(200, "POST", path, body={**query, **by, "include": comparisons})
    yield Asked(400, "POST", path, body={**query, "metrics": ["visitor"]})
    yield Asked(400, "POST", path, body={"site_id": SITE})
    yield Asked(401, "POST", path, body=query, is_stranger=True)


def _version_1() -> Iterator[Asked]:
    given = {"site_id": SITE, "period": "day"}
    path = "/api/v1/stats"
    yield Asked(200, "GET", f"{path}/realtime/visitors", {"site_id": SITE})
    yield Asked(400, "GET", f"{path}/realtime/visitors")
    yield Asked(401, "GET", f"{path}/realtime/visitors", given, is_stranger=True)
    more = {"property": "event:goal", "metrics": "visitors,conversion_rate,total_revenue"}
    for report, extra in (("aggregate", {}), ("timeseries", {}), ("breakdown", more)):
        asked = {**given, **extra}
        yield Asked(200, "GET", f"{path}/{report}", asked)
        yield Asked(400, "GET", f"{path}/{report}", {**asked, "period": "soon"})
        yield Asked(401, "GET", f"{path}/{report}", asked, is_stranger=True)
    compared = {**given, "compare": "previous_period", "metrics": "visitors,bounce_rate"}
    yield Asked(200, "GET", f"{path}/aggregate", compared)


def _sql() -> Iterator[Asked]:
    path, sql = "/api/sql", "SELECT event_name, count(*) AS n FROM events GROUP BY ALL"
    yield Asked(200, "POST", path, body={"sql": sql})
    yield Asked(200, "POST", path, body={"sql": sql, "format": "arrow", "site_id": SITE})
    yield Asked(200, "POST", path, body={"sql": sql, "as_of": "2024-01-01T00:00:00Z"})
    yield Asked(400, "POST", path, body={"sql": "ATTACH 'x'"})
    yield Asked(401, "POST", path, body={"sql": sql}, is_stranger=True)
    export, given = "/api/export", {"site_id": SITE}
    yield Asked(200, "GET", export, given)
    yield Asked(200, "GET", export, {**given, "what": "sessions", "format": "parquet"})
    yield Asked(200, "GET", export, {**given, "what": "page", "format": "ndjson"})
    yield Asked(200, "GET", export, {**given, "what": 'props:"Tarif"\nPreis \u20ac'})
    yield Asked(200, "GET", export, {**given, "what": "funnel", "steps": "page:/,goal:Signup"})
    yield Asked(404, "GET", export, {**given, "what": "visits/none", "visitors": "true"})
    yield Asked(400, "GET", export, {**given, "what": "everything"})
    yield Asked(401, "GET", export, given, is_stranger=True)


def _operating() -> Iterator[Asked]:
    for path in ("/", "/robots.txt", "/health/live", "/health/ready", "/metrics"):
        yield Asked(200, "GET", path)
    yield Asked(200, "GET", "/api/openapi.json")
    for name in ("/js/script", "/mallard"):
        yield Asked(200, "GET", f"{name}.js")
        yield Asked(304, "GET", f"{name}.js", headers={"if-none-match": "*"})
        yield Asked(200, "GET", f"{name}.hash.files.js")
        yield Asked(404, "GET", f"{name}.dance.js")
