"""The whole document: every route with its methods, what each takes and every answer it can give.

What the code has a list of (metrics, dimensions, limits, statuses) is taken from there; the rest is
written in the module of its area. tests/web/test_openapi.py compares it with the routes.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from mallard.accounts.access import TOKEN_PREFIX
from mallard.config import TrackerConfig
from mallard.web.openapi import (
    collecting,
    insights,
    managing,
    money,
    operating,
    querying,
    statistics,
    version_1,
    visits,
)
from mallard.web.openapi.operations import KEY, Area, error_responses, error_schemas
from mallard.web.openapi.schemas import Json

_METHODS = ("get", "post", "put", "patch", "delete")
_ABOUT = """\
Events go in, statistics come out. Errors name what is wrong in `error` (a word for programs) and \
`detail` (a sentence), and, where one field is to blame, `field` and `rule` (what would be right); \
`/api/v2/query` and `/api/v1/stats` have the sentence in `error`, as Plausible does, and the word \
in `code`. Whatever answers GET answers HEAD, and every other method gets 405.

A key is for all sites or for some, and for one or more scopes. On a server that only its own \
machine reaches and that never had a key, reading needs none."""


def document(config: TrackerConfig) -> Json:
    """Return the document. config: which paths take events and serve the script."""
    reports = [statistics.area(), insights.area(), money.area(), visits.area()]
    areas = [
        collecting.area(config),
        *reports,
        version_1.area(),
        querying.area(reports),
        managing.area(),
        operating.area(config),
    ]
    schemas = error_schemas()
    parameters: Json = {}
    paths: Json = {}
    for area in areas:
        for operation in _operations(area):
            operation["tags"] = [area.name]
        paths |= area.paths
        schemas |= area.schemas
        parameters |= area.parameters
    return {
        "openapi": "3.1.0",
        "info": {"title": "Mallard", "version": version("mallard"), "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": area.name, "description": area.description} for area in areas],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": parameters,
            "responses": error_responses(),
            "securitySchemes": {
                KEY: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": f"An API key, which begins with `{TOKEN_PREFIX}`.",
                }
            },
        },
    }


def _operations(area: Area) -> Iterator[Json]:
    for path in area.paths.values():
        yield from (operation for name, operation in path.items() if name in _METHODS)
