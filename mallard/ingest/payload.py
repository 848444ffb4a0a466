"""An event as clients send it, read and checked: JSON or a query string to `RawEvent`.

Invariants: what comes out of here can be stored. Every text is valid Unicode without NUL and
within its limit, which counts characters; every number fits its column. A refusal names the field
as the client spelt it and the rule that it breaks. Content-Type is not looked at: browsers send
JSON as text/plain to avoid a CORS preflight, and curl as a form.

Choices where 003 is silent. A JSON null is an absent field. Of two spellings of a field the
shorter wins. An `ra` without `rc` is kept, with no currency; an `rc` alone says nothing and is left
out. `sd` beyond 0 to 100 (a page pulled past its edge) is brought to the edge; `e` beyond a day (a
laptop that slept) is left out. Control characters in `n` are refused.
Source: founding document 003, and for the long names, `$`, `i`, `h`, `sd`, `e`, `v` Plausible's
events API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple, NoReturn
from urllib.parse import parse_qsl

import orjson

from mallard.errors import InvalidInput, MissingInput
from mallard.event import INT32_MAX, REVENUE_MAX
from mallard.ingest.json_reader import holds_nul, read_json
from mallard.ingest.money import read_amount, read_currency
from mallard.ingest.page import refuse_scheme
from mallard.site import read_site_id

NAME_LENGTH_MAX = 256
URL_LENGTH_MAX = 2048
PROPS_LENGTH_MAX = 4096
SITES_PER_EVENT_MAX = 16  # each is one stored event; a page reports to two or three
BATCH_EVENTS_MAX = 1000  # stored events: an event for three sites counts as three
VERSION_LENGTH_MAX = 32
ENGAGED_MS_MAX = 86_400_000  # no visit is longer than its UTC day
SCROLL_DEPTH_MAX = 100  # percent
QUERY_FIELDS_MAX = 100

# Long name to short name, in the order in which they are looked for.
LONG_NAMES = {
    "domain": "d",
    "name": "n",
    "url": "u",
    "referrer": "r",
    "props": "p",
    "m": "p",
    "meta": "p",
    "revenue": "$",
    "interactive": "i",
    "hashMode": "h",
    "screen_width": "w",
}
_is_short = frozenset(LONG_NAMES).isdisjoint
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# The shortest way an URL starts that needs no look at its scheme.
_PLAIN_SCHEMES = ("https://", "http://", "/")
_BATCH_RULE = f"an array of 1 to {BATCH_EVENTS_MAX} events"
_PIXEL_FIELDS = frozenset("dnurw")

Document = dict[str, Any]  # an event as it was sent
_Names = Mapping[str, str]
_AS_SHORT: _Names = {}


class RawEvent(NamedTuple):
    """One event as the client tells it, checked.

    sites: each one's own, without duplicates and without a leading "www.". props: JSON text of an
    object. revenue_amount: two decimals. revenue_currency: three upper-case letters, or None where
    the client named none. scroll_depth: percent. A NamedTuple, as `Event` is: a frozen dataclass
    takes four times as long to make.
    """

    sites: tuple[str, ...]
    name: str
    url: str
    referrer: str | None = None
    screen_width: int | None = None
    props: str | None = None
    revenue_amount: Decimal | None = None
    revenue_currency: str | None = None
    interactive: bool = True
    hash_mode: bool = False
    scroll_depth: int | None = None
    engaged_ms: int | None = None
    script_version: str | None = None


_make_raw = RawEvent._make
_sites_of = attrgetter("sites")


def from_json(body: bytes) -> RawEvent:
    """Read one event: a JSON object in UTF-8. Raises MissingInput or InvalidInput."""
    document = read_json(body)
    if not isinstance(document, dict):
        raise InvalidInput("The body is JSON, but no object.", rule='an object such as {"d": ...}')
    return read_event(document)


def batch_from_json(body: bytes) -> list[RawEvent]:
    """Read a JSON array of 1 to `BATCH_EVENTS_MAX` events; a refusal says which one, from 0.

    Raises MissingInput or InvalidInput.
    """
    documents = read_json(body)
    if not isinstance(documents, list) or not 1 <= len(documents) <= BATCH_EVENTS_MAX:
        raise InvalidInput("The body is not a batch.", rule=_BATCH_RULE)
    raws: list[RawEvent] = []
    try:
        for document in documents:
            if type(document) is not dict:
                raise InvalidInput("An event is no object.", rule='an object such as {"d": ...}')
            raws.append(read_event(document))
    except InvalidInput as error:
        index = len(raws)
        field = f"[{index}].{error.field}" if error.field else f"[{index}]"
        detail = f"Event {index}, counted from 0: {error.detail}"
        raise type(error)(detail, field=field, rule=error.rule) from None
    if sum(map(len, map(_sites_of, raws))) > BATCH_EVENTS_MAX:
        raise InvalidInput(
            "With one event for each of its sites, the batch is too large.", rule=_BATCH_RULE
        )
    return raws


def from_query(query_string: bytes) -> RawEvent:
    """Read one event from the pixel's query string: `d`, `n`, `u`, `r` and `w`, as 003 prints.

    Props and revenue are left out, as 003 says: an address in a mail is in everybody's hands, and
    money that anybody can make up is worth nothing. The first of a repeated field counts. Raises
    MissingInput when `d` or `u` is absent or empty, else InvalidInput.
    """
    try:
        pairs = parse_qsl(
            query_string.decode("ascii", "replace"),
            keep_blank_values=True,
            max_num_fields=QUERY_FIELDS_MAX,
            errors="replace",
        )
    except ValueError:
        raise InvalidInput(
            "The query string has too many fields.", rule=f"at most {QUERY_FIELDS_MAX}"
        ) from None
    fields: Document = {}
    for name, value in pairs:
        if name in _PIXEL_FIELDS and name not in fields:
            fields[name] = value
    for name in ("d", "u"):
        if not fields.get(name, "").strip():
            raise MissingInput(f"{name} is missing.", field=name, rule="a text")
    width = fields.pop("w", "")
    if width:
        # Anything else stays a text, which `_width` refuses by name.
        whole = len(width) <= 10 and width.isascii() and width.isdigit()
        fields["w"] = int(width) if whole else width
    fields["n"] = fields.get("n") or "pageview"
    return read_event(fields)


def read_event(document: Document) -> RawEvent:
    """Read one event as it was sent. Raises MissingInput or InvalidInput."""
    get = document.get
    domain, name, url, referrer, width = get("d"), get("n"), get("u"), get("r"), get("w")
    fields = 3
    if referrer is not None:
        fields += 1
    if width is not None:
        fields += 1
    # The short way: in nearly all events nothing of these five is a mistake.
    if (
        domain is not None
        and type(name) is str
        and len(name) <= NAME_LENGTH_MAX
        and name.isprintable()  # and so holds neither NUL nor a control character
        and type(url) is str
        and len(url) <= URL_LENGTH_MAX
        and url.startswith(_PLAIN_SCHEMES)
        and "\0" not in url
        and (width is None or (type(width) is int and 0 <= width <= INT32_MAX))
        and (len(document) == fields or _is_short(document))
        and (name := name.strip())
    ):
        sites = _sites(domain, _AS_SHORT)
        url = url.strip()
        if referrer is not None:
            referrer = _referrer(referrer, _AS_SHORT)
        if len(document) == fields:  # as in most of them
            return _make_raw(
                (sites, name, url, referrer, width, None, None, None, True, False, None, None, None)
            )
        # By position, and not by calling the class: its own way of doing so takes twice as long.
        return _make_raw((sites, name, url, referrer, width, *read_more(document)))
    return _read_any(document)


def _read_any(document: Document) -> RawEvent:
    """Do what `read_event` does, for any event, and say what is wrong with one that is refused."""
    names = _AS_SHORT
    if not _is_short(document):
        document, names = _shortened(document)
    get = document.get
    domain, name, url = get("d"), get("n"), get("u")
    if domain is None or name is None or url is None:
        _refuse_missing(document, names)
    return _make_raw(
        (
            _sites(domain, names),
            _name(name, names),
            _url(url, names),
            None if (referrer := get("r")) is None else _referrer(referrer, names),
            None if (width := get("w")) is None else _width(width, names),
            *read_more(document, names),
        )
    )


def read_more(document: Document, names: _Names = _AS_SHORT) -> tuple[Any, ...]:
    """Return the fields of a `RawEvent` from props on; raises InvalidInput.

    names: what the client wrote for a short name where that is not the same.
    """
    get = document.get
    props, amount = get("p"), get("ra")
    currency: str | None = None
    if amount is not None:
        amount = _amount(amount, names)
        if (currency := get("rc")) is not None:
            currency = _currency(currency, names)
    elif (revenue := get("$")) is not None:
        amount, currency = _plausible_revenue(revenue)
    elif get("rc") is not None:
        _currency(get("rc"), names)
    return (
        None if props is None else _props(props, names),
        amount,
        currency,
        True if (interactive := get("i")) is None else _flag(interactive, "i", names),
        False if (hash_mode := get("h")) is None else _flag(hash_mode, "h", names),
        None if (depth := get("sd")) is None else _scroll_depth(depth, names),
        None if (engaged := get("e")) is None else _engaged_ms(engaged, names),
        None if (version := get("v")) is None else _version(version, names),
    )


def _shortened(document: Document) -> tuple[Document, dict[str, str]]:
    """Return an event with its short names, and for each of them what the client wrote."""
    short = dict(document)
    names: dict[str, str] = {}
    for long_name, name in LONG_NAMES.items():
        if document.get(long_name) is not None and short.get(name) is None:
            short[name] = document[long_name]
            names[name] = long_name
    return short, names


def _refuse_missing(document: Document, names: _Names) -> NoReturn:
    field = next(field for field in ("d", "n", "u") if document.get(field) is None)
    raise MissingInput(f"{field} is missing.", field=field, rule="a text that is not empty")


def _refuse(field: str, names: _Names, problem: str, rule: str) -> NoReturn:
    name = names.get(field, field)
    raise InvalidInput(f"{name} {problem}.", field=name, rule=rule)


def _text(value: object, field: str, names: _Names, length_max: int) -> str:
    """Return a text that is not empty, without NUL, within its length; a trimmed one."""
    if type(value) is not str:
        _refuse(field, names, "is not a text", "a JSON string")
    if len(value) > length_max:
        _refuse(field, names, "is too long", f"at most {length_max} characters")
    if "\0" in value:
        _refuse(field, names, "holds a NUL character", "text without U+0000")
    return value.strip()


def _sites(value: object, names: _Names) -> tuple[str, ...]:
    if type(value) is not str:
        _refuse("d", names, "is not a text", "a JSON string")
    try:
        return split_sites(value)
    except InvalidInput as error:
        _refuse("d", names, error.detail, error.rule or "")


@lru_cache(maxsize=1024)  # a server has few sites, and a stranger's cost at most 4 MB
def split_sites(text: str) -> tuple[str, ...]:
    """Return the sites that a comma list names, each checked; once each, without "www.".

    Raises InvalidInput whose detail goes on from the field's name.
    """
    pieces = text.split(",", SITES_PER_EVENT_MAX)
    if len(pieces) > SITES_PER_EVENT_MAX:
        raise InvalidInput("names too many sites", rule=f"at most {SITES_PER_EVENT_MAX} sites")
    if len(pieces) > 1:
        pieces = [piece.strip(" ") for piece in pieces]
    return tuple(dict.fromkeys(map(read_site_id, pieces)))


def _name(value: object, names: _Names) -> str:
    name = _text(value, "n", names, NAME_LENGTH_MAX)
    if not name:
        _refuse("n", names, "is empty", "an event's name, such as pageview")
    if not name.isprintable() and _CONTROL.search(name):
        _refuse("n", names, "holds a control character", "text in one line")
    return name


def _url(value: object, names: _Names) -> str:
    url = _text(value, "u", names, URL_LENGTH_MAX)
    if not url:
        _refuse("u", names, "is empty", "the URL of the page")
    if not url.startswith(_PLAIN_SCHEMES):
        refuse_scheme(url, names.get("u", "u"))
    return url


def _referrer(value: object, names: _Names) -> str | None:
    return _text(value, "r", names, URL_LENGTH_MAX) or None


def _whole(value: object) -> int | None:
    """Return a JSON number as an integer, if it is one: 1920 and 1920.0, but not true."""
    if type(value) is int:
        return value
    return int(value) if type(value) is float and value.is_integer() else None


def _width(value: object, names: _Names) -> int:
    width = _whole(value)
    if width is None or not 0 <= width <= INT32_MAX:
        _refuse("w", names, "is no screen width", f"a whole number from 0 to {INT32_MAX}")
    return width


def _scroll_depth(value: object, names: _Names) -> int:
    if type(value) is int and 0 <= value <= SCROLL_DEPTH_MAX:  # as trackers send it
        return value
    if type(value) is not int and type(value) is not float:
        _refuse("sd", names, "is not a number", "a percentage from 0 to 100")
    return round(min(max(value, 0), SCROLL_DEPTH_MAX))


def _engaged_ms(value: object, names: _Names) -> int | None:
    if type(value) is int and 0 <= value <= ENGAGED_MS_MAX:  # as trackers send it
        return value
    if type(value) is not int and type(value) is not float:
        _refuse("e", names, "is not a number", "milliseconds")
    return round(value) if 0 <= value <= ENGAGED_MS_MAX else None


def _flag(value: object, field: str, names: _Names) -> bool:
    if value is True or value is False:
        return value
    if type(value) is int and value in (0, 1):
        return value == 1
    _refuse(field, names, "is neither true nor false", "true, false, 1 or 0")


def _version(value: object, names: _Names) -> str:
    if type(value) is int or type(value) is float:
        value = str(value)
    return _text(value, "v", names, VERSION_LENGTH_MAX)


def _props(value: object, names: _Names) -> str | None:
    """Return props as canonical JSON text; None for an object with nothing in it."""
    rule = 'a JSON object such as {"plan": "pro"}, or the text of one'
    sent = value
    if type(value) is str:
        _limit_props(value, names)
        try:
            value = read_json(value.encode())
        except InvalidInput as error:
            _refuse("p", names, f"is no JSON object: {error.detail.rstrip('.')}", rule)
    if type(value) is not dict:
        _refuse("p", names, "is not a JSON object", rule)
    text = orjson.dumps(value).decode()
    if value is sent:
        _limit_props(text, names)
    # A backslash followed by "u0000" looks the same; only then is it worth a closer look.
    if "\\u0000" in text and holds_nul(value):
        _refuse("p", names, "holds a NUL character", "text without U+0000")
    return text if value else None


def _limit_props(text: str, names: _Names) -> None:
    if len(text) > PROPS_LENGTH_MAX:
        _refuse("p", names, "is too long", f"at most {PROPS_LENGTH_MAX} characters of JSON")


def _amount(value: object, names: _Names) -> Decimal:
    amount = read_amount(value)
    if amount is None:
        rule = f"a number from -{REVENUE_MAX} to {REVENUE_MAX}"
        _refuse("ra", names, "is no amount of money that can be kept", rule)
    return amount


def _currency(value: object, names: _Names) -> str:
    currency = read_currency(value)
    if currency is None:
        _refuse("rc", names, "is no currency", "three letters of ISO 4217, such as USD")
    return currency


def _plausible_revenue(value: object) -> tuple[Decimal | None, str | None]:
    """Read `$`; as Plausible does, keep the event and drop a revenue that cannot be read."""
    if type(value) is str:
        try:
            value = read_json(value.encode())
        except InvalidInput:
            return None, None
    if type(value) is not dict:
        return None, None
    amount, currency = read_amount(value.get("amount")), read_currency(value.get("currency"))
    return (None, None) if amount is None or currency is None else (amount, currency)
