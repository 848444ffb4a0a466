"""Where events go in: one at a time, in a batch, or by a picture."""

from __future__ import annotations

from mallard.config import TrackerConfig
from mallard.event import INT32_MAX, Event
from mallard.ingest.admission import Reason
from mallard.ingest.payload import (
    BATCH_EVENTS_MAX,
    LONG_NAMES,
    NAME_LENGTH_MAX,
    PROPS_LENGTH_MAX,
    SITES_PER_EVENT_MAX,
    URL_LENGTH_MAX,
    VERSION_LENGTH_MAX,
)
from mallard.web.collect import BATCH_BYTES_MAX, EVENT_BYTES_MAX
from mallard.web.openapi.operations import Area, answer, operation, query
from mallard.web.openapi.schemas import (
    Json,
    fields,
    items,
    number,
    or_null,
    ref,
    text,
    whole,
    word,
)

_REQUIRED = ("d", "n", "u")
_REFUSED = (403, 429, 503)


def area(config: TrackerConfig) -> Area:
    """Return the area, with an operation for each of the configured event paths."""
    paths: dict[str, Json] = {}
    for index, path in enumerate(config.event_paths):
        name = "event" if not index else f"event_{index + 1}"
        paths[path] = {"post": _post(name), "get": _pixel(name)}
        paths[f"{path}/batch"] = {"post": _batch(name)}
    return Area("collecting", "Where events go in. No key is needed.", paths, _schemas())


def _post(name: str) -> Json:
    return operation(
        f"send_{name}",
        "Store an event",
        {200: _explained(ref("Explained")), 202: _taken()},
        parameters=[_DEBUG],
        body=_body(ref("Event"), EVENT_BYTES_MAX),
        errors=(*_REFUSED, 422),
    )


def _batch(name: str) -> Json:
    events = items(ref("Event"), minItems=1, maxItems=BATCH_EVENTS_MAX)
    explained = {"anyOf": [items(ref("Explained")), ref("Explained")]}
    return operation(
        f"send_{name}_batch",
        "Store all events of a list, or none",
        {200: _explained(explained), 202: _taken()},
        parameters=[_DEBUG],
        body=_body(events, BATCH_BYTES_MAX),
        errors=(*_REFUSED, 422),
    )


def _pixel(name: str) -> Json:
    picture = {
        "description": "A transparent GIF, also where the event is not stored; or the explanation "
        "that X-Debug-Request asks for.",
        "headers": _DROPPED,
        "content": {
            "image/gif": {"schema": text(contentMediaType="image/gif")},
            "application/json": {"schema": ref("Explained")},
        },
    }
    schemas = _event_schemas()
    missing = answer("`d` or `u` is missing.", ref("Error"))
    # An empty one is an absent one; the others are refused by an x-mallard-dropped.
    given = [
        query(name, {**schemas[name], "minLength": 1}, required=name in {"d", "u"})
        for name in ("d", "u", "n", "r")
    ]
    width = query("w", whole("The screen's width in pixels.", minimum=0, maximum=INT32_MAX))
    return operation(
        f"show_{name}",
        "Store an event by showing a picture",
        {200: picture, 400: missing},
        parameters=[_DEBUG, *given, width],
    )


_DEBUG: Json = {
    "name": "X-Debug-Request",
    "in": "header",
    "description": "`true` stores nothing and answers what would be stored, or why it would not.",
    "schema": word(["true", "false"]),
}
_DROPPED: Json = {
    "x-plausible-dropped": {
        "description": "There when an event was not stored although nobody did anything wrong.",
        "schema": text(const="1"),
    },
    "x-mallard-dropped": {
        "description": "Why not: "
        + ", ".join(f"`{reason}`" for reason in Reason if reason is not Reason.ACCEPTED)
        + "; of a picture, also what is wrong with the event.",
        "schema": text(),
    },
}


def _taken() -> Json:
    return {
        **answer("Stored for good, or dropped as its headers say."),
        "headers": _DROPPED,
    }


def _explained(schema: Json) -> Json:
    return answer("What X-Debug-Request asks for; nothing was stored.", schema)


def _body(schema: Json, bytes_max: int) -> Json:
    as_text = text(contentMediaType="application/json", contentSchema=schema)
    return {
        "required": True,
        "description": f"JSON of at most {bytes_max} bytes, of whatever Content-Type.",
        "content": {"application/json": {"schema": schema}, "text/plain": {"schema": as_text}},
    }


def _event_schemas() -> dict[str, Json]:
    """Return the fields of an event by their short names."""
    truth = {"enum": [True, False, 0, 1]}
    return {
        "d": text(
            f"The site, or up to {SITES_PER_EVENT_MAX} with commas between.",
            minLength=1,
            pattern=r"^[A-Za-z0-9._:\-, ]+$",
        ),
        "n": text(
            "The event's name; `pageview` is a page view.", minLength=1, maxLength=NAME_LENGTH_MAX
        ),
        "u": text("The page's address.", minLength=1, maxLength=URL_LENGTH_MAX),
        "r": text("Where the visitor came from.", maxLength=URL_LENGTH_MAX),
        "w": whole("The screen's width in pixels.", minimum=0, maximum=INT32_MAX),
        "p": {
            "description": "Properties: an object, or JSON text of one; at most "
            f"{PROPS_LENGTH_MAX} characters.",
            "anyOf": [{"type": "object"}, text(maxLength=PROPS_LENGTH_MAX)],
        },
        "ra": {"description": "An amount of money.", "anyOf": [number(), text()]},
        "rc": text("Its currency (ISO 4217).", pattern="^[A-Za-z]{3}$"),
        "$": {
            "description": 'Money as Plausible sends it, `{"amount": 99, "currency": "EUR"}`; what '
            "is not of this form is left out."
        },
        "i": {**truth, "description": "Whether it ends a bounce."},
        "h": {**truth, "description": "Whether what stands after `#` in the address is kept."},
        "sd": number("Of an `engagement`: percent scrolled."),
        "e": number("Of an `engagement`: milliseconds looked at."),
        "v": {
            "description": "The version of the script.",
            "anyOf": [text(maxLength=VERSION_LENGTH_MAX), number()],
        },
    }


def _schemas() -> dict[str, Json]:
    short = _event_schemas()
    properties = {name: or_null(each) for name, each in short.items()}
    properties |= {
        long: {**or_null(short[name]), "description": f"`{name}` by its long name."}
        for long, name in LONG_NAMES.items()
    }
    spellings = {
        name: [name, *(long for long, short_name in LONG_NAMES.items() if short_name == name)]
        for name in _REQUIRED
    }
    return {
        "Event": {
            "type": "object",
            "description": "Unknown fields are left out, and null is an absent field.",
            "properties": properties,
            "allOf": [
                {
                    "anyOf": [
                        {"required": [each], "properties": {each: short[name]}} for each in names
                    ]
                }
                for name, names in spellings.items()
            ],
        },
        "Explained": _explanation(),
    }


def _explanation() -> Json:
    shown = ["string", "number", "boolean"]
    stored = {name: {"type": shown} for name in Event._fields}
    event = fields(stored, optional=stored, description="What would be stored.")
    judged = {
        "verdict": word(["accepted", "dropped", "refused"]),
        "reason": text("A word for programs."),
        "detail": text("A sentence for people."),
        "client_address": text("The address the server saw; it is not kept."),
        "sites": items(text()),
        "events": items(event, "One for each site."),
    }
    judged["client_address"] = or_null(judged["client_address"])
    refused = {
        "verdict": {"const": "refused"},
        "status": whole("The status that the answer would have."),
        "error": text(),
        "detail": text(),
        "field": text(),
        "rule": text(),
    }
    return {"anyOf": [fields(judged), fields(refused, optional=("field", "rule"))]}
