"""Clients that go away before their question is answered, over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from mallard.query.engine import Session
from mallard.query.sandbox import SPILLED
from mallard.query.sql import Sql
from mallard.server import Server
from mallard.transfer import exporter
from mallard.web import reports
from tests import waiting
from tests.end_to_end.wire import Connection, message
from tests.web.running import started
from tests.web.test_direct import listening

FOREVER = "SELECT count(*) FROM range(1_000_000_000_000) a, range(1_000_000) b"
SQL = "/api/sql", {"sql": FOREVER}
REPORT = (
    "/api/v2/query",
    {"site_id": "a.example", "metrics": ["visitors"], "date_range": "7d"},
)


class Served(NamedTuple):
    """A server, where it listens, and what says that one may ask."""

    server: Server
    port: int
    key: dict[str, str]


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    def forever(session: Session, *_: Any) -> Any:
        return session.rows(Sql(FOREVER))

    monkeypatch.setattr(reports, "answer", forever)
    with started(tmp_path) as (server, app):
        fields = {"name": "test", "scopes": ["sql", "stats:read", "export"], "sites": "*"}
        _, token = await server.accounts.change(lambda control: control.keys.create(fields))
        async with listening(app) as port:
            yield Served(server, port, {"authorization": f"Bearer {token}"})


async def until(server: Server, running: int) -> None:
    def is_so() -> bool | None:
        return server.engine.running == running or None

    await asyncio.to_thread(waiting.until, is_so, f"{running} questions run")


@pytest.mark.parametrize(("path", "document"), [SQL, REPORT], ids=["sql", "report"])
async def test_a_question_whose_asker_has_gone_is_stopped_and_the_next_one_answered(
    served: Served, path: str, document: dict[str, Any]
) -> None:
    server, port, key = served
    async with await Connection.open(port) as leaving:
        await leaving.send(message("POST", path, orjson.dumps(document), key))
        await until(server, 1)
    await until(server, 0)
    async with await Connection.open(port) as staying:
        answer = await staying.request("POST", "/api/sql", b'{"sql": "SELECT 42 AS x"}', key)
    assert orjson.loads(answer.body)["rows"] == [{"x": 42}]


async def test_an_export_whose_asker_has_gone_before_its_first_byte_is_stopped(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, port, key = served
    monkeypatch.setattr(exporter, "query_of", lambda *_: Sql(FOREVER))
    spilled = server.data / SPILLED  # which has a folder for each that is under way

    async def until_there_are(exports: int) -> None:
        def is_so() -> bool | None:
            return (spilled.exists() and len([*spilled.iterdir()]) == exports) or None

        await asyncio.to_thread(waiting.until, is_so, f"{exports} exports run")

    for _ in range(server.config.query.exports + 1):
        async with await Connection.open(port) as leaving:
            await leaving.send(message("GET", "/api/export?site_id=a.example", b"", key))
            await until_there_are(1)
        await until_there_are(0)


async def test_it_goes_on_for_as_long_as_one_of_those_who_asked_it_is_there(
    served: Served,
) -> None:
    server, port, key = served
    request = message("POST", SQL[0], orjson.dumps(SQL[1]), key)
    async with await Connection.open(port) as staying:
        await staying.send(request)
        await until(server, 1)
        async with await Connection.open(port) as leaving:
            await leaving.send(request)
            leaving.end()
            assert (await leaving.answer()).status == 400
        assert (server.engine.running, server.engine.waiting) == (1, 0)
    await until(server, 0)
