from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mallard.buffer.wal import ROOM_BYTES, LogReport, segment_name
from mallard.files import Files
from tests.buffer.logs import Failing, Log, make_frame, to_bytes


def test_what_was_appended_is_read_in_order_and_nothing_is_wrong(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(make_frame(1, count=2), make_frame(3))
    log.append(make_frame(4))
    frames, report = log.read()
    assert frames == [make_frame(1, count=2), make_frame(3), make_frame(4)]
    assert report == LogReport(events=4, next_position=5)


def test_what_the_watermark_covers_is_not_read(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(make_frame(1), make_frame(2), make_frame(3))
    assert log.read(2) == ([make_frame(3)], LogReport(events=1, next_position=4))
    assert log.read(3) == ([], LogReport(next_position=4))


def test_a_segment_past_its_size_is_followed_by_another_named_after_its_first_position(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path, segment_bytes=len(to_bytes(make_frame(1))) + 1)
    for position in range(1, 6):
        log.append(make_frame(position))
    assert log.names() == [segment_name(1), segment_name(3), segment_name(5)]
    assert log.wal.segment_count == 3
    assert [frame.first_position for frame in log.read()[0]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("step", ["write", "sync"])
def test_frames_whose_write_or_sync_failed_are_never_read_once_their_numbers_are_given_again(
    step: str, tmp_path: Path
) -> None:
    log = Log(tmp_path)
    log.append(make_frame(1))
    log.files.fail = {step}
    with pytest.raises(OSError, match="Input/output"):
        log.append(make_frame(2, "refused", count=3), make_frame(5, "refused"))
    log.files.fail = set()
    log.append(make_frame(2, "taken"))
    frames, report = log.read()
    assert frames == [make_frame(1), make_frame(2, "taken")]
    assert (report.damaged, report.missing) == ([], [])
    assert log.names() == [segment_name(1), segment_name(2)]


@pytest.mark.parametrize("step", ["create", "sync_folder", "write", "sync", "close"])
def test_after_a_failure_in_a_new_segment_the_next_append_takes_its_name(
    step: str, tmp_path: Path
) -> None:
    log = Log(tmp_path, segment_bytes=1)
    log.append(make_frame(1))
    log.files.fail = {step}
    with pytest.raises(OSError, match="Input/output"):
        log.append(make_frame(2, "refused"))
    log.files.fail = set()
    log.append(make_frame(2, "taken"))
    log.append(make_frame(3))
    assert log.read()[0] == [make_frame(1), make_frame(2, "taken"), make_frame(3)]
    assert log.names() == [segment_name(1), segment_name(2), segment_name(3)]
    log.trim(3, 4)
    assert log.names() == []


def test_nothing_is_written_to_a_segment_whose_name_was_not_synced(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(make_frame(1))
    log.files.fail = {"sync", "sync_folder"}
    with pytest.raises(OSError, match="Input/output"):
        log.append(make_frame(2, "refused"))
    with pytest.raises(OSError, match="Input/output"):
        log.wal.disown(2)
    with pytest.raises(OSError, match="Input/output"):
        log.append(make_frame(2, "refused too"))
    assert lengths(log, 2) == (0, 0)
    log.files.fail = set()
    log.append(make_frame(2, "taken"))
    assert log.read()[0] == [make_frame(1), make_frame(2, "taken")]
    log.trim(2, 3)
    assert log.names() == []


def test_a_failed_sync_is_not_tried_again_on_the_same_file(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.files.fail = {"sync"}
    synced: list[int] = []
    log.files.sync = lambda fd: synced.append(fd) or Failing.sync(log.files, fd)  # type: ignore
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            log.append(make_frame(1))
    assert len(synced) == 2
    assert log.wal._descriptor is None


def test_recovery_begins_a_new_segment_and_never_writes_behind_torn_bytes(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(make_frame(1), make_frame(2))
    path = log.folder / segment_name(1)
    path.write_bytes(path.read_bytes()[:-1])
    frames, report = log.reopen(0)
    assert frames == [make_frame(1)]
    assert report.next_position == 2
    assert report.torn_bytes == len(to_bytes(make_frame(2))) - 1
    log.append(make_frame(2, "again"))
    assert log.read()[0] == [make_frame(1), make_frame(2, "again")]


def test_a_hole_is_reported_as_exactly_what_was_lost(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(make_frame(1), make_frame(2, count=5), make_frame(7))
    log.damage(1, len(to_bytes(make_frame(1))) + 45)
    frames, report = log.read()
    assert frames == [make_frame(1), make_frame(7)]
    assert report.missing == [(2, 6)]
    assert [name for name, _ in report.damaged] == [segment_name(1)]


def test_a_segment_that_is_gone_is_reported_as_missing(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=1)
    for position in (1, 2, 3):
        log.append(make_frame(position))
    (log.folder / segment_name(2)).unlink()
    assert log.read()[1].missing == [(2, 2)]
    (log.folder / segment_name(1)).unlink()
    assert log.read()[1].missing == [(1, 1), (2, 2)]  # of one each
    assert log.read(2)[1].missing == []


def lose_all(log: Log) -> None:
    for name in log.names():
        (log.folder / name).write_bytes(b"")


def damage_all(log: Log) -> None:
    for position in (1, 2, 3):
        log.damage(position)


@pytest.mark.parametrize("harm", [lose_all, damage_all])
def test_positions_go_on_after_every_segment_that_is_there_even_when_none_can_be_read(
    harm: Callable[[Log], None], tmp_path: Path
) -> None:
    # Else new frames would come to lie past the name of an old segment, which disowns them.
    log = Log(tmp_path, segment_bytes=1)
    for position in (1, 2, 3):
        log.append(make_frame(position))
    harm(log)
    frames, report = log.reopen(0)
    assert frames == []
    assert report.missing == [(1, 1), (2, 2)]
    assert report.next_position == 3
    for position in range(3, 8):
        log.append(make_frame(position, "new"))
    assert [frame.first_position for frame in log.read(2)[0]] == [3, 4, 5, 6, 7]
    assert log.names() == sorted(log.names())


def test_trim_removes_the_oldest_first_and_only_what_is_covered_whole(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=len(to_bytes(make_frame(1))) + 1)
    for position in range(1, 7):
        log.append(make_frame(position))
    log.trim(3, 7)
    assert log.files.removed == [segment_name(1)]
    log.trim(5, 7)
    assert log.files.removed == [segment_name(1), segment_name(3)]
    assert [frame.first_position for frame in log.read(4)[0]] == [5, 6]
    log.trim(6, 7)
    assert log.names() == []
    log.append(make_frame(7))
    assert log.read(6) == ([make_frame(7)], LogReport(events=1, next_position=8))


def test_a_trim_that_fails_goes_on_from_there_the_next_time(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=1)
    for position in range(1, 5):
        log.append(make_frame(position))
    log.files.fail = {"remove"}
    with pytest.raises(OSError, match="Input/output"):
        log.trim(3, 5)
    assert len(log.names()) == 4
    log.files.fail = set()
    log.trim(3, 5)
    assert log.names() == [segment_name(4)]


def test_segments_are_let_go_of_first_and_removed_while_appends_go_on(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=1)
    for position in (1, 2, 3):
        log.append(make_frame(position))
    log.wal.retire(0)
    log.wal.remove_retired()
    assert (log.wal.first_position, log.wal.segment_count) == (1, 3)
    log.wal.retire(2)
    assert log.names() == [segment_name(position) for position in (1, 2, 3)]
    assert (log.wal.first_position, log.wal.segment_count) == (1, 3)
    log.append(make_frame(4))
    log.wal.remove_retired()
    assert log.names() == [segment_name(3), segment_name(4)]
    assert (log.wal.first_position, log.wal.segment_count) == (3, 2)
    log.wal.retire(4)  # all of the newest too, which the next append may go on with
    log.wal.remove_retired()
    assert log.names() == [segment_name(4)]
    log.trim(4, 5)
    assert log.names() == []


def test_a_segment_whose_name_the_next_append_may_give_again_is_not_left_for_later(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path)
    log.append(make_frame(1))
    log.files.fail = {"sync"}
    with pytest.raises(OSError, match="Input/output"):
        log.append(make_frame(2, "refused"))
    log.files.fail = set()
    log.wal.disown(2)
    log.wal.close()
    log.wal.trim(1, 2)
    assert log.files.removed == [segment_name(1), segment_name(2)]  # the older one first
    log.append(make_frame(2, "stored"))
    log.wal.remove_retired()
    assert log.read(1)[0] == [make_frame(2, "stored")]


def test_after_a_restart_old_segments_are_trimmed_too(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=1)
    for position in (1, 2):
        log.append(make_frame(position))
    log.reopen(2)
    log.trim(2, 3)
    assert log.names() == []


def test_a_damaged_segment_goes_to_quarantine_and_not_to_the_bin(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(make_frame(1), make_frame(2))
    log.damage(1, 50)
    frames, _ = log.reopen(0)
    assert frames == [make_frame(2)]
    content = (log.folder / segment_name(1)).read_bytes()
    log.append(make_frame(3))
    log.trim(2, 4)
    assert log.names() == [segment_name(3)]
    assert (log.quarantine / segment_name(1)).read_bytes() == content


def test_a_damaged_segment_is_kept_when_the_next_one_gets_its_name(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(make_frame(1))
    log.damage(1)
    content = (log.folder / segment_name(1)).read_bytes()
    frames, report = log.reopen(0)
    assert (frames, report.next_position) == ([], 1)
    log.append(make_frame(1, "new"))
    assert log.read()[0] == [make_frame(1, "new")]
    assert (log.quarantine / segment_name(1)).read_bytes() == content


def test_a_second_damaged_segment_of_a_name_does_not_replace_the_first_in_quarantine(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path)
    for name in ("first", "second"):
        log.append(make_frame(1, name))
        log.damage(1)
        log.reopen(0)
    log.append(make_frame(1, "third"))
    assert len(log.files.names(log.quarantine)) == 2


def test_strange_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    log = Log(tmp_path)
    (log.folder / "notes.txt").write_text("mine")
    (log.folder / "x.wal").write_text("mine too")
    log.append(make_frame(1))
    assert log.reopen(0)[0] == [make_frame(1)]
    log.trim(1, 2)
    assert log.names() == ["notes.txt", "x.wal"]


def test_a_segment_that_vanishes_while_reading_was_covered_and_is_passed_over(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path, segment_bytes=1)
    for position in (1, 2):
        log.append(make_frame(position))
    names = log.names()
    log.trim(1, 3)
    log.files.names = lambda folder: names  # type: ignore[method-assign]
    assert log.read()[0] == [make_frame(2)]


def test_a_write_that_ends_in_any_exception_is_disowned(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(make_frame(1))

    def write(descriptor: int, data: bytes, at: int | None = None) -> None:
        Files().write(descriptor, data, at)
        raise MemoryError

    with pytest.MonkeyPatch.context() as broken, pytest.raises(MemoryError):
        broken.setattr(log.files, "write", write)
        log.append(make_frame(2, "refused"))
    log.append(make_frame(2, "taken"))
    assert log.read()[0] == [make_frame(1), make_frame(2, "taken")]


def lengths(log: Log, position: int) -> tuple[int, int]:
    """How long a segment is, and how much of it is frames."""
    content = (log.folder / segment_name(position)).read_bytes()
    return len(content), len(content.rstrip(b"\0"))


def test_a_segment_has_room_for_as_much_as_it_holds_so_that_few_appends_make_it_longer(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path)
    frames = [make_frame(position) for position in range(1, 101)]
    log.append(frames[0])
    length, content = lengths(log, 1)
    assert length == content  # who writes once writes no more than that
    grown = 0
    for frame in frames[1:]:
        log.append(frame)
        before, (length, content) = length, lengths(log, 1)
        grown += length != before
        assert content == sum(len(to_bytes(each)) for each in frames[: frame.first_position])
    assert grown == 6
    assert log.read() == (frames, LogReport(events=100, next_position=101))
    assert log.reopen(0)[0] == frames


def test_the_room_has_a_bound_and_long_writes_make_none(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=1 << 30)
    long = make_frame(1, "x" * 3_000_000)
    log.append(long)
    assert lengths(log, 1) == (len(to_bytes(long)),) * 2
    log.append(make_frame(2))
    length, content = lengths(log, 1)
    assert length - content == ROOM_BYTES
    log.append(make_frame(3, "y" * ROOM_BYTES))
    assert len(set(lengths(log, 1))) == 1
    assert [frame.first_position for frame in log.read()[0]] == [1, 2, 3]


def test_a_write_over_the_room_that_reached_the_disk_in_part_is_torn_wherever_it_ends(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path)
    for position in (1, 2, 3, 4):
        log.append(make_frame(position))
    path = log.folder / segment_name(1)
    whole = path.read_bytes()
    size = len(to_bytes(make_frame(1)))
    for cut in range(3 * size, 4 * size):
        path.write_bytes(whole[:cut] + bytes(len(whole) - cut))
        frames, report = log.read()
        assert [frame.first_position for frame in frames] == [1, 2, 3], cut
        assert report.torn_bytes <= cut - 3 * size  # zeros of its own are not told from the room
        assert report.is_whole and not report.missing
    path.write_bytes(whole[: 3 * size] + bytes(size) + b"\1" + bytes(100))
    report = log.read()[1]
    assert [damage.torn for _, damage in report.damaged] == [False]  # no zero any more: it is told


def test_a_last_segment_that_holds_zeros_alone_is_as_good_as_emptied(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(make_frame(1))
    path = log.folder / segment_name(1)
    path.write_bytes(bytes(path.stat().st_size))
    assert log.read()[1].gone == [(segment_name(1), "is empty", 1)]


def test_a_write_that_overtakes_a_reader_is_no_hole(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for position in range(1, 41):
        log.append(make_frame(position, "x" * 100))
    path = log.folder / segment_name(1)
    before = path.read_bytes()
    page = len(before.rstrip(b"\0")) + 50  # the reader is here when three frames are written
    log.append(*(make_frame(position, "x" * 100) for position in (41, 42, 43)))
    overtaken = [before[:page] + path.read_bytes()[page:]]
    log.files.read = lambda path: overtaken.pop() if overtaken else path.read_bytes()  # type: ignore
    frames, report = log.read()
    assert [frame.first_position for frame in frames] == list(range(1, 44))
    assert report == LogReport(events=43, next_position=44)


def test_what_is_written_after_a_reader_began_is_read_as_far_as_it_saw(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(make_frame(1))
    log.append(make_frame(2))
    earlier = [(log.folder / segment_name(1)).read_bytes()]
    log.append(make_frame(3))
    log.files.read = lambda path: earlier.pop() if earlier else path.read_bytes()  # type: ignore
    assert log.read() == ([make_frame(1), make_frame(2)], LogReport(events=2, next_position=3))
