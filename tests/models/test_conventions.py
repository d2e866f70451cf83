"""Conventions of OPs: properties, and worked examples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmdd.models.conventions import CONVENTIONS, Convention, layer_ops, total_ops
from qmdd.models.stats import LayerStats

WIDTHS = st.sampled_from([1, 2, 3, 4, 8, 32])
ALL = st.sampled_from(list(CONVENTIONS.values()))


def layer(weight: int, code: int, macs: int = 6400) -> LayerStats:
    return LayerStats("x", "conv", 1, weight, code, macs, (1,))


@pytest.mark.parametrize(
    ("name", "weight", "code", "ops"),
    [
        ("word", 2, 2, 400),
        ("word", 3, 3, 600),
        ("word", 2, 8, 1600),
        ("word", 32, 32, 6400),
        ("bops", 1, 1, 100),  # Bi-Real Net, ReActNet: 64 binary operations to one
        ("bops", 3, 2, 600),
        ("bops", 32, 32, 6400),
        ("half", 2, 2, 200),
        ("half", 32, 32, 6400),
    ],
)
def test_examples(name: str, weight: int, code: int, ops: float) -> None:
    assert layer_ops(layer(weight, code), CONVENTIONS[name]) == ops


def test_the_default_is_the_words() -> None:
    assert layer_ops(layer(2, 2)) == layer_ops(layer(2, 2), CONVENTIONS["word"])


@given(ALL, WIDTHS, WIDTHS, st.integers(0, 10**12))
def test_never_more_than_multiply_adds(c: Convention, w: int, a: int, macs: int) -> None:
    assert 0 <= layer_ops(layer(w, a, macs), c) <= macs
    assert layer_ops(layer(32, 32, macs), c) == macs


@given(ALL, WIDTHS, WIDTHS, WIDTHS)
def test_wider_is_never_cheaper(c: Convention, narrow: int, wide: int, code: int) -> None:
    narrow, wide = sorted((narrow, wide))
    assert layer_ops(layer(narrow, code), c) <= layer_ops(layer(wide, code), c)


@given(ALL, st.lists(st.tuples(WIDTHS, WIDTHS, st.integers(0, 10**9)), max_size=5))
def test_totals_are_sums(c: Convention, rows: list[tuple[int, int, int]]) -> None:
    layers = [layer(*row) for row in rows]
    assert total_ops(layers, c) == sum(layer_ops(one, c) for one in layers)
