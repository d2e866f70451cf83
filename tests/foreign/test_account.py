"""The account: every tensor of the file and of ours exactly once, and refusals that name it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qmdd.models import ModelError
from qmdd.models.foreign.account import (
    DROPPED,
    INITIALISED,
    MAPPED,
    UNKNOWN,
    Row,
    Rule,
    account,
    per_channel_shape,
    scalar_shape,
)

OURS = {"w": torch.zeros(4, 3), "b": torch.zeros(4), "s": torch.zeros(()), "c": torch.zeros(())}
RULES = {
    "W": Rule("w", note="as it is"),
    "B": Rule("b", per_channel_shape),
    "S": Rule("s", scalar_shape),
    "C": Rule("c", optional=True),
}
WHOLE = {"W": torch.ones(4, 3), "B": torch.ones(1, 4, 1, 1), "S": torch.ones(1)}


def _account(tensors: dict[str, torch.Tensor], ignore_unknown: bool = False) -> list[Row]:
    return account(
        tensors,
        RULES,
        OURS,
        lambda key, _: "known" if key.startswith("old") else None,
        lambda ours: f"why {ours}",
        ignore_unknown=ignore_unknown,
    )


def test_every_row_of_a_small_file() -> None:
    tensors = {**WHOLE, "old": torch.zeros(2, 5), "new": torch.zeros(3)}
    assert _account(tensors, ignore_unknown=True) == [
        Row("W", (4, 3), "w", MAPPED, "as it is"),
        Row("B", (1, 4, 1, 1), "b", MAPPED),
        Row("S", (1,), "s", MAPPED),
        Row("old", (2, 5), None, DROPPED, "known"),
        Row("new", (3,), None, UNKNOWN, "left out, as asked"),
        Row(None, (), "c", INITIALISED, "why c"),
    ]
    assert _account(tensors, ignore_unknown=True)[0].to_dict() == {
        "source": "W",
        "shape": [4, 3],
        "ours": "w",
        "status": "mapped",
        "note": "as it is",
    }


@given(
    extra=st.lists(st.from_regex(r"(old|new)[0-9]", fullmatch=True), unique=True),
    optional=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_each_tensor_ends_in_exactly_one_row(
    extra: list[str], optional: bool, order: object
) -> None:
    keys = [*WHOLE, *(["C"] if optional else []), *extra]
    order.shuffle(keys)  # type: ignore[attr-defined]
    tensors = {key: WHOLE.get(key, torch.zeros(())) for key in keys}
    rows = _account(tensors, ignore_unknown=True)
    assert [row.source for row in rows if row.source is not None] == keys
    assert sorted(row.ours for row in rows if row.ours is not None) == sorted(OURS)
    for row in rows:
        assert (row.source is None) == (row.status == INITIALISED)
        assert (row.ours is None) == (row.status in (DROPPED, UNKNOWN))
    unknown = [key for key in extra if key.startswith("new")]
    assert sorted(r.source for r in rows if r.status == UNKNOWN and r.source) == sorted(unknown)
    if unknown:
        with pytest.raises(
            ModelError, match=f"{len(unknown)} tensors? that this format does not know"
        ):
            _account(tensors)
    else:
        assert _account(tensors) == rows


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ModelError, match=r"2 tensors missing \(W, S\); take a whole checkpoint"):
        _account({"B": WHOLE["B"], "old": torch.zeros(1)})


def test_what_is_left_over_is_named_beside_what_is_missing() -> None:
    """The first few of each; what is known and dropped is not left over."""
    extra = {f"new{index}": torch.zeros(1) for index in range(5)}
    with pytest.raises(ModelError) as caught:
        _account({"B": WHOLE["B"], "S": WHOLE["S"], "old": torch.zeros(1), **extra})
    assert str(caught.value) == (
        "1 tensor missing (W) and 5 left over (new0, new1, new2, ...); take a whole checkpoint"
    )


@pytest.mark.parametrize("shape", [(4,), (1, 4), (1, 5, 1, 1), (4, 1, 1, 1), ()])
def test_a_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    """Ours and the file's, even where the number of values is right."""
    with pytest.raises(ModelError) as caught:
        _account({**WHOLE, "B": torch.zeros(shape)})
    assert str(caught.value) == f"B is {list(shape)}, expected [1, 4, 1, 1]"
