"""What the OpenAPI document allows is answered as it says, and what it does not is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis import checks as known
from starlette.types import Receive, Scope, Send

from mallard.config import TrackerConfig
from mallard.errors import InvalidInput
from mallard.transfer.exporter import parameters_of
from mallard.web.exports import OWN
from mallard.web.openapi.document import document
from mallard.web.openapi.schemas import Json
from tests.web.describing import SITE, seeded

EXAMPLES = 6  # of each operation that are right, and as many that are wrong
# Each of these takes a process of its own.
FEW = {"sql": 3, "export": 4}
OWN_KEY = 1
# A picture is shown whatever is wrong with the event.
NEVER_REFUSED = {"show_event"}
# Of things that were never made, and of filters, of which made-up ones mean nothing.
NEVER_FOUND = {"add_segment", "revoke_key", "put_segment", "remove_segment"}
CHECKS = [
    known.not_a_server_error,
    known.status_code_conformance,
    known.content_type_conformance,
    known.response_headers_conformance,
    known.response_schema_conformance,
    known.unsupported_method,
]
# What is refused by these statuses is: theirs, and 413 for a body that became large.
REFUSED = [400, 401, 403, 404, 405, 409, 413, 415, 422]
CONFIG = schemathesis.Config.from_dict(
    {"checks": {"negative_data_rejection": {"expected-statuses": REFUSED}}}
)
DETERMINED = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[*HealthCheck],
)


def described() -> tuple[Json, list[str], list[str]]:
    """The document, the operations in it, and those of them that take something.

    Without the key, which would be made up too; test_openapi asks without one.
    """
    found = document(TrackerConfig())
    names, taking = [], []
    for methods in found["paths"].values():
        shared = methods.get("parameters", [])
        for method, operation in methods.items():
            if method == "parameters":
                continue
            del operation["security"]
            names.append(operation["operationId"])
            if shared or operation.get("parameters") or "requestBody" in operation:
                taking.append(operation["operationId"])
    return found, sorted(names), sorted(taking)


DOCUMENT, OPERATIONS, TAKING = described()


# What no form of a text says: by the name of a parameter or field.
SAYING: dict[str, list[Any]] = {
    "as_of": ["2024-09-16T12:59:00Z", "2024-09-16T14:00:00+02:00"],
    "compare": ["previous_period", "previous_year", "2024-09-01..2024-09-15"],
    "date_range": ["all", "day", ["2024-09-15", "2024-09-16"]],
    "filters": [
        "",
        "country==DE",
        "page==/blog/*;source~oo",
        "props:plan!=pro",
        "goal==Signup",
        [],
        [["is", "visit:country", ["DE"]]],
    ],
    "goal": ["Signup", "PurchaseUSD"],
    "goal_id": [1, 2],
    "id": ["2024-09-16-0000000000000001-1"],
    "order": ["visitors", "-visitors"],
    "period": ["all", "day", "7d"],
    "sql": ["SELECT pathname, count(*) FROM events GROUP BY ALL", "FROM sessions"],
    "steps": ["page:/,goal:Signup", "page:/**,event:Signup,event:PurchaseUSD"],
    "timezone": ["Europe/Berlin"],
    "what": ["page", "goals", "funnel", "visits", "events"],
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    with seeded(tmp_path_factory.mktemp("mallard")) as (_, app, token):

        async def running(scope: Scope, receive: Receive, send: Send) -> None:
            # It runs already; a client that could stop it would.
            assert scope["type"] == "http"
            await app(scope, receive, send)

        schema = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)
        schema.app = running
        yield schema, f"Bearer {token}"


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_right_is_answered_as_described(name: str, api: tuple[Any, str]) -> None:
    schema, bearer = api
    statuses = set()

    @given(case=schema.find_operation_by_id(name).as_strategy(), data=st.data())
    @settings(DETERMINED, max_examples=FEW.get(name, EXAMPLES))
    def ask(case: Case[Any], data: st.DataObject) -> None:
        for told in (case.path_parameters, case.query, case.body):
            if isinstance(told, dict):
                _say_something(told, data)
        assume(name != "revoke_key" or case.path_parameters["key_id"] != OWN_KEY)
        answer = case.call_and_validate(headers={"authorization": bearer}, checks=CHECKS)
        statuses.add(answer.status_code)

    ask()
    assert name in NEVER_FOUND or min(statuses) < 400, statuses


def _say_something(told: dict[str, Any], data: st.DataObject) -> None:
    """Put words that mean something here in the place of some of those that were made up."""
    for field in sorted(told.keys() & SAYING.keys()):
        words = [each for each in SAYING[field] if type(each) is type(told[field])]
        told[field] = data.draw(st.sampled_from([told[field], *words]), field)
    if "what" in told:
        # Of the parameters of all reports those that this one has.
        with contextlib.suppress(InvalidInput):
            for name in told.keys() - {*OWN, *parameters_of(told["what"])}:
                del told[name]
    if "site_id" in told:
        told["site_id"] = SITE  # which has events
    if "from" in told or "to" in told:
        told.pop("period", None)
        told["from"], told["to"] = "2024-09-01", "2024-09-16"


@pytest.mark.parametrize("name", TAKING)
def test_what_is_wrong_is_refused_as_described(name: str, api: tuple[Any, str]) -> None:
    schema, bearer = api
    operation = schema.find_operation_by_id(name)
    checks = [*CHECKS, *([] if name in NEVER_REFUSED else [known.negative_data_rejection])]

    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    @settings(DETERMINED, max_examples=FEW.get(name, EXAMPLES))
    def ask(case: Case[Any]) -> None:
        # Who asks for an explanation gets one.
        assume("x-debug-request" not in {header.lower() for header in case.headers})
        case.call_and_validate(headers={"authorization": bearer}, checks=checks)

    ask()
