"""Several threads, one order."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmdd.runtime.ordered import ordered


@given(st.lists(st.integers()), st.integers(1, 5))
def test_results_come_in_order(items: list[int], threads: int) -> None:
    assert list(ordered(items, lambda item: item * 2, threads)) == [item * 2 for item in items]


def test_a_late_first_result_holds_the_others_back() -> None:
    first = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert first.wait(10)
        if item == 4:
            first.set()
        return item

    assert list(ordered(range(20), work, 2)) == list(range(20))


def test_the_source_is_taken_only_so_far_ahead() -> None:
    taken = 0

    def source() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = ordered(source(), lambda item: item, 3)
    assert taken == 0
    assert [next(results) for _ in range(5)] == [1, 2, 3, 4, 5]
    time.sleep(0.05)
    assert taken <= 5 + 1 + 3 * 8
    results.close()


@pytest.mark.parametrize("where", ["source", "work"])
def test_an_error_comes_in_its_place_and_ends_the_work(where: str) -> None:
    def source() -> Iterator[int]:
        yield from range(3)
        if where == "source":
            raise OSError("third")
        yield from itertools.count(3)

    def work(item: int) -> int:
        if where == "work" and item == 3:
            raise OSError("third")
        return item

    results = ordered(source(), work, 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="third"):
        next(results)
    assert list(results) == []


def test_threads_end_with_the_iterator() -> None:
    before = set(threading.enumerate())
    results = ordered(itertools.count(), lambda item: item, 4)
    next(results)
    assert set(threading.enumerate()) > before
    results.close()
    assert set(threading.enumerate()) == before


def test_results_do_not_wait_for_a_source_that_waits() -> None:
    """Nor does the end: a list on an idle pipe."""
    more = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        assert more.wait(30)

    results = ordered(source(), lambda item: item, 2)
    assert next(results) == 1
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 10
    more.set()
