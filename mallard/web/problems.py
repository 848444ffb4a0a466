"""Errors to responses: the one place that knows which status an error has.

One JSON shape for all: error (a word for machines), detail (a sentence), and, where one field of
the input is to blame, field (as the client spelt it) and rule (what would be right).
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable

import orjson

from mallard.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    MallardError,
    MissingInput,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    QueryTimeout,
    QueryTooLarge,
    RateLimited,
    SlowRequest,
    Unauthenticated,
    UnsupportedEncoding,
)

_log = logging.getLogger(__name__)

HeaderList = list[tuple[bytes, bytes]]

STATUS: dict[type, int] = {
    MissingInput: 422,
    PayloadTooLarge: 413,
    UnsupportedEncoding: 415,
    InvalidInput: 400,
    SlowRequest: 408,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    RateLimited: 429,
    QueryTimeout: 504,
    QueryTooLarge: 422,
    Overloaded: 503,
    MallardError: 500,
}


def status_of(error: MallardError) -> int:
    """Return the HTTP status of an error: that of the nearest class that has one."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def describe(error: MallardError) -> dict[str, str]:
    """Return the JSON shape of an error; of our own failures nothing but that there was one."""
    if status_of(error) == 500:
        return {"error": MallardError.code, "detail": "The server failed; its log says more."}
    shape = {"error": error.code, "detail": error.detail}
    if error.field is not None:
        shape["field"] = error.field
    if error.rule is not None:
        shape["rule"] = error.rule
    return shape


def describe_as_plausible(error: MallardError) -> dict[str, str]:
    """Return the shape that clients of Plausible's Stats API read: `error` is the sentence."""
    shape = describe(error)
    return {**shape, "error": shape.pop("detail"), "code": shape["error"]}


def problem(
    error: MallardError, describe: Callable[[MallardError], dict[str, str]] = describe
) -> tuple[int, HeaderList, bytes]:
    """Return status, headers and body of the response to an error; describe: its shape."""
    status = status_of(error)
    body = orjson.dumps(describe(error))
    headers = json_headers(len(body))
    if isinstance(error, RateLimited | Overloaded):
        headers.append((b"retry-after", b"%d" % error.retry_after_seconds))
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 408:
        # What is still to come of the body may never come. Of one that is too large the rest is
        # read and thrown away, within the limits of `connection`: who is cut off while he sends
        # mostly sees that, and not the answer.
        headers.append((b"connection", b"close"))
    return status, headers, body


def log_failure(error: Exception) -> None:
    """Log our own failure: its type and the places in the code, not its text.

    The text may quote the input, and the log gets no address, User-Agent or query string.
    """
    places = "".join(traceback.format_tb(error.__traceback__))
    _log.error("a request failed with %s at\n%s", type(error).__name__, places)


def json_headers(length: int) -> HeaderList:
    """Return the headers of a JSON body that nobody may keep or take for something else."""
    return [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % length),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
