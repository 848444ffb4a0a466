from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mallard import control
from mallard.control import ANSWER, FOLDER, REQUEST, Control, ask
from mallard.errors import InvalidInput, MallardError, NotFound, StorageError
from mallard.files import Files
from tests.waiting import until

SAID = "zqxsaid"


def echo(arguments: Mapping[str, Any]) -> object:
    return {"said": arguments["say"]}


def refuse(_: Mapping[str, Any]) -> object:
    raise NotFound("there is none")


def fail(_: Mapping[str, Any]) -> object:
    raise RuntimeError("a fault")


COMMANDS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "echo": echo,
    "refuse": refuse,
    "fail": fail,
}


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    server = Control(tmp_path, Files(), COMMANDS)
    server.start()
    yield tmp_path
    server.stop()


def test_a_request_is_answered_and_leaves_nothing(data: Path) -> None:
    assert ask(data, Files(), "echo", {"say": SAID}) == {"said": SAID}
    assert list((data / FOLDER).iterdir()) == []


def test_requests_and_answers_are_for_the_owner_alone(tmp_path: Path) -> None:
    modes: list[int] = []

    def look(_: Mapping[str, Any]) -> object:
        modes.append((tmp_path / FOLDER).stat().st_mode & 0o777)
        return None

    class Watching(Files):
        def read(self, path: Path) -> bytes:
            modes.append(path.stat().st_mode & 0o777)
            return super().read(path)

    server = Control(tmp_path, Watching(), {"look": look})
    server.start()
    ask(tmp_path, Watching(), "look", {})
    server.stop()
    assert modes == [0o600, 0o700, 0o600]


def test_what_a_command_refuses_is_raised_where_it_was_asked(data: Path) -> None:
    with pytest.raises(NotFound, match="there is none"):
        ask(data, Files(), "refuse", {})
    with pytest.raises(InvalidInput, match="does not know"):
        ask(data, Files(), "sing", {})


def test_a_fault_in_a_command_is_not_the_servers_end(data: Path) -> None:
    with pytest.raises(MallardError, match="its log says how"):
        ask(data, Files(), "fail", {})
    assert ask(data, Files(), "echo", {"say": 1}) == {"said": 1}


def test_many_may_ask_at_once(data: Path) -> None:
    answers: list[object] = []
    threads = [
        threading.Thread(
            target=lambda n=n: answers.append(ask(data, Files(), "echo", {"say": n})["said"])
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, answers)) == sorted(map(str, range(8)))


def test_what_an_earlier_process_left_is_gone_with_the_start_and_not_acted_on(
    tmp_path: Path,
) -> None:
    left = tmp_path / FOLDER / f"x{REQUEST}"
    left.parent.mkdir()
    left.write_bytes(b'{"command": "fail", "arguments": {}}')
    server = Control(tmp_path, Files(), COMMANDS)
    server.start()
    assert list(left.parent.iterdir()) == []
    server.stop()


def test_what_is_no_request_is_answered_too(data: Path) -> None:
    (data / FOLDER / f"x{REQUEST}").write_bytes(b"\0")
    answer = data / FOLDER / f"x{ANSWER}"
    until(answer.exists, "an answer")
    assert b"InvalidInput" in answer.read_bytes()


def test_an_answer_that_nobody_took_goes_when_its_time_is_over(data: Path) -> None:
    old = data / FOLDER / f"x{ANSWER}"
    old.write_bytes(b"{}")
    os.utime(old, (0, 0))
    until(lambda: not old.exists(), "it is removed")


def test_who_is_not_answered_gives_up_and_takes_the_request_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match="may be an older"):
        ask(tmp_path, Files(), "echo", {"say": SAID})
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.05)
    (tmp_path / FOLDER).mkdir()
    with pytest.raises(StorageError, match="does not answer"):
        ask(tmp_path, Files(), "echo", {"say": SAID})
    assert list((tmp_path / FOLDER).iterdir()) == []
