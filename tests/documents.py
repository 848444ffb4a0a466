"""The blocks of code in the documents, so that tests can run what a reader would."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """Return the README's blocks in one language, in order."""
    return [text for kind, text in _BLOCK.findall(README) if kind == language]
