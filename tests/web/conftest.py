"""A running application for the tests of the doors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from mallard.server import Server
from mallard.web.app import Application
from tests.web.running import Running, started, talking_to


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Application]]:
    """One server with its default settings for all tests of a file; it starts in half a second."""
    with started(tmp_path_factory.mktemp("mallard")) as pair:
        yield pair


@pytest.fixture
async def mallard(shared: tuple[Server, Application]) -> AsyncIterator[Running]:
    """A client of the shared server, which sees the events of its own test alone."""
    async with talking_to(*shared) as client:
        yield client
