"""Errors to responses."""

from __future__ import annotations

import orjson
import pytest

from mallard.errors import (
    ConfigError,
    CorruptData,
    Forbidden,
    InvalidInput,
    MallardError,
    MissingInput,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    QueryTimeout,
    RateLimited,
    SlowRequest,
    StorageError,
    Unauthenticated,
    UnsupportedEncoding,
)
from mallard.web.problems import problem


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInput("x"), 400),
        (MissingInput("x"), 422),
        (PayloadTooLarge("x"), 413),
        (UnsupportedEncoding("x"), 415),
        (SlowRequest("x"), 408),
        (Unauthenticated("x"), 401),
        (Forbidden("x"), 403),
        (NotFound("x"), 404),
        (RateLimited("x", retry_after_seconds=2), 429),
        (Overloaded("x", retry_after_seconds=2), 503),
        (QueryTimeout("x"), 504),
        (StorageError("x"), 500),
        (CorruptData("x"), 500),
        (ConfigError("x"), 500),
        (MallardError("x"), 500),
    ],
)
def test_each_error_has_its_status_and_the_one_shape(error: MallardError, status: int) -> None:
    found, headers, body = problem(error)
    assert found == status
    shape = orjson.loads(body)
    if status == 500:
        assert shape["error"] == "internal_error"
        assert shape["detail"] != "x"
    else:
        assert shape == {"error": error.code, "detail": "x"}
    named = dict(headers)
    assert named[b"content-length"] == str(len(body)).encode()
    assert (named.get(b"retry-after") == b"2") == (status in (429, 503))


def test_a_field_and_its_rule_are_named() -> None:
    _, _, body = problem(InvalidInput("n is empty.", field="n", rule="a name"))
    assert orjson.loads(body) == {
        "error": "invalid_input",
        "detail": "n is empty.",
        "field": "n",
        "rule": "a name",
    }
