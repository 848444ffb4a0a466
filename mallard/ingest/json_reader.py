"""JSON text to values, more strictly than the parser alone.

Invariants: what comes out has no key twice, no number that is not finite, no lone surrogate, and
is nested at most `DEPTH_MAX` deep. A key that is there twice means different things to different
readers, so it is refused rather than one of the two chosen.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import orjson

from mallard.errors import InvalidInput

DEPTH_MAX = 16  # an event is one level, its props a second; nobody reads the sixteenth


def read_json(text: bytes) -> Any:
    """Return the value of a JSON text in UTF-8. Raises InvalidInput, naming the field if it can."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        _explain(text, str(error))
    # The parser keeps the last of two equal keys without a word, and asking Python's own for
    # pairs takes ten times as long. A text that is written again just so lost none: most clients
    # send the shortest form.
    if text.count(b"{") + text.count(b"[") <= DEPTH_MAX and orjson.dumps(value) == text:
        return value
    # Else: each string has two quotes in the text, and as long as there are as many as the value's
    # strings need, no key was lost.
    escaped = b"\\" in text
    if text.count(b'"') != _quotes(value, escaped, 0) or (escaped and b"\\u0022" in text):
        json.loads(text, object_pairs_hook=_refuse_repeated, parse_int=float)
    return value


def holds_nul(value: Any) -> bool:
    """Tell whether any text or key in a JSON value holds U+0000."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or holds_nul(inner) for key, inner in value.items())
    return isinstance(value, list) and any(map(holds_nul, value))


def _quotes(value: Any, escaped: bool, depth: int) -> int:
    """Return how many quotes the text of a value has, if none is written as an escape."""
    kind = type(value)
    if kind is str:
        return 2 + (value.count('"') if escaped else 0)
    if kind is not dict and kind is not list:
        return 0
    if depth == DEPTH_MAX:
        raise InvalidInput("The JSON is nested too deep.", rule=f"at most {DEPTH_MAX} levels")
    count = 0
    if kind is dict:
        count = 2 * len(value)
        if escaped:
            count += sum(key.count('"') for key in value)
        value = value.values()
    for inner in value:
        kind = type(inner)
        if kind is str:  # as above; most are, and a call costs more than the count
            count += 2 + inner.count('"') if escaped else 2
        elif kind is dict or kind is list:
            count += _quotes(inner, escaped, depth + 1)
    return count


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            shown = key[:64]
            raise InvalidInput(
                f"The key {shown!a} is there twice.", field=shown, rule="one of each"
            )
        seen.add(key)


def _explain(text: bytes, reason: str) -> NoReturn:
    """Refuse what is no JSON; name the field where a more lenient parser finds the mistake."""
    rule = "JSON (RFC 8259) in UTF-8"
    try:
        value = json.loads(text.decode(), parse_int=float)
        for key, inner in value.items() if isinstance(value, dict) else ():
            if problem := _problem(inner):
                name = key.encode(errors="replace").decode()[:64]
                raise InvalidInput(f"{name} holds {problem}.", field=name, rule=rule)
    except (ValueError, RecursionError):
        pass
    raise InvalidInput(f"The body is not JSON: {reason}.", rule=rule)


def _problem(value: Any) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else "a number that is not finite"
    if isinstance(value, str):
        return None if value.isascii() or not _lone(value) else "half of a surrogate pair"
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return next((problem for inner in value if (problem := _problem(inner))), None)
    return None


def _lone(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
