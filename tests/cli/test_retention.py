from __future__ import annotations

from pathlib import Path

import pytest

from mallard.cli.retention import retention
from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.clock import Clock
from mallard.config import RetentionConfig
from mallard.jobs.expiry import Expiry
from tests.factories import NOON_US
from tests.stored import A, B, Stored, date


def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, settings: str) -> list[str]:
    path = tmp_path / "mallard.toml"
    path.write_text(settings)
    retention(path, str(tmp_path / "data"))
    return capsys.readouterr().out.splitlines()


def test_what_is_set_and_what_the_next_run_removes_is_shown_and_nothing_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = Stored(tmp_path / "data", day=10)
    stored.flush(0, A, B, A)
    stored.flush(1, A)
    assert said(capsys, tmp_path, "") == [
        "Sites keep events for ever.",
        "The next run removes nothing.",
    ]
    days = (Clock().now_us() - NOON_US) // DAY_US
    settings = f'[retention]\ndays = 1\n[retention.sites]\n"{B}" = {days + 9}\n'
    assert said(capsys, tmp_path, settings) == [
        "Sites keep today and the day before.",
        f"{B} keeps today and the {days + 9:,} days before.",
        "The next run removes 3 events of 1 sites:",
        f"  {A}: 3 events, {date(0)} to {date(1)}",
    ]
    assert stored.positions() == [1, 2, 3, 4]
    stored.close()


def test_what_left_and_could_come_back_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = Stored(tmp_path / "data", day=10)
    stored.flush(0, A, B)
    Expiry(RetentionConfig(days=1), stored.store, stored.clock).run()
    Expiry(RetentionConfig(), stored.store, stored.clock).run()
    Expiry(RetentionConfig(days=1), stored.store, stored.clock).run()
    stored.close()
    lines = said(capsys, tmp_path, "")
    assert lines[-4:-1] == [
        f"2024-05-11 12:00 UTC: 2 events of 2 sites left, {date(0)} to {date(0)}.",
        "2024-05-11 12:00 UTC: 2 events came back.",
        f"2024-05-11 12:00 UTC: 2 events of 2 sites left, {date(0)} to {date(0)}.",
    ]
    assert lines[-1] == (
        "2 events left already. Keeping more days brings them back, until 2024-05-12 12:00 UTC, "
        "when the first of them are removed from the disk."
    )
