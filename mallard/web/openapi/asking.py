"""What is asked of events in words of Plausible's Stats API v2: metrics, dimensions, filters.

All of it is made of the lists that the queries are read by (`query/plausible/names.py`).
"""

from __future__ import annotations

from mallard.query.named.parameters import COMPARISONS, ROWS, ROWS_MAX
from mallard.query.plausible import filtering, names, reading
from mallard.query.plausible.compact import LENGTH_MAX as FILTERS_LENGTH_MAX
from mallard.query.plausible.compact import full_name
from mallard.query.plausible.ranges import RULE as RANGES
from mallard.web.openapi.managing import SITE_ID
from mallard.web.openapi.operations import query
from mallard.web.openapi.schemas import (
    Json,
    all_optional,
    fields,
    flag,
    items,
    number,
    or_null,
    ref,
    row,
    text,
    whole,
    word,
)
from mallard.web.stats import FORMATS

_RANGE = r"^(day|24h|month|year|all|0*[1-9][0-9]{0,2}d|0*[1-9][0-9]?mo)$"
_KEY = rf"[\s\S]{{1,{names.PROPERTY_LENGTH_MAX}}}$"

_DAYS = r"^\d{4}-\d{2}-\d{2}\.\.\d{4}-\d{2}-\d{2}$"
_MOMENT: Json = {"anyOf": [text(format="date"), text(format="date-time")]}
AS_OF = text("What was known at a time in the past.", format="date-time")

CHANGE = "In percent of the other number; of a percentage itself, in points."


def metric(name: str) -> Json:
    """Return the schema of a metric's value."""
    if name in names.COUNTS:
        return whole(minimum=0)
    return or_null(ref("Money") if name in names.REVENUE else number())


def dimensions() -> list[str]:
    """Return the names of dimensions but for properties, with the time's."""
    return [*names.DIMENSIONS, names.GOAL, *names.TIMES]


def dimension() -> Json:
    """Return the schema of the full name of a dimension that is no time."""
    return {"anyOf": [word([*names.DIMENSIONS, names.GOAL]), _property()]}


def short_dimensions(*, goals: bool = True, times: bool = True) -> Json:
    """Return the schema of a dimension's name, with or without `event:` and `visit:`."""
    lasting = [*names.DIMENSIONS, *([names.GOAL] if goals else ())]
    full = [*lasting, *(names.TIMES if times else ())]
    short = [each.partition(":")[2] for each in lasting]
    known = [each for each in short if full_name(each) != each]
    keys = text("A property of events.", pattern=rf"^(event:)?props:{_KEY}")
    return {"anyOf": [word([*full, *dict.fromkeys(known)]), keys]}


def parameters() -> dict[str, Json]:
    """Return the parameters that reports share, by name."""
    conditions = (
        "Conditions with `;` between, such as `page==/blog/**;country!=DE|FR;segment==Phones`."
    )
    limit = whole(minimum=1, maximum=ROWS_MAX, default=ROWS)
    found = [
        query("site_id", SITE_ID, required=True),
        query("period", text(f"A named period: {RANGES}.", pattern=_RANGE, default="30d")),
        query("from", {**_MOMENT, "description": "With `to`, instead of `period`."}),
        query("to", {**_MOMENT, "description": "The last day, or second, of the period."}),
        query("filters", text(conditions, maxLength=FILTERS_LENGTH_MAX)),
        query("as_of", AS_OF),
        query("format", word(FORMATS, default="json")),
        query("limit", limit),
        query("offset", whole(minimum=0, maximum=10**12, default=0)),
        query("compare", {"anyOf": [word(COMPARISONS), text(pattern=_DAYS)]}),
    ]
    return {each["name"]: each for each in found}


def metrics_parameter(default: tuple[str, ...]) -> Json:
    """Return the parameter that chooses metrics, names with commas between."""
    schema = items(word(names.METRICS), minItems=1, uniqueItems=True, default=[*default])
    return query("metrics", schema, style="form", explode=False)


def schemas() -> dict[str, Json]:
    """Return the schemas of questions and of what answers are made of."""
    return {
        "Dimension": {"anyOf": [word(dimensions()), _property()]},
        "Filter": _filter(),
        "Filters": items(
            ref("Filter"),
            "All of which hold. `event:` dimensions are of each event, `visit:` ones of its visit.",
            maxItems=filtering.FILTERS_MAX,
        ),
        "Query": _query(),
        "Money": fields(
            {
                "value": number(),
                "currency": text("ISO 4217."),
                "short": text("As people read it, such as $1.2K."),
                "long": text("The same to the cent."),
            }
        ),
        "Warnings": {
            "type": "object",
            "description": "Why a metric has no value, by its name.",
            "additionalProperties": fields({"code": text(), "warning": text()}),
        },
    }


def _property() -> Json:
    return text("A property of events.", pattern=f"^{names.PROPERTY_PREFIX}{_KEY}")


def _filter() -> Json:
    texts = items(text(), "Any of which fits.", minItems=1, maxItems=filtering.CLAUSES_MAX)
    sensitive = all_optional({"case_sensitive": flag()})
    saved = items(
        {"anyOf": [whole(), text()]}, "The site's segments, by number or name.", minItems=1
    )
    filtered = {"anyOf": [word([*names.DIMENSIONS]), _property()]}
    of_goals = ["is", "is_not", "contains", "contains_not"]
    return {
        "anyOf": [
            row(word(filtering.OPERATORS), filtered, texts, optional=sensitive),
            row(word(of_goals), {"const": names.GOAL}, texts, optional=sensitive),
            row(word(["is", "is_not"]), {"const": names.SEGMENT}, saved),
            row(word(["and", "or"]), items(ref("Filter"), minItems=1)),
            row(word(["not", "has_done", "has_not_done"]), ref("Filter")),
        ]
    }


def date_range() -> Json:
    """Return the schema of a `date_range`."""
    return {"description": RANGES, "anyOf": [text(pattern=_RANGE), row(_MOMENT, _MOMENT)]}


def _query() -> Json:
    comparison = fields(
        {
            "mode": word(["previous_period", "year_over_year", "custom"]),
            "date_range": date_range(),
        },
        optional=["date_range"],
    )
    include = {name: flag() for name in reading.INCLUDE} | {"comparisons": or_null(comparison)}
    order = row(text("A metric or dimension of the query."), word(["asc", "desc"]))
    pages = {
        "limit": whole(minimum=1, maximum=reading.LIMIT_MAX, default=reading.LIMIT_MAX),
        "offset": whole(minimum=0, default=0),
    }
    required = {
        "site_id": SITE_ID,
        "metrics": items(word(names.METRICS), minItems=1, uniqueItems=True),
        "date_range": date_range(),
    }
    optional = {
        "dimensions": items(ref("Dimension"), maxItems=reading.DIMENSIONS_MAX, uniqueItems=True),
        "filters": ref("Filters"),
        "order_by": or_null(items(order)),
        "include": all_optional(include),
        "pagination": all_optional(pages),
        "as_of": or_null(AS_OF),
    }
    return fields({**required, **optional}, optional=optional)
