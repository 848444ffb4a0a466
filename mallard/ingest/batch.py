"""A batch's events read at once, where they are as nearly all clients send them.

An object of a known kind takes half the time of a dictionary to read, to look into and to forget.
Whatever else a batch holds (a number that is no integer, a name that nobody knows, a key that is
there twice) is left to `payload`, which knows what is wrong with it, if anything is.
Invariant: of what comes out here no key was there twice, and no value is lost.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

from msgspec import UNSET, Meta, MsgspecError, Raw, Struct, UnsetType, defstruct
from msgspec.json import Decoder, Encoder
from msgspec.structs import astuple, fields

from mallard.errors import InvalidInput
from mallard.event import INT32_MAX
from mallard.ingest.json_reader import DEPTH_MAX, read_json
from mallard.ingest.payload import (
    BATCH_EVENTS_MAX,
    ENGAGED_MS_MAX,
    LONG_NAMES,
    SCROLL_DEPTH_MAX,
    Document,
    read_more,
)

# Around the value of a field are the batch and the event.
_LEVELS_MAX = DEPTH_MAX - 2


class Sent(Struct, gc=False, rename={"revenue": "$"}):
    """An event as it was sent, by its short names; UNSET where it says nothing, None for a null.

    Texts may be anything yet; numbers are within their bounds, without which those of thousands of
    digits take a hundred times as long to read. What is Raw is JSON that nobody has looked into.
    """

    d: str
    n: str
    u: str
    r: str | UnsetType | None = UNSET
    w: Annotated[int, Meta(ge=0, le=INT32_MAX)] | UnsetType | None = UNSET
    e: Annotated[int, Meta(ge=0, le=ENGAGED_MS_MAX)] | UnsetType | None = UNSET
    sd: Annotated[int, Meta(ge=0, le=SCROLL_DEPTH_MAX)] | UnsetType | None = UNSET
    p: Raw | UnsetType = UNSET
    ra: Raw | UnsetType = UNSET
    rc: Raw | UnsetType = UNSET
    revenue: Raw | UnsetType = UNSET
    i: Raw | UnsetType = UNSET
    h: Raw | UnsetType = UNSET
    v: Raw | UnsetType = UNSET


_NAMES = Sent.__struct_encode_fields__
_FIRST_OF_MORE = _NAMES.index("w") + 1


def document_of(sent: Sent) -> Document:
    """Return an event as `payload.read_event` takes it. Raises InvalidInput."""
    return _said(_NAMES, astuple(sent))


def more_of(sent: Sent) -> tuple[Any, ...]:
    """Return an event's fields of a `RawEvent` from props on. Raises InvalidInput."""
    return read_more(_said(_NAMES[_FIRST_OF_MORE:], astuple(sent)[_FIRST_OF_MORE:]))


def _long() -> type[Struct]:
    """Return what `Sent` is by long names, of which it has the first of those for a field."""
    names = {short: long for long, short in reversed(LONG_NAMES.items())}
    names["revenue"] = names.pop("$")
    kept = [(field.name, field.type, field.default) for field in fields(Sent)]
    return defstruct("SentLong", kept, gc=False, rename=names)


_DECODERS = (Decoder(list[Sent]), Decoder(list[_long()]))  # type: ignore[misc]
_ENCODER = Encoder()


def read_sent(body: bytes) -> list[Sent] | None:
    """Return the events of a JSON array of 1 to `BATCH_EVENTS_MAX`, None for anything else."""
    for decoder in _DECODERS:
        try:
            events = cast(list[Sent], decoder.decode(body))
        except (MsgspecError, UnicodeDecodeError, RecursionError):
            continue  # mostly for the first event's first name
        if 1 <= len(events) <= BATCH_EVENTS_MAX and _is_whole(_ENCODER.encode(events), body):
            return events
    return None


def _is_whole(again: bytes, text: bytes) -> bool:
    """Tell whether nothing that a text says is missing from what was read, written again.

    Nothing is longer when it is written again: it has no room around it, and the fewest escapes.
    """
    return len(again) == len(text) or _quotes(again) == _quotes(text)


def _quotes(text: bytes) -> int:
    r"""Return how many quotes begin or end a string, less those that end one behind a backslash.

    These end the same strings in both texts, unless one was written as \u005c: then there are more
    in the text, as there are if a key is missing.
    """
    return text.count(b'"') - text.count(b'\\"')


def _said(names: tuple[str, ...], values: tuple[Any, ...]) -> Document:
    """Return what is not UNSET by its name, all of it looked into."""
    return {
        name: _value(value) if type(value) is Raw else value
        for name, value in zip(names, values, strict=True)
        if value is not UNSET
    }


def _value(raw: Raw) -> Any:
    text = bytes(raw)
    if text.count(b"{") + text.count(b"[") > _LEVELS_MAX:
        raise InvalidInput("There may be too many levels.")
    return read_json(text)
