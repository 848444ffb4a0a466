from __future__ import annotations

from pathlib import Path

import pytest

from mallard.config import StoreConfig
from mallard.jobs.database import WRITER_BYTES, connect, query_bytes

MIB = 1024 * 1024


@pytest.mark.parametrize("memory_mib", [64, 256, 4096])
def test_a_job_leaves_memory_for_writing_what_duckdb_gives(tmp_path: Path, memory_mib: int) -> None:
    config = StoreConfig(memory_bytes=memory_mib * MIB)
    allowed = query_bytes(config)
    assert allowed >= 40 * MIB
    assert config.memory_bytes - allowed >= min(WRITER_BYTES, 24 * MIB)
    with connect(config, tmp_path) as connection:
        ((limit,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    assert limit == f"{allowed / MIB:.1f} MiB" or limit == f"{allowed / MIB / 1024:.1f} GiB"
