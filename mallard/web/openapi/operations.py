"""Short ways to write an operation: who may ask, what it takes, what it answers.

What every operation of a kind can answer (a body that is too large, a key that is unknown) is said
here once; the words of errors are those of `problems.STATUS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from mallard.accounts.access import Scope
from mallard.web.openapi.schemas import Json, fields, ref, text, whole, word
from mallard.web.problems import STATUS

KEY = "api_key"  # the name of the security scheme
_OF_BODIES = (400, 408, 413, 415)
_OF_KEYS = (401, 403, 503)
_RETRIED = (429, 503)


@dataclass(frozen=True, slots=True)
class Area:
    """What one area of the API adds to the document.

    paths: operations by path and method. schemas, parameters: what operations refer to by name.
    """

    name: str
    description: str
    paths: dict[str, Json]
    schemas: dict[str, Json] = field(default_factory=dict)
    parameters: dict[str, Json] = field(default_factory=dict)


def operation(
    name: str,
    summary: str,
    answers: Mapping[int, Json],
    *,
    scope: Scope | None = None,
    description: str = "",
    parameters: Iterable[Json] = (),
    body: Json | None = None,
    errors: Iterable[int] = (),
    error: str = "Error",
) -> Json:
    """Return an operation.

    scope: what a key must be for; None where no key is needed. errors: beside those that every
    operation with a body or a key has. error: the schema of its errors.
    """
    statuses = {*errors, *(_OF_BODIES if body else ()), *(_OF_KEYS if scope else ()), 500}
    needs = f"Needs a key with the scope `{scope}`." if scope else ""
    found: Json = {"operationId": name, "summary": summary}
    if told := " ".join(filter(None, (description, needs))):
        found["description"] = told
    if parameters:
        found["parameters"] = [*parameters]
    if body:
        found["requestBody"] = body
    found["responses"] = {
        **{str(status): each for status, each in answers.items()},
        **{
            str(status): {"$ref": f"#/components/responses/{error}{status}"}
            for status in sorted(statuses - set(answers))
        },
    }
    found["security"] = [{KEY: []}] if scope else []
    return found


def query(name: str, schema: Json, *, required: bool = False, **more: object) -> Json:
    """Return a parameter of the query string."""
    return {"name": name, "in": "query", "required": required, "schema": schema, **more}


def shared(name: str) -> Json:
    """Return what stands for a parameter of `components`."""
    return {"$ref": f"#/components/parameters/{name}"}


def in_path(name: str, schema: Json) -> Json:
    """Return a parameter that is part of the path."""
    return {"name": name, "in": "path", "required": True, "schema": schema}


def body(schema: Json, media_type: str = "application/json") -> Json:
    """Return a request's body that is required."""
    return {"required": True, "content": {media_type: {"schema": schema}}}


def answer(
    description: str, schema: Json | None = None, media_type: str = "application/json"
) -> Json:
    """Return a response; without a schema, one with an empty body."""
    if schema is None:
        return {"description": description}
    return {"description": description, "content": {media_type: {"schema": schema}}}


def error_responses() -> dict[str, Json]:
    """Return the responses that operations refer to: a status each, in both shapes."""
    found = {}
    for status in sorted(set(STATUS.values())):
        for schema, codes in (("Error", "error"), ("QueryError", "code")):
            told = {"allOf": [ref(schema), {"properties": {codes: word(_codes(status))}}]}
            response = answer(HTTPStatus(status).phrase, told)
            if status in _RETRIED:
                seconds = whole("Seconds after which a retry is reasonable.", minimum=1)
                response["headers"] = {"Retry-After": {"required": True, "schema": seconds}}
            if status == 401:
                response["headers"] = {
                    "WWW-Authenticate": {"required": True, "schema": text(const="Bearer")}
                }
            found[f"{schema}{status}"] = response
    return found


def error_schemas() -> dict[str, Json]:
    """Return the two shapes of errors."""
    blame = {
        "field": text("The part of the input that is wrong, as the caller spelt it."),
        "rule": text("What would be right."),
    }
    sentence, code = text("A sentence for people."), text("A word for programs.")
    return {
        "Error": fields({"error": code, "detail": sentence, **blame}, optional=blame),
        "QueryError": fields(
            {"error": sentence, "code": code, "detail": sentence, **blame},
            optional=blame,
            description="An error as clients of Plausible's Stats API read it.",
        ),
    }


def _codes(status: int) -> list[str]:
    return sorted(kind.code for kind, each in STATUS.items() if each == status)  # type: ignore[attr-defined]
