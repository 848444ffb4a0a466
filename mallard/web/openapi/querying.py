"""Events and visits themselves: SQL (`web/sql.py`) and exports (`web/exports.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mallard.accounts.access import Scope
from mallard.query.forms import Form
from mallard.query.named.whole import FORMS
from mallard.query.permitted import SQL_LENGTH_MAX
from mallard.query.pieces import What
from mallard.transfer.exporter import NAMES, parameters_of
from mallard.web.openapi import asking
from mallard.web.openapi.managing import SITE_ID
from mallard.web.openapi.operations import Area, answer, body, operation, query, shared
from mallard.web.openapi.schemas import Json, fields, items, or_null, ref, text, whole, word


def area(reports: Sequence[Area]) -> Area:
    """Return the area. reports: those that say what the parameters of reports are."""
    found = answer("The rows.", ref("SqlAnswer"))
    found["content"] |= _contents(form for form in Form if form is not Form.JSON)
    ask = operation(
        "sql",
        "One SELECT over events and sessions",
        {200: found},
        scope=Scope.SQL,
        description="Without `site_id`, over all sites of the key.",
        body=body(ref("SqlQuery")),
        errors=(422, 504),
    )
    paths = {"/api/sql": {"post": ask}, "/api/export": {"get": _export(reports)}}
    return Area("querying", "Events and visits themselves.", paths, _schemas())


def _export(reports: Sequence[Area]) -> Json:
    following = text("What follows `/api/stats/`.", pattern=r"^(breakdown|props|visits)/[\s\S]")
    what = {
        "anyOf": [word(NAMES), *asking.short_dimensions()["anyOf"], following],
        "description": "Visits as they are stored are `sessions`; `visits` are those that "
        "`/api/stats/sessions` has. A dimension's name is a breakdown by it.",
        "default": What.EVENTS,
    }
    found = answer("The rows, as they come.")
    found["content"] = _contents(FORMS)
    return operation(
        "export",
        "A site's events, visits or a report, whole",
        {200: found},
        scope=Scope.EXPORT,
        description="A report has the parameters of its path under `/api/stats`, without pages, "
        "and the columns of its CSV. With the ids of visitors, the scope `admin`.",
        parameters=[
            shared("site_id"),
            query("what", what),
            query("format", word(FORMS, default=Form.CSV)),
            query("visitors", word(["true", "false"], "Whether their ids go out.")),
            *_of_reports(reports),
        ],
        errors=(400, 404, 422, 504),
    )


def _of_reports(reports: Sequence[Area]) -> list[Json]:
    """Return the parameters that any report has, each with all that it may be."""
    shared = {name: each for area in reports for name, each in area.parameters.items()}
    found: dict[str, tuple[Json, list[Json]]] = {}
    for told in (path["get"] for area in reports for path in area.paths.values() if "get" in path):
        for each in told["parameters"]:
            one = shared[each["$ref"].rpartition("/")[2]] if "$ref" in each else each
            if one["in"] == "query":
                found.setdefault(one["name"], (one, []))[1].append(_without_default(one["schema"]))
    exported = {name for what in NAMES for name in parameters_of(what)} - {"site_id"}
    return [
        {**first, "required": False, "schema": _any_of(schemas)}
        for name, (first, schemas) in found.items()
        if name in exported
    ]


def _without_default(schema: Json) -> Json:
    return {name: value for name, value in schema.items() if name != "default"}


def _any_of(schemas: list[Json]) -> Json:
    distinct: list[Any] = [each for n, each in enumerate(schemas) if each not in schemas[:n]]
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct}


def _contents(forms: Iterable[Form]) -> Json:
    return {form.media_type.partition(";")[0]: {"schema": {}} for form in forms}


def _schemas() -> dict[str, Json]:
    asked = {
        "sql": text("A SELECT.", minLength=1, maxLength=SQL_LENGTH_MAX),
        "format": word(Form, "How the rows are written.", default=Form.JSON),
        "site_id": or_null(SITE_ID),
        "as_of": or_null(asking.AS_OF),
    }
    column = fields({"name": text(), "type": text("DuckDB's word for it.")})
    answered = {
        "columns": items(column),
        "row_count": whole(minimum=0),
        "rows": items({"type": "object"}, "An object each, by the names of the columns."),
    }
    return {
        "SqlQuery": fields(asked, optional=("format", "site_id", "as_of")),
        "SqlAnswer": fields(answered),
    }
