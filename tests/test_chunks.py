from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mallard.chunks import chunks


def test_what_is_too_much_is_alone() -> None:
    weighed = [("a", 2), ("b", 1), ("c", 9), ("d", 0), ("e", 3)]
    assert list(chunks(weighed, 3)) == [["a", "b"], ["c"], ["d", "e"]]
    assert list(chunks([], 3)) == []


@given(st.lists(st.integers(0, 9)), st.integers(0, 20))
def test_nothing_is_lost_and_no_two_lists_could_be_one(weights: list[int], most: int) -> None:
    found = list(chunks([(weight, weight) for weight in weights], most))
    assert [each for chunk in found for each in chunk] == weights
    assert all(len(chunk) == 1 or sum(chunk) <= most for chunk in found)
    for chunk, following in itertools.pairwise(found):
        assert sum(chunk) + following[0] > most
