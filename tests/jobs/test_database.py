from __future__ import annotations

from pathlib import Path

import pytest

from mallard.config import StoreConfig
from mallard.jobs.database import WRITER_BYTES, connect, query_bytes, rows_bytes

MIB = 1024 * 1024


@pytest.mark.parametrize("memory_mib", [160, 256, 4096])
def test_a_job_leaves_memory_for_writing_what_duckdb_gives(memory_mib: int) -> None:
    config = StoreConfig(memory_bytes=memory_mib * MIB)
    assert query_bytes(config) + WRITER_BYTES == config.memory_bytes


@pytest.mark.parametrize("memory_mib", [64, 256, 4096])
def test_duckdb_has_more_memory_than_the_rows_it_sorts(tmp_path: Path, memory_mib: int) -> None:
    config = StoreConfig(memory_bytes=memory_mib * MIB)
    assert rows_bytes(config) + 32 * MIB <= query_bytes(config)
    with connect(config, tmp_path) as connection:
        ((limit,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    allowed = query_bytes(config) / MIB
    assert limit in {f"{allowed:.1f} MiB", f"{allowed / 1024:.1f} GiB"}
