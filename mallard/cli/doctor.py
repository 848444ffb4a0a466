"""`mallard doctor`: what is wrong with a data folder, and what to do."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from mallard import settings
from mallard.clock import Clock
from mallard.files import Files
from mallard.ingest.visitor import SALTS_FOLDER
from mallard.jobs.doctor import Severity, examine


def doctor(path: Path | None, data: str | None) -> int:
    """Print a line for each thing; return the exit code, 1 when something is wrong.

    path: the TOML file. Raises ConfigError.
    """
    config = settings.load(path, os.environ, {"server.data": data}).config
    console = Console(highlight=False, soft_wrap=True)
    remarks = examine(config.server.data, config, Files(), Clock(), SALTS_FOLDER)
    for remark in remarks:
        console.print(f"{remark.severity.value}: {remark.text}", markup=False)
    return 1 if any(remark.severity is Severity.WRONG for remark in remarks) else 0
