"""SQL over events and visits: `web/sql.py`."""

from __future__ import annotations

from mallard.accounts.access import Scope
from mallard.query.forms import Form
from mallard.query.permitted import SQL_LENGTH_MAX
from mallard.web.openapi.managing import SITE_ID
from mallard.web.openapi.operations import Area, answer, body, operation
from mallard.web.openapi.schemas import Json, fields, items, or_null, ref, text, whole, word


def area() -> Area:
    """Return the area."""
    found = answer("The rows.", ref("SqlAnswer"))
    found["content"] |= {kind: {"schema": text()} for kind in _media_types()}
    ask = operation(
        "sql",
        "One SELECT over events and sessions",
        {200: found},
        scope=Scope.SQL,
        description="Without `site_id`, over all sites of the key.",
        body=body(ref("SqlQuery")),
        errors=(422, 504),
    )
    return Area("querying", "SQL.", {"/api/sql": {"post": ask}}, _schemas())


def _media_types() -> list[str]:
    kinds = (form.media_type for form in Form if form is not Form.JSON)
    return [kind.partition(";")[0] for kind in kinds]


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
