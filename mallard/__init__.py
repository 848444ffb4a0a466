"""Mallard: a self-hosted analytics server: one command and one data folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mallard.query.notebook import Notebook


def open(data: str | Path) -> Notebook:  # noqa: A001 - as people write it: mallard.open("data")
    """Return what is stored in a data folder, for SQL in a notebook, while the server runs too.

    Raises StorageError when it is no data folder.
    """
    # Nothing else that says `import mallard` pays for it.
    from mallard.query.notebook import Notebook  # noqa: PLC0415

    return Notebook(data)
