"""Work for processes in which something goes wrong."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import duckdb

from mallard.query.sandboxed import Limits


@dataclass(frozen=True, slots=True)
class Noisy:
    """Answers with two rows, between which a library says something."""

    limits: Limits
    is_foreign: bool = False

    def answer(self, connection: duckdb.DuckDBPyConnection, output: BinaryIO) -> dict[str, Any]:
        output.write(b"first\n")
        output.flush()
        os.write(1, b"\r  0% \xe2\x96\x95")
        output.write(b"second\n")
        return {"rows": 2}


@dataclass(frozen=True, slots=True)
class Failing:
    """Stands for `WholeTask`, and fails after a megabyte."""

    whole: object
    still: object
    form: object
    limits: Limits
    is_foreign: bool = False

    def answer(self, connection: duckdb.DuckDBPyConnection, output: BinaryIO) -> dict[str, Any]:
        output.write(b"x" * 2**20)
        raise RuntimeError("the disk is gone")
