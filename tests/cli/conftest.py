"""A data folder as a server leaves it: one event in Parquet, one still in the log."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from mallard.buffer.buffer import Buffer
from mallard.clock import Clock
from mallard.config import BufferConfig
from mallard.files import Files
from mallard.jobs.flush import Flusher
from mallard.store.local import LocalStore
from mallard.telemetry import Telemetry
from tests.factories import make_event


@pytest.fixture(autouse=True)
def asked_to_be_nice(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What was asked of `os.nice`, which would last as long as the process that runs the tests."""
    asked: list[int] = []
    monkeypatch.setattr(os, "nice", asked.append, raising=False)
    return asked


@pytest.fixture(autouse=True)
def asked_to_be_idle(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The classes that were asked of Linux's scheduler, which would last as long too."""
    asked: list[int] = []

    def ask(process: int, policy: int, _: object) -> None:
        assert process == 0  # this one
        asked.append(policy)

    monkeypatch.setattr(os, "sched_setscheduler", ask, raising=False)
    return asked


@pytest.fixture
def data(tmp_path: Path) -> Path:
    config, files, clock, telemetry = BufferConfig(), Files(), Clock(), Telemetry()
    folder = tmp_path / "data"
    folder.mkdir()
    store = LocalStore(folder, files, clock)
    buffer = Buffer(config, folder, files, clock, telemetry, store.node)
    flusher = Flusher(config, buffer, store, clock, telemetry)
    buffer.start(0, 0, flusher.notice_commit)
    asyncio.run(buffer.append([make_event(event_name="in parquet", props='{"plan": "pro"}')]))
    flusher.flush()
    asyncio.run(buffer.append([make_event(event_name="in the log")]))
    buffer.close()
    store.close()
    return folder
