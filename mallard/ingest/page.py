"""An URL as sent, taken apart into what is stored of a page.

Invariants: nothing here raises, whatever the text. What comes out holds no control character, NUL
or lone surrogate, and is no longer than `URL_LENGTH_MAX`. Neither a query string nor a user name
or password of an URL is ever in what is to be stored: that is where click ids, mail addresses
and reset tokens travel.

Written by hand because the path of every event goes through it: `urllib.parse` is several times
slower and raises on text that real trackers send.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mallard.errors import InvalidInput

URL_LENGTH_MAX = 2048  # 003's limit of `u` and `r`, in characters
HOST_LENGTH_MAX = 253  # RFC 1035, section 2.3.4, without the root's dot
NO_HOST = "(none)"  # Plausible's word for the host of an URL that has none

# C0 and C1 controls and DEL; line and paragraph separator; surrogates, which no UTF-8 can hold.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{0,31}):(?!\d)")
_AUTHORITY_END = re.compile(r"[/?#\\]")
_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
# None of these names a page; each carries a document or a program in itself.
_REFUSED_SCHEMES = frozenset({"data", "javascript", "vbscript", "blob"})


class Page(NamedTuple):
    """One URL.

    url: scheme, host and path, as a browser would write them, without user, port, query string
    and (but in hash mode) fragment. hostname: lower case, without "www." and port, in whatever
    script it was sent; "(none)" without one. pathname: decoded, never empty. query: the raw query
    string, for `campaign.py`; it is not stored.
    """

    url: str
    hostname: str
    pathname: str
    query: str


class Parts(NamedTuple):
    """An URL cut at its seams; nothing decoded. scheme and host are lower case, "" if absent."""

    scheme: str
    host: str
    path: str
    query: str
    fragment: str


def split_page(text: str, hash_mode: bool = False) -> Page:
    """Return what an URL says of a page.

    hash_mode: the fragment names the page, as in "/#/cart", and stays in the path; what follows
    a "?" in it joins the query.
    """
    scheme, host, path, query, fragment = split(text)
    path = path or "/"
    if hash_mode and fragment:
        route, _, tail = fragment.partition("?")
        path = f"{path}#{route}"
        query = f"{query}&{tail}" if tail else query
    path = clean(path[:URL_LENGTH_MAX])[:URL_LENGTH_MAX]
    pathname = decode(path).rstrip() or "/"
    origin = f"{scheme}://{host}" if scheme and host else (host and f"//{host}")
    url = f"{origin}{path}"[:URL_LENGTH_MAX]
    return Page(url, without_www(host) or NO_HOST, pathname, query)


def split(text: str) -> Parts:
    """Cut an URL, a path, or anything else, at the seams of RFC 3986; never fails.

    Where there is a scheme but no "//", as in "mailto:someone", what follows is nobody's page and
    is left out.
    """
    text = text[: 2 * URL_LENGTH_MAX].strip()
    scheme = ""
    match = _SCHEME.match(text)
    if match:
        scheme = match[1].lower()
        text = text[match.end() :]
        if not text.startswith("//"):
            return Parts(scheme, "", "", "", "")
    host = ""
    if text.startswith("//"):
        end = _AUTHORITY_END.search(text, 2)
        cut = end.start() if end else len(text)
        host, text = _host(text[2:cut]), text[cut:]
    text, _, fragment = text.partition("#")
    path, _, query = text.partition("?")
    if path and path[0] != "/":
        path = f"/{path}"
    return Parts(scheme, host, path, query, fragment)


def refuse_scheme(url: str, field: str) -> None:
    """Raise InvalidInput if an URL carries a document or a program in place of naming a page."""
    match = _SCHEME.match(url.lstrip())
    if match and match[1].lower() in _REFUSED_SCHEMES:
        raise InvalidInput(
            f"{field} has a scheme that names no page: {match[1].lower()}:",
            field=field,
            rule="the URL of a page, such as https://example.com/pricing",
        )


def without_www(host: str) -> str:
    """Return a host without one leading "www.", which names the same site."""
    return host[4:] if host.startswith("www.") and len(host) > 4 else host


def decode(text: str) -> str:
    """Percent-decode UTF-8 once; bytes that are not UTF-8, and control characters, stay encoded."""
    if "%" not in text:
        return text
    return clean(_ESCAPES.sub(_decode_run, text))


def clean(text: str) -> str:
    """Return text with control characters percent-encoded and a lone surrogate as U+FFFD."""
    return text if text.isprintable() else _UNFIT.sub(_encode_one, text)


def _host(authority: str) -> str:
    host = authority.rpartition("@")[2]
    end = host.find("]") + 1 if host.startswith("[") else host.find(":")  # IPv6, or a port
    if end > 0:
        host = host[:end]
    return clean(host.strip().rstrip(".").lower())[:HOST_LENGTH_MAX]


def _decode_run(match: re.Match[str]) -> str:
    run = bytes.fromhex(match[0].replace("%", ""))
    pieces: list[str] = []
    while run:
        try:
            pieces.append(run.decode())
            break
        except UnicodeDecodeError as error:
            pieces.append(run[: error.start].decode())
            pieces.extend(f"%{byte:02X}" for byte in run[error.start : error.end])
            run = run[error.end :]
    return "".join(pieces)


def _encode_one(match: re.Match[str]) -> str:
    character = match[0]
    if "\ud800" <= character <= "\udfff":
        return "\ufffd"
    return "".join(f"%{byte:02X}" for byte in character.encode())
