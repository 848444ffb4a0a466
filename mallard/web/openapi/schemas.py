"""Short ways to write JSON Schema (draft 2020-12, the one of OpenAPI 3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]


def text(description: str = "", **more: Any) -> Json:
    """Return a text's schema. more: keywords of JSON Schema."""
    return _described({"type": "string", **more}, description)


def whole(description: str = "", **more: Any) -> Json:
    """Return a whole number's schema."""
    return _described({"type": "integer", **more}, description)


def number(description: str = "", **more: Any) -> Json:
    """Return a number's schema."""
    return _described({"type": "number", **more}, description)


def flag(description: str = "") -> Json:
    """Return the schema of true or false."""
    return _described({"type": "boolean"}, description)


def word(words: Iterable[str], description: str = "", **more: Any) -> Json:
    """Return the schema of one of some words."""
    return _described({"type": "string", "enum": list(words), **more}, description)


def items(each: Json, description: str = "", **more: Any) -> Json:
    """Return the schema of a list."""
    return _described({"type": "array", "items": each, **more}, description)


def row(*each: Json, optional: Json | None = None) -> Json:
    """Return the schema of a list with one value after the other, each of its own schema."""
    prefix = [*each] if optional is None else [*each, optional]
    return {
        "type": "array",
        "prefixItems": prefix,
        "minItems": len(each),
        "maxItems": len(prefix),
        "items": False,
    }


def fields(properties: Json, *, optional: Iterable[str] = (), description: str = "") -> Json:
    """Return the schema of an object with these properties and no others."""
    left_out = set(optional)
    required = [name for name in properties if name not in left_out]
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return _described({**schema, "required": required} if required else schema, description)


def all_optional(properties: Json, description: str = "") -> Json:
    """Return the schema of an object with any of these properties and no others."""
    return fields(properties, optional=properties, description=description)


def or_null(schema: Json) -> Json:
    """Return a schema that null fits too."""
    return {"anyOf": [schema, {"type": "null"}]}


def ref(name: str) -> Json:
    """Return what stands for a schema of `components`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _described(schema: Json, description: str) -> Json:
    return {**schema, "description": description} if description else schema
