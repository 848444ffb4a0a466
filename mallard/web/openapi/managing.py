"""What people say of sites, and API keys: `web/admin.py`, as `accounts` checks and shows it."""

from __future__ import annotations

from mallard.accounts import checks, goals, keys
from mallard.accounts.access import Scope
from mallard.site import SITE_LENGTH_MAX, SITE_RULE, SiteKind
from mallard.web.openapi.operations import Area, answer, body, in_path, operation
from mallard.web.openapi.schemas import (
    Json,
    all_optional,
    fields,
    items,
    or_null,
    ref,
    text,
    whole,
    word,
)

SITE_ID = text(
    f"The name of a site: {SITE_RULE}.",
    minLength=1,
    maxLength=SITE_LENGTH_MAX,
    pattern=r"^[A-Za-z0-9._:\-]+$",
)
_INSTANT = text(format="date-time")
_CURRENCY = text("ISO 4217, such as EUR.", pattern="^[A-Za-z]{3}$")
_ALL_SITES = "One for all sites."


def area() -> Area:
    """Return the area."""
    site, in_site = "/api/sites/{site_id}", [in_path("site_id", SITE_ID)]
    paths: dict[str, Json] = {
        "/api/sites": {
            "get": _get("list_sites", "The sites that were added", _list("sites", "Site")),
            "post": _add("add_site", "Add a site", "NewSite", "Site", description=_ALL_SITES),
        },
        site: {
            "parameters": in_site,
            "get": _get("get_site", "A site, or the defaults", ref("Site"), errors=(400,)),
            "patch": _change(
                "set_site",
                "Change what is given, or add the site",
                "SiteChange",
                "Site",
            ),
            "delete": _remove("remove_site", "Forget what was said of a site; its events stay"),
        },
        "/api/keys": {
            "get": _get(
                "list_keys",
                "Every key, the revoked ones too",
                _list("keys", "Key"),
                description=_ALL_SITES,
            ),
            "post": _add(
                "create_key",
                "Make a key, and show its token once",
                "NewKey",
                "KeyWithToken",
                description=_ALL_SITES,
                conflicts=False,
            ),
        },
        "/api/keys/{key_id}": {
            "parameters": [_number("key_id")],
            "delete": _remove(
                "revoke_key", "Make a key worthless", description=_ALL_SITES, errors=(404,)
            ),
        },
    }
    for kind, kinds in (("goal", "goals"), ("segment", "segments")):
        name = kind.title()
        paths[f"{site}/{kinds}"] = {
            "parameters": in_site,
            "get": _get(f"list_{kinds}", f"A site's {kinds}", _list(kinds, name), errors=(400,)),
            "post": _add(f"add_{kind}", f"Add a {kind}", f"New{name}", name),
        }
        paths[f"{site}/{kinds}/{{{kind}_id}}"] = {
            "parameters": [*in_site, _number(f"{kind}_id")],
            "put": _change(
                f"put_{kind}", f"Make a {kind} what is given", f"New{name}", name, (404, 409)
            ),
            "delete": _remove(f"remove_{kind}", f"Remove a {kind}"),
        }
    return Area("managing", "Sites, their goals and segments, and API keys.", paths, _schemas())


def _number(name: str) -> Json:
    return in_path(name, whole(minimum=0, maximum=999_999_999))


def _list(name: str, each: str) -> Json:
    return fields({name: items(ref(each))})


def _get(
    name: str, summary: str, found: Json, description: str = "", errors: tuple[int, ...] = ()
) -> Json:
    return operation(
        name,
        summary,
        {200: answer("What there is.", found)},
        scope=Scope.ADMIN,
        description=description,
        errors=errors,
    )


def _add(
    name: str, summary: str, taken: str, made: str, description: str = "", *, conflicts: bool = True
) -> Json:
    return operation(
        name,
        summary,
        {201: answer("What was made.", ref(made))},
        scope=Scope.ADMIN,
        description=description,
        body=body(ref(taken)),
        errors=(422, 409) if conflicts else (422,),
    )


def _change(name: str, summary: str, taken: str, made: str, errors: tuple[int, ...] = ()) -> Json:
    return operation(
        name,
        summary,
        {200: answer("What it is now.", ref(made))},
        scope=Scope.ADMIN,
        body=body(ref(taken)),
        errors=(*errors, 422),
    )


def _remove(
    name: str, summary: str, description: str = "", errors: tuple[int, ...] = (400, 404)
) -> Json:
    return operation(
        name,
        summary,
        {204: answer("Done.")},
        scope=Scope.ADMIN,
        description=description,
        errors=errors,
    )


def _schemas() -> dict[str, Json]:
    site = {
        "kind": word(SiteKind),
        "timezone": text("A name of the IANA database, by which the site's days are cut."),
        "currency": or_null(_CURRENCY),
    }
    key = {
        "key_id": whole(),
        "name": text(),
        "scopes": items(word(Scope), minItems=1),
        "sites": {"anyOf": [{"const": "*"}, items(text())]},
        "created_at": _INSTANT,
        "last_used_on": or_null(text("The UTC date.", format="date")),
        "revoked_at": or_null(_INSTANT),
    }
    name = text(minLength=1, maxLength=checks.NAME_LENGTH_MAX)
    sites = items(SITE_ID, minItems=1, maxItems=keys.SITES_MAX)
    new_key = {"name": name, "scopes": key["scopes"], "sites": {"anyOf": [{"const": "*"}, sites]}}
    token = text("Sent as `Authorization: Bearer <token>`; it is shown here alone.")
    return {
        "Site": fields({"site_id": text(), **site, "created_at": or_null(_INSTANT)}),
        "SiteChange": all_optional(site),
        "NewSite": fields({"site_id": SITE_ID, **site}, optional=site),
        "Key": fields(key),
        "KeyWithToken": fields({**key, "token": token}),
        "NewKey": fields(new_key),
        **_goals(name),
        "Segment": fields({"segment_id": whole(), "name": text(), "filters": ref("Filters")}),
        "NewSegment": fields({"name": name, "filters": {**ref("Filters"), "minItems": 1}}),
    }


def _goals(name: Json) -> dict[str, Json]:
    page = text(
        "A pathname, in which `*` stands for anything within a segment and `**` for anything.",
        pattern="^ */",
        maxLength=goals.PAGE_LENGTH_MAX,
    )
    shown = {
        "display_name": text(),
        "page": or_null(text()),
        "event_name": or_null(text()),
        "props": {"type": "object", "additionalProperties": text()},
        "currency": or_null(_CURRENCY),
    }
    props = {
        "type": "object",
        "description": "Properties that an event must have, as texts.",
        "maxProperties": goals.PROPS_MAX,
        "propertyNames": text(minLength=1, maxLength=goals.PROP_NAME_LENGTH_MAX),
        "additionalProperties": text(minLength=1, maxLength=goals.PROP_LENGTH_MAX),
    }
    given = {
        "display_name": or_null(name),
        "page": or_null(page),
        "event_name": or_null(name),
        "props": or_null(props),
        "currency": or_null(_CURRENCY),
    }
    either = {
        "oneOf": [
            {"required": [each], "properties": {each: {"type": "string"}}}
            for each in ("page", "event_name")
        ]
    }
    return {
        "Goal": fields({"goal_id": whole(), **shown}),
        "NewGoal": {**all_optional(given, "Of a page or of an event."), **either},
    }
