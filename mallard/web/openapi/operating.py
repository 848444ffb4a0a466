"""What browsers, operators and their tools ask: scripts, pages, health, counters, this document."""

from __future__ import annotations

from mallard.config import TrackerConfig
from mallard.web.openapi.operations import Area, answer, in_path, operation
from mallard.web.openapi.schemas import Json, fields, flag, items, text
from mallard.web.pages import KNOWN_WORDS, script_routes

_HTML, _PLAIN, _SCRIPT = "text/html", "text/plain", "application/javascript"


def area(config: TrackerConfig) -> Area:
    """Return the area."""
    health = answer("Each check, and what a person should look into.", _HEALTH)
    paths = {
        "/": _get("welcome", "What to paste into a site", answer("A page.", text(), _HTML)),
        "/robots.txt": _get(
            "robots", "Ask crawlers to stay away", answer("robots.txt.", text(), _PLAIN)
        ),
        "/health/live": _get(
            "live",
            "Whether the process answers",
            answer("It does.", fields({"live": {"const": True}})),
        ),
        "/health/ready": {
            "get": operation(
                "ready", "Whether the server can do its work", {200: health, 503: health}
            )
        },
        "/metrics": _get(
            "metrics",
            "Counters for Prometheus",
            answer("The Prometheus text format.", text(), _PLAIN),
        ),
        "/api/openapi.json": _get(
            "openapi", "This document", answer("OpenAPI 3.1.", {"type": "object"})
        ),
    }
    for number, path in enumerate(script_routes(config)):
        paths[path] = {"get": _script(number, path)}
    return Area("operating", "Scripts, pages, health and counters.", paths)


_HEALTH = fields(
    {
        "ready": flag(),
        "checks": {
            "type": "object",
            "description": "`ok`, or what is wrong.",
            "additionalProperties": text(),
        },
        "notes": items(text()),
    }
)


def _get(name: str, summary: str, found: Json) -> Json:
    return {"get": operation(name, summary, {200: found})}


def _script(number: int, path: str) -> Json:
    found = {
        200: answer("The script.", text(), _SCRIPT),
        304: answer("The caller has it, as its If-None-Match says."),
    }
    name, summary = f"script_{number + 1}", "The tracker"
    if "{features}" not in path:
        return operation(name, summary, found)
    words = "|".join(KNOWN_WORDS)
    features = text(f"Words with dots between: {', '.join(KNOWN_WORDS)}.")
    features["pattern"] = rf"^({words})(\.({words}))*$"
    return operation(
        name,
        f"{summary} with features by its name",
        found,
        parameters=[in_path("features", features)],
        errors=[404],
    )
