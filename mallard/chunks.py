"""Divides work into what is done at once, so that the memory it takes is bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def chunks(weighed: Iterable[tuple[T, int]], most: int) -> Iterator[list[T]]:
    """Divide what weighs so much into lists, in order, each of at most as much as the last says.

    What weighs more is alone; there is no empty list.
    """
    chunk: list[T] = []
    weight = 0
    for each, more in weighed:
        if chunk and weight + more > most:
            yield chunk
            chunk, weight = [], 0
        chunk.append(each)
        weight += more
    if chunk:
        yield chunk
