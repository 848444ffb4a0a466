"""The OpenAPI document says what the routes do, and the routes do what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from mallard.config import TrackerConfig
from mallard.query.plausible import names
from mallard.query.plausible.reading import KEYS
from mallard.server import Server
from mallard.web.app import Application
from mallard.web.openapi.document import document
from mallard.web.openapi.schemas import Json
from tests.web.describing import ALL, SITE, Asked, documented, seeded
from tests.web.running import Running, talking_to

FAILED = 500  # what no answer here should be


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Application, str]]:
    with seeded(tmp_path_factory.mktemp("mallard")) as found:
        yield found


@pytest.fixture
async def asked(
    seed: tuple[Server, Application, str],
) -> AsyncIterator[tuple[Running, Application, str]]:
    server, app, token = seed
    async with talking_to(server, app) as mallard:
        yield mallard, app, token


async def document_of(mallard: Running) -> Json:
    answer = await mallard.get("/api/openapi.json")
    assert answer.status_code == 200
    found: Json = answer.json()
    return found


def operations(document: Json) -> dict[tuple[str, str], Json]:
    """The operations by path and method."""
    return {
        (path, method.upper()): each
        for path, methods in document["paths"].items()
        for method, each in methods.items()
        if method != "parameters"
    }


async def test_the_document_is_openapi_3_1(asked: tuple[Running, Application, str]) -> None:
    document = await document_of(asked[0])
    assert document["openapi"].startswith("3.1.")
    validate(document)
    ids = [each["operationId"] for each in operations(document).values()]
    assert len(ids) == len(set(ids))


def test_each_of_several_event_and_script_paths_has_operations_of_its_own() -> None:
    config = TrackerConfig(event_paths=("/api/event", "/e"), script_paths=("/js/a.js", "/b"))
    found = document(config)
    validate(found)
    ids = [each["operationId"] for each in operations(found).values()]
    assert len(ids) == len(set(ids))
    assert {"/e", "/e/batch", "/js/a.{features}.js", "/b"} <= found["paths"].keys()


def test_a_server_that_nobody_asks_does_not_load_the_document() -> None:
    program = "import sys, mallard.server, mallard.web.app; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    names_loaded = loaded.stdout.split()
    assert "mallard.web.openapi.route" in names_loaded
    assert "mallard.web.openapi.document" not in names_loaded


async def test_every_route_with_its_methods_is_described_and_nothing_else(
    asked: tuple[Running, Application, str],
) -> None:
    mallard, app, _ = asked
    routes = set()
    for path in app.paths:
        # A method that no route takes is answered with those that it does.
        sent = re.sub(r"\{\w+(:\w+)?\}", "1", path)
        answer = await mallard.client.request("PURGE", sent)
        assert answer.status_code == 405, path
        template = re.sub(r"\{(\w+):\w+\}", r"{\1}", path)
        # HEAD goes with GET, and OPTIONS is what browsers ask before they send.
        for method in set(answer.headers["allow"].split(", ")) - {"HEAD", "OPTIONS"}:
            routes.add((template, method))
    assert set(operations(await document_of(mallard))) == routes


async def test_what_queries_may_name_is_in_the_document(
    asked: tuple[Running, Application, str],
) -> None:
    schemas = (await document_of(asked[0]))["components"]["schemas"]
    assert set(schemas["Query"]["properties"]) == set(KEYS)
    assert set(schemas["Metrics"]["properties"]) == set(names.METRICS)


async def test_every_answer_is_one_that_the_document_describes(
    asked: tuple[Running, Application, str],
) -> None:
    mallard, _, token = asked
    document = await document_of(mallard)
    seen: dict[str, set[int]] = {}
    for each in documented():
        answer = await send(mallard, each, token)
        operation = described(document, each)
        assert answer.status_code == each.status, (each, answer.text)
        check(document, operation, answer, f"{each.method} {each.path}")
        seen.setdefault(operation["operationId"], set()).add(each.status)
    for operation in operations(document).values():
        statuses = {int(status) for status in operation["responses"]} - {FAILED}
        got = seen.get(operation["operationId"], set())
        assert min(statuses) in got, f"no success of {operation['operationId']}"
        refusals = {status for status in statuses if status in {400, 401, 404}}
        assert not refusals or refusals & got, f"no error of {operation['operationId']}"


async def test_what_needs_a_key_answers_nobody_without_one(
    asked: tuple[Running, Application, str],
) -> None:
    mallard, _, _ = asked
    document = await document_of(mallard)
    right = {
        described(document, each)["operationId"]: each for each in documented() if each.is_right
    }
    for (path, _), operation in operations(document).items():
        each = replace(right[operation["operationId"]], is_stranger=True)
        answer = await send(mallard, each, "")
        assert (answer.status_code == 401) == bool(operation["security"]), path


async def send(mallard: Running, each: Asked, token: str) -> httpx.Response:
    headers = dict(each.headers)
    if not each.is_stranger:
        headers["authorization"] = f"Bearer {token}"
    return await mallard.client.request(
        each.method, each.path, params=each.query, content=each.content, headers=headers
    )


def described(document: Json, each: Asked) -> Json:
    """The operation that a request is for: that of the path with the fewest parameters."""
    found = [
        path
        for path in document["paths"]
        if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)), each.path)
    ]
    path = min(found, key=lambda path: path.count("{"))
    operation: Json = document["paths"][path][each.method.lower()]
    return operation


def check(document: Json, operation: Json, answer: httpx.Response, what: str) -> None:
    response = operation["responses"][str(answer.status_code)]
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
    for name, header in response.get("headers", {}).items():
        assert name in answer.headers or not header.get("required"), what
    if "content" not in response:
        assert answer.content == b"", what
        return
    kind = answer.headers["content-type"].partition(";")[0]
    schema = response["content"][kind]["schema"]
    value: Any = answer.json() if kind == "application/json" else answer.text
    validator = Draft202012Validator({**schema, "components": document["components"]})
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
    assert errors == [], what


async def test_a_wrong_answer_would_be_seen(asked: tuple[Running, Application, str]) -> None:
    mallard, _, token = asked
    document = await document_of(mallard)
    each = Asked(200, "GET", "/api/stats/summary", {**ALL, "site_id": SITE})
    answer = await send(mallard, each, token)
    found = answer.json()
    found["rows"][0]["visitors"] = "three"
    wrong = httpx.Response(200, json=found)
    with pytest.raises(AssertionError, match="three"):
        check(document, described(document, each), wrong, "")
