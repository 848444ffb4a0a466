from __future__ import annotations

import contextlib
import os
import pickle
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import pytest

from mallard.errors import StorageError
from mallard.files import FolderLock
from mallard.jobs.apart import LOOKS, Apart, Ended, Starved
from mallard.processes import NICENESS, PAUSE_EVERY_SECONDS, start


def niceness(added: int) -> int:
    return os.nice(0) + added


def fail(words: str) -> None:
    os.write(1, b"what a library prints is not the answer")
    raise ValueError(words)


def kill_itself(_: None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_itself_and_say_half(_: None) -> None:
    for number in range(3, 10):  # its answers' pipe is among them
        with contextlib.suppress(OSError):  # not open, or a pipe that is read from
            if stat.S_ISFIFO(os.fstat(number).st_mode):
                os.write(number, pickle.dumps("an answer")[:8])
    kill_itself(None)


class OfAnotherVersion:
    def __reduce__(self) -> tuple[object, ...]:
        return getattr, (os, "what_no_module_has")


def make_what_cannot_be_read(_: None) -> OfAnotherVersion:
    return OfAnotherVersion()


def own_number(_: None) -> int:
    return os.getpid()


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def scheduling_class(_: None) -> int:
    return os.sched_getscheduler(0)


def seconds_between_pauses(_: None, text: bytes = b"") -> float:
    return signal.getitimer(signal.ITIMER_REAL)[1]


class TimerWhenRead:
    """Becomes what the timer is where it is read, before the work begins."""

    def __reduce__(self) -> tuple[object, ...]:
        return signal.getitimer, (signal.ITIMER_REAL,)


def itself(task: object) -> object:
    return task


def with_text(task: object, text: bytes) -> tuple[object, bytes]:
    return task, text


def wait_for_ever(_: None) -> None:
    while True:
        signal.pause()


def be_told_to_stop(number: int) -> int:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    return number


def say_and_wait(fifo: Path) -> None:
    """Open a pipe, and keep it open until killed."""
    fifo.open("wb")
    while True:
        signal.pause()


def test_a_process_returns_what_is_made_and_gives_way() -> None:
    assert Apart().call(niceness, 0) == min(19, os.nice(0) + NICENESS)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has idle time")
def test_a_process_works_in_idle_time_when_asked_to() -> None:
    assert Apart().call(scheduling_class, None, idle=True) == os.SCHED_IDLE
    assert Apart().call(scheduling_class, None) == os.SCHED_OTHER


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has pauses")
def test_a_process_pauses_for_those_who_wait_for_its_core_until_it_is_done() -> None:
    apart = Apart(stays=True)
    assert apart.call(seconds_between_pauses, None) == pytest.approx(PAUSE_EVERY_SECONDS)
    pauses = apart.call_with(seconds_between_pauses, None, [b"text"])
    assert pauses == pytest.approx(PAUSE_EVERY_SECONDS)
    assert apart.call(itself, TimerWhenRead()) == (0, 0)
    with pytest.raises(StorageError, match="wrong"):
        apart.call(fail, "wrong")
    assert apart.call(itself, TimerWhenRead()) == (0, 0)
    apart.end()


def test_a_process_is_waited_for_as_long_as_it_has_some_idle_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []

    def lacks(process: int, had: float, seconds: float) -> bool:
        assert is_running(process)
        asked.append(seconds)
        return len(asked) % LOOKS > 0

    monkeypatch.setattr("mallard.jobs.apart.LOOK_SECONDS", 0.001)
    monkeypatch.setattr("mallard.jobs.apart.lacks_idle_time", lacks)
    assert Apart().call(os.fspath, "answer", idle=True) == "answer"
    assert set(asked) == {0.001}
    asked.clear()
    assert Apart().call(os.fspath, "answer") == "answer"
    assert not asked


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has idle time")
def test_a_process_without_idle_time_is_ended_and_some_that_follow_do_not_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processes: list[int] = []

    def lacks(process: int, had: float, seconds: float) -> bool:
        processes.append(process)
        return True

    monkeypatch.setattr("mallard.jobs.apart.LOOK_SECONDS", 0.001)
    monkeypatch.setattr("mallard.jobs.apart.CALLS_BESIDE", 2)
    monkeypatch.setattr("mallard.jobs.apart.lacks_idle_time", lacks)
    apart = Apart()
    with pytest.raises(Starved, match="idle"):
        apart.call(wait_for_ever, None, idle=True)
    assert len(processes) == LOOKS
    assert len(set(processes)) == 1
    assert not is_running(processes[0])
    monkeypatch.setattr("mallard.jobs.apart.lacks_idle_time", lambda *_: False)
    assert apart.call(scheduling_class, None, idle=True) == os.SCHED_OTHER
    assert apart.call(scheduling_class, None) == os.SCHED_OTHER
    assert apart.call(scheduling_class, None, idle=True) == os.SCHED_OTHER
    assert apart.call(scheduling_class, None, idle=True) == os.SCHED_IDLE


def test_what_goes_wrong_in_a_process_is_told_in_its_words_alone(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(StorageError, match="no room"):
        Apart().call(fail, "no room")
    assert capfd.readouterr() == ("", "")


def test_a_process_that_is_killed_is_told_apart_from_one_that_failed() -> None:
    with pytest.raises(Ended, match="-9"):
        Apart().call(kill_itself, None)


def test_an_answer_that_cannot_be_read_is_none() -> None:
    with pytest.raises(Ended):
        Apart().call(make_what_cannot_be_read, None)


def test_what_stops_all_processes_of_a_server_leaves_it_to_the_server_to_end_them() -> None:
    assert Apart().call(be_told_to_stop, 7) == 7


def test_a_process_that_stays_does_one_thing_after_the_other_and_ends_when_told() -> None:
    apart = Apart(stays=True)
    first = apart.call(own_number, None)
    with pytest.raises(StorageError, match="no room"):
        apart.call(fail, "no room")
    assert apart.call(own_number, None) == first
    apart.end()
    assert not is_running(first)
    apart.end()
    second = apart.call(own_number, None)
    assert second != first
    apart.end()


def test_one_that_somebody_has_stopped_is_ended_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mallard.jobs.apart.END_SECONDS", 0.01)
    apart = Apart(stays=True)
    process = apart.call(own_number, None)
    os.kill(process, signal.SIGSTOP)
    apart.end()
    assert not is_running(process)


@pytest.mark.parametrize("cut", [1, 20])
def test_a_server_that_ends_in_the_middle_of_a_word_is_no_fault_of_the_process(cut: int) -> None:
    said = pickle.dumps((own_number, None, None, False))[:-cut]
    with start("from mallard.jobs.apart import main; main()", str(os.getpid()), errors=PIPE) as one:
        assert one.communicate(said) == (b"", b"")
    assert one.returncode == 0


def test_a_server_that_ends_in_the_middle_of_a_text_is_no_fault_of_the_process() -> None:
    said = pickle.dumps((with_text, "task", 4, False)) + b"abc"
    with start("from mallard.jobs.apart import main; main()", str(os.getpid()), errors=PIPE) as one:
        assert one.communicate(said) == (b"", b"")
    assert one.returncode == 0


@pytest.mark.parametrize(
    "texts", [[], [b""], [b"a", b"", b"bc"], [b"%d," % n for n in range(3_000)]]
)
def test_texts_come_as_one(texts: list[bytes]) -> None:
    apart = Apart(stays=True)
    for _ in range(2):
        assert apart.call_with(with_text, "task", texts) == ("task", b"".join(texts))
    assert apart.call(own_number, None) > 0  # nothing of them is left in the pipe
    apart.end()


@pytest.mark.parametrize("most", [1, 5])
def test_texts_that_are_not_written_at_once_come_all_the_same(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "writev", lambda to, texts: write(to, b"".join(texts)[:most]))
    monkeypatch.setattr(os, "write", lambda to, text: write(to, text[:most]))
    assert Apart().call_with(with_text, 7, [b"abc", b"defgh"]) == (7, b"abcdefgh")


def test_a_server_that_does_not_hear_the_answer_is_no_fault_of_the_process() -> None:
    with start("from mallard.jobs.apart import main; main()", str(os.getpid()), errors=PIPE) as one:
        assert one.stdin and one.stdout and one.stderr
        one.stdout.close()
        one.stdin.write(pickle.dumps((own_number, None, None, False)))
        one.stdin.flush()
        assert one.stderr.read() == b""
    assert one.returncode == 0


def test_without_staying_each_thing_has_a_process() -> None:
    apart = Apart()
    first, second = apart.call(own_number, None), apart.call(own_number, None)
    assert first != second
    assert not is_running(second)


@pytest.mark.parametrize("kill", [kill_itself, kill_itself_and_say_half])
def test_one_that_stays_and_is_killed_is_followed_by_another(
    kill: Callable[[None], None],
) -> None:
    apart = Apart(stays=True)
    first = apart.call(own_number, None)
    with pytest.raises(Ended, match="-9"):
        apart.call(kill, None)
    second = apart.call(own_number, None)
    os.kill(second, signal.SIGKILL)  # while it has nothing to do
    with pytest.raises(Ended, match="-9"):
        apart.call(own_number, None)
    assert apart.call(own_number, None) not in {first, second}
    apart.end()


def test_another_thread_can_end_what_is_under_way(tmp_path: Path) -> None:
    fifo, apart, ended = tmp_path / "fifo", Apart(), []
    os.mkfifo(fifo)

    def work() -> None:
        with pytest.raises(Ended):
            apart.call(say_and_wait, fifo)
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    with fifo.open("rb") as pipe:  # waits until the process has opened it
        apart.interrupt()
        assert pipe.read() == b""
    thread.join()
    assert ended


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_process_ends_with_its_server_and_keeps_the_folder_until_then(tmp_path: Path) -> None:
    fifo, folder = tmp_path / "fifo", tmp_path / "data"
    os.mkfifo(fifo)
    folder.mkdir()
    program = (
        "from pathlib import Path; from mallard.files import FolderLock; "
        "from mallard.jobs.apart import Apart; from tests.jobs.test_apart import say_and_wait; "
        f"lock = FolderLock(Path({str(folder)!r})); "
        f"Apart([lock.descriptor]).call(say_and_wait, Path({str(fifo)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as server:
        with fifo.open("rb") as pipe:
            server.kill()
            assert pipe.read() == b""  # its last writer is gone
        server.wait()
    FolderLock(folder).release()
