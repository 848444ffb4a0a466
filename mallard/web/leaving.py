"""Work for someone who waits for its answer: when they have gone, it is stopped.

A client that has ended its side of the connection counts as gone: nothing tells it from one that
has closed both, until something is sent to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from mallard.errors import InvalidInput

T = TypeVar("T")


def gone_of(request: Request) -> asyncio.Event | None:
    """Return what is set when the client has gone; None where `connection.Connection` is not."""
    found: asyncio.Event | None = request.scope.get("state", {}).get("gone")
    return found


async def while_there(gone: asyncio.Event | None, work: Coroutine[Any, Any, T]) -> T:
    """Return what work returns; cancel it and raise InvalidInput when who asked has gone."""
    if gone is None:
        return await work
    asked = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(gone.wait())
    try:
        await asyncio.wait((asked, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        has_gone = asked.cancel()  # False when it is done
    if has_gone:
        raise InvalidInput("The connection ended before the answer was there.")
    return asked.result()
