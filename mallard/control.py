"""How a command of the same machine's owner reaches the server that has the data folder.

A request is a file in `requests/`, which only the folder's owner can write to; the server takes it
away before it acts on it, and puts an answer beside it. Invariants: a request is acted on at most
once; nothing of it is left on disk; what nobody waits for any more is removed unread.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from mallard import errors
from mallard.errors import InvalidInput, MallardError, StorageError
from mallard.files import TEMPORARY_SUFFIX, Files

FOLDER = "requests"  # in the data folder
REQUEST, ANSWER = ".request", ".answer"
REQUEST_BYTES_MAX = 32 * 1024 * 1024
POLL_SECONDS = 0.2
INTERRUPT_SECONDS = 0.1
# Longer than an answer takes that reads all that is stored; then the asker gives up.
ANSWER_SECONDS = 600.0

Command = Callable[[Mapping[str, Any]], object]

_log = logging.getLogger(__name__)


class Control:
    """Answers requests, one at a time, on a thread of its own."""

    def __init__(self, data: Path, files: Files, commands: Mapping[str, Command]) -> None:
        """Answer by commands: of their names, functions of the arguments that return JSON."""
        self._folder = data / FOLDER
        self._files = files
        self._commands = commands
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mallard-control", daemon=True)

    def start(self) -> None:
        """Remove what an earlier process left, and begin."""
        self._files.make_folder(self._folder)
        for name in self._files.names(self._folder):
            self._files.remove(self._folder / name)
        self._thread.start()

    def stop(self, interrupt: Callable[[], None] | None = None) -> None:
        """Stop after the request that is being answered.

        interrupt: makes a long one end early; called again and again until it does.
        """
        self._stop.set()
        while self._thread.is_alive():
            if interrupt:
                interrupt()
            self._thread.join(INTERRUPT_SECONDS if interrupt else None)

    def call(self, command: str, arguments: Mapping[str, Any]) -> Any:
        """Do what a request asks for, in this process, and return what `ask` would."""
        return orjson.loads(orjson.dumps(self._commands[command](arguments)))

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                for name in self._files.names(self._folder):
                    if name.endswith(REQUEST):
                        self._answer(self._folder / name)
                    else:
                        self._remove_old(self._folder / name)
            except OSError as error:  # a full disk, say; the next look may be better
                _log.error("a request could not be answered: %s", error)

    def _answer(self, path: Path) -> None:
        content = self._take(path)
        try:
            request = orjson.loads(content)
            command = self._commands[request["command"]]
            answer = {"result": command(request["arguments"])}
        except MallardError as error:
            answer = {"error": type(error).__name__, "detail": error.detail}
        except (orjson.JSONDecodeError, KeyError, TypeError):
            answer = {"error": "InvalidInput", "detail": "The server does not know this request."}
        except Exception:  # noqa: BLE001 - the top of a request; the thread must go on
            _log.exception("a request failed because of a fault in Mallard")
            answer = {"error": "MallardError", "detail": "The server failed; its log says how."}
        self._files.replace(path.with_suffix(ANSWER), orjson.dumps(answer))

    def _take(self, path: Path) -> bytes:
        content = b""
        if self._files.size(path) <= REQUEST_BYTES_MAX:
            content = self._files.read(path)
        self._files.remove(path)
        return content

    def _remove_old(self, path: Path) -> None:
        """Remove what an asker that is gone has left."""
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ANSWER_SECONDS:
                self._files.remove(path)


def ask(data: Path, files: Files, command: str, arguments: Mapping[str, Any]) -> Any:
    """Return what the server that has the folder answers.

    Raises what the command raises of MallardError, and StorageError when nobody answers.
    """
    folder = data / FOLDER
    if not folder.is_dir():
        raise StorageError(f"The server of {data} does not answer; it may be an older Mallard.")
    content = orjson.dumps({"command": command, "arguments": dict(arguments)})
    if len(content) > REQUEST_BYTES_MAX:
        raise InvalidInput("This is too much for one request.")
    path = folder / f"{secrets.token_hex(8)}{REQUEST}"
    answer = path.with_suffix(ANSWER)
    try:
        files.replace(path, content)
        deadline = time.monotonic() + ANSWER_SECONDS
        while not answer.exists():
            if time.monotonic() > deadline:
                raise StorageError(f"The server of {data} does not answer.")
            time.sleep(POLL_SECONDS / 4)
        said = orjson.loads(files.read(answer))
    finally:
        for left in (path, path.with_name(path.name + TEMPORARY_SUFFIX), answer):
            files.remove(left)
    if "error" in said:
        kind = getattr(errors, said["error"], MallardError)
        raise kind(said["detail"])
    return said["result"]
