"""The parameters of a request's query string; what they say is read elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request

from mallard.errors import InvalidInput
from mallard.query.named.parameters import check_names


def sent(request: Request, known: Sequence[str]) -> dict[str, str]:
    """Return the parameters; raises InvalidInput for one that is unknown, or is there twice."""
    given = request.query_params
    check_names(given, known)
    for name in given:
        if len(given.getlist(name)) > 1:
            raise InvalidInput(f"{name} is there twice.", field=name, rule="once")
    return dict(given)
