"""Events and visits themselves: SQL (`web/sql.py`) and exports (`web/exports.py`)."""

from __future__ import annotations

from collections.abc import Iterable

from mallard.accounts.access import Scope
from mallard.query.forms import Form
from mallard.query.permitted import SQL_LENGTH_MAX
from mallard.query.pieces import What
from mallard.web.exports import FORMS
from mallard.web.openapi import asking
from mallard.web.openapi.managing import SITE_ID
from mallard.web.openapi.operations import Area, answer, body, operation, query, shared
from mallard.web.openapi.schemas import Json, fields, items, or_null, ref, text, whole, word


def area() -> Area:
    """Return the area."""
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
    paths = {"/api/sql": {"post": ask}, "/api/export": {"get": _export()}}
    return Area("querying", "Events and visits themselves.", paths, _schemas())


def _export() -> Json:
    what = {
        "anyOf": [word([*What, "timeseries", "goals"]), *asking.short_dimensions()["anyOf"]],
        "default": What.EVENTS,
    }
    found = answer("The rows, as they come.")
    found["content"] = _contents(FORMS)
    return operation(
        "export",
        "A site's events, visits or a report, whole",
        {200: found},
        scope=Scope.EXPORT,
        description="With the ids of visitors, the scope `admin`.",
        parameters=[
            shared("site_id"),
            shared("from"),
            shared("to"),
            query("format", word(FORMS, default=Form.CSV)),
            query("what", what),
            query("visitors", word(["true", "false"], "Whether their ids go out.")),
        ],
        errors=(400, 422, 504),
    )


def _contents(forms: Iterable[Form]) -> Json:
    return {form.media_type.partition(";")[0]: {"schema": {}} for form in forms}


def _schemas() -> dict[str, Json]:
    asked = {
        "sql": text("A SELECT.", minLength=1, maxLength=SQL_LENGTH_MAX),
        "format": word(Form, "How the rows are written.", default=Form.JSON),
        "site_id": or_null(SITE_ID),
    }
    column = fields({"name": text(), "type": text("DuckDB's word for it.")})
    answered = {
        "columns": items(column),
        "row_count": whole(minimum=0),
        "rows": items({"type": "object"}, "An object each, by the names of the columns."),
    }
    return {
        "SqlQuery": fields(asked, optional=("format", "site_id")),
        "SqlAnswer": fields(answered),
    }
