"""Segments that somebody removed, emptied, renamed or made unreadable do not go unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mallard.buffer.wal import LogReport, segment_name
from mallard.errors import StorageError
from tests.buffer.logs import Log, make_frame, to_bytes


def take_away(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(("harm", "what"), [(take_away, "is missing"), (empty, "is empty")])
def test_a_last_segment_that_is_gone_is_told_at_the_next_start_and_the_log_goes_on(
    harm: Callable[[Path], None], what: str, tmp_path: Path
) -> None:
    log = Log(tmp_path, segment_bytes=len(to_bytes(make_frame(1))) + 1)
    for position in (1, 2, 3):
        log.append(make_frame(position))
    harm(log.folder / segment_name(3))
    gone = [(segment_name(3), what, 3)]
    assert log.read()[1].gone == gone
    assert log.read(3)[1].gone == [(segment_name(3), what, 4)]  # up to there it is in parts
    frames, report = log.reopen(0)
    assert frames == [make_frame(1), make_frame(2)]
    assert (report.gone, report.missing, report.next_position) == (gone, [], 3)
    assert not report.is_whole
    log.append(make_frame(3, "new"))
    assert log.reopen(0)[1] == LogReport(events=3, next_position=4)


def test_of_several_last_segments_that_are_gone_all_but_the_last_ones_events_are_counted(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path, segment_bytes=1)
    log.append(make_frame(1))
    log.append(make_frame(2, count=7))
    log.append(make_frame(9))
    for name in log.names():
        (log.folder / name).unlink()
    _, report = log.reopen(0)
    assert (report.missing, report.gone) == ([(1, 1), (2, 8)], [(segment_name(9), "is missing", 9)])
    assert report.next_position == 9  # no number is given again that is known to be somebody's
    assert log.missed() == []
    assert log.reopen(8)[1].gone == []  # told once


@pytest.mark.parametrize("step", ["write", "sync"])
def test_a_segment_that_never_held_an_acknowledged_event_is_not_missed(
    step: str, tmp_path: Path
) -> None:
    log = Log(tmp_path)
    log.files.fail = {step}
    with pytest.raises(OSError, match="Input/output"):
        log.append(make_frame(1, "refused"))
    log.files.fail = set()
    log.wal.append(b"", 1, sync=True)  # as a probe does
    assert (log.names(), log.missed()) == ([segment_name(1)], [])
    (log.folder / segment_name(1)).unlink()
    assert log.reopen(0) == ([], LogReport())


def test_segments_that_parts_cover_or_that_are_set_aside_are_not_missed(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=1)
    for position in (1, 2, 3):
        log.append(make_frame(position))
    assert log.missed() == [segment_name(1), segment_name(2), segment_name(3)]
    log.damage(3)
    log.reopen(2)
    log.trim(2, 3)
    assert log.files.names(log.quarantine) == [segment_name(3)]
    assert (log.names(), log.missed()) == ([], [])


def test_a_segment_is_missed_from_its_first_event_on_that_its_name_could_be_noted_with(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path)
    log.append(make_frame(1))
    log.files.remove(log.folder.with_name("wal-names") / segment_name(1))
    log.wal._unnamed = segment_name(1)
    log.files.fail = {"create"}
    log.append(make_frame(2))  # acknowledged all the same
    assert log.missed() == []
    log.files.fail = set()
    log.append(make_frame(3))
    assert log.missed() == [segment_name(1)]
    assert log.read()[1] == LogReport(events=3, next_position=4)


def test_a_last_segment_that_is_trimmed_while_reading_is_not_taken_for_gone(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path)
    log.append(make_frame(1))
    read = log.files.read

    def trim_first(path: Path) -> bytes:
        log.trim(1, 2)
        return read(path)

    log.files.read = trim_first  # type: ignore[method-assign]
    assert log.read() == ([], LogReport())


def swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def test_segments_with_wrong_names_stop_the_start_with_the_right_ones_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path, segment_bytes=len(to_bytes(make_frame(1))) + 1)
    for position in range(1, 6):
        log.append(make_frame(position))
    first, second, third = (log.folder / segment_name(number) for number in (1, 3, 5))
    swap(first, second)
    with pytest.raises(StorageError) as told:
        log.reopen(0)
    for name, position, right in ((first, 3, second), (second, 1, first)):
        assert f"wal/{name.name} begins with position {position}: it is wal/{right.name}, " in (
            told.value.detail
        )
    swap(second, first)
    third.rename(log.folder / segment_name(7))
    with pytest.raises(StorageError, match="begins with position 5"):
        log.reopen(0)
    (log.folder / segment_name(7)).rename(third)
    frames, report = log.reopen(0)
    assert [frame.first_position for frame in frames] == [1, 2, 3, 4, 5]
    assert report == LogReport(events=5, next_position=6)


def test_a_segment_that_cannot_be_read_stops_the_start_and_is_told_with_the_rest(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path, segment_bytes=1)
    for position in (1, 2, 3):
        log.append(make_frame(position))
    path = log.folder / segment_name(3)
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    frames, report = log.read()
    assert [frame.first_position for frame in frames] == [1, 2]
    (text,) = report.unusable
    assert text.startswith(f"wal/{path.name} cannot be read (Is a directory). See to the disk;")
    with pytest.raises(StorageError, match="cannot be read"):
        log.reopen(0)
    path.rmdir()
    path.write_bytes(content)
    assert len(log.reopen(0)[0]) == 3


def test_a_last_segment_of_which_only_the_beginning_of_a_frame_is_left_is_told(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path)
    log.append(make_frame(1))
    path = log.folder / segment_name(1)
    path.write_bytes(path.read_bytes()[:50])
    assert log.read()[1].gone == [(segment_name(1), "holds no whole event", 1)]
