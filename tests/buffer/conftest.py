from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.buffer.rig import Rig


@pytest.fixture(params=[False, True], ids=["waits for syncs", "syncs beside"])
def rigs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(**settings: Any) -> Rig:
        made.append(Rig(tmp_path, **{"beside": request.param, **settings}))
        return made[-1]

    yield make
    for rig in made:
        rig.files.go.set()
        rig.buffer.close()
