"""What a store of parts can do, wherever its parts and its manifest lie."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from mallard.store.manifest import Snapshot
from mallard.store.part import Part


class Store(Protocol):
    """Takes events from the buffer for good, and says where they are."""

    @property
    def node(self) -> int:
        """12 bits by which the event ids made here differ from those made elsewhere."""

    def publish(self, events: pa.Table, watermark: int) -> None:
        """Store events and move the watermark, in one step: after it they are here, before it not.

        events: of `ARROW_SCHEMA`, every committed one after the old watermark up to and including
        the new. Raises StorageError; then nothing was stored.
        """

    def snapshot(self) -> Snapshot:
        """Return the live parts and the watermark of one instant."""

    def source(self, part: Part) -> str:
        """Return where a query engine reads a part: a path or a URL."""

    def close(self) -> None:
        """Let go of the store."""
