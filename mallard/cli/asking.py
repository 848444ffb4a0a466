"""Reaches the server of a data folder; where none runs, one is started meanwhile, without doors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mallard import settings
from mallard.control import ask
from mallard.errors import StorageError
from mallard.files import Files, FolderLock
from mallard.server import Server
from mallard.store.reader import DATABASE


@contextlib.contextmanager
def asking(
    path: Path | None, folder: str | None
) -> Iterator[Callable[[str, Mapping[str, Any]], Any]]:
    """Give what asks a command of the server, with its arguments, and returns its answer.

    path: the TOML file. folder: the data folder, if not the configured one. Raises ConfigError, and
    StorageError for what is no data folder.
    """
    config = settings.load(path, os.environ, {"server.data": folder}).config
    data = config.server.data
    if not (data / DATABASE).is_file():
        raise StorageError(f"{data} is not a Mallard data folder: it has no {DATABASE}.")
    if _is_served(data):
        yield partial(ask, data, Files())
        return
    server = Server(config)
    server.start()
    try:
        yield server.control.call
    finally:
        server.stop()


def _is_served(data: Path) -> bool:
    try:
        FolderLock(data).release()
    except StorageError:
        return True
    return False
