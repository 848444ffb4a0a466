from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from mallard.config import StoreConfig
from mallard.jobs.database import BESIDE_BYTES, connect, query_bytes, rows_bytes

MIB = 1024 * 1024


@pytest.mark.parametrize("memory_mib", [256, 4096])
def test_a_job_leaves_memory_for_what_duckdb_does_not_count(
    tmp_path: Path, memory_mib: int
) -> None:
    config = StoreConfig(memory_bytes=memory_mib * MIB)
    assert query_bytes(config) + BESIDE_BYTES == config.memory_bytes
    with connect(config, tmp_path) as connection:
        ((limit,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
        assert rows_bytes(connection) * 3 <= query_bytes(config)
    allowed = query_bytes(config) / MIB
    assert limit in {f"{allowed:.1f} MiB", f"{allowed / 1024:.1f} GiB"}


def test_where_nothing_can_be_written_nothing_is_spilled() -> None:
    with connect(StoreConfig(), None) as connection:
        ((folder,),) = connection.execute("SELECT current_setting('temp_directory')").fetchall()
    assert not folder


def test_a_job_that_would_spill_more_than_it_may_fails(tmp_path: Path) -> None:
    config = StoreConfig(memory_bytes=256 * MIB)
    with connect(config, tmp_path, MIB) as connection:
        connection.execute("SET memory_limit = '48MiB'")
        with pytest.raises(duckdb.OutOfMemoryException, match="max_temp_directory_size"):
            connection.execute(
                "CREATE TEMP TABLE texts AS SELECT md5(range::VARCHAR) FROM range(2_000_000)"
            )
