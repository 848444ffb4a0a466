"""A database without any table yet, and the room over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mallard.accounts.accounts import Accounts
from mallard.clock import Clock
from tests.factories import NOON_US


class StandingClock(Clock):
    """Says the time it was told; it passes when a test says so."""

    def __init__(self) -> None:
        self.us = NOON_US

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.us / 1e6

    def pass_by(self, seconds: float) -> None:
        self.us += int(seconds * 1e6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "mallard.db"
    path.touch(0o600)
    return path


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def accounts(path: Path, clock: StandingClock) -> Iterator[Accounts]:
    accounts = Accounts(path, clock)
    accounts.start()
    yield accounts
    accounts.close()
