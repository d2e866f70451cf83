"""The account of an import: where every tensor of the file went, where every one of ours is from.

Every key of the file ends in exactly one of: *mapped*, *dropped* (known, with the reason),
*unknown* (refused, unless the user said to leave such keys out). Every key of ours ends in *mapped*
or *initialised*, with the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..errors import ModelError

MAPPED, DROPPED, UNKNOWN, INITIALISED = "mapped", "dropped", "unknown", "initialised"
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Rule:
    """Where one tensor of the file goes.

    Attributes:
        ours: the name of our tensor.
        shape: our shape to the shape that the file's tensor must have; the same by default.
        convert: values to values, the file's shape; as they are by default.
        note: what ``convert`` does, in words.
        optional: whether files without it are whole too.
    """

    ours: str
    shape: Callable[[Shape], Shape] = lambda ours: ours
    convert: Callable[[Tensor], Tensor] = lambda tensor: tensor
    note: str = ""
    optional: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the account; ``source`` is ``None`` for what is initialised, else the file's key.

    ``ours`` is ``None`` for what is dropped or unknown. ``shape`` is the file's, or for what is
    initialised ours.
    """

    source: str | None
    shape: Shape
    ours: str | None
    status: str
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**dataclasses.asdict(self), "shape": list(self.shape)}


def per_channel_shape(ours: Shape) -> Shape:
    """A bias ``[C]`` that the file keeps as ``[1, C, 1, 1]``."""
    return (1, *ours, 1, 1)


def scalar_shape(_ours: Shape) -> Shape:
    """A scalar that the file keeps as ``[1]``."""
    return (1,)


def norm_rules(source: str, ours: str) -> dict[str, Rule]:
    """A batch-norm's four tensors, and the counter of batches, which old files lack."""
    names = ("weight", "bias", "running_mean", "running_var")
    rules = {f"{source}.{name}": Rule(f"{ours}.{name}") for name in names}
    counter = "num_batches_tracked"
    rules[f"{source}.{counter}"] = Rule(f"{ours}.{counter}", optional=True)
    return rules


def account(
    tensors: Mapping[str, Tensor],
    rules: Mapping[str, Rule],
    ours: Mapping[str, Tensor],
    drop_reason: Callable[[str, Tensor], str | None],
    initial_reason: Callable[[str], str],
    *,
    ignore_unknown: bool = False,
) -> list[Row]:
    """The whole account, in the file's order, then what is initialised in ours; nothing is copied.

    Args:
        tensors: the file's.
        rules: by the file's key; all that a whole file must hold.
        ours: the detector's state (only shapes are looked at).
        drop_reason: why a key without a rule is known and left out, or ``None``.
        initial_reason: why a key of ours has no source.
        ignore_unknown: leave unknown keys out, instead of refusing them.

    Raises:
        ModelError: missing or unknown keys, or a wrong shape.
    """
    missing = [key for key, rule in rules.items() if key not in tensors and not rule.optional]
    if missing:
        over = [k for k, t in tensors.items() if k not in rules and drop_reason(k, t) is None]
        also = f" and {len(over)} left over{_some(over)}" if over else ""
        raise ModelError(
            f"{_count(missing)} missing{_some(missing)}{also}; take a whole checkpoint"
        )
    rows, reached = [], set()
    for key, tensor in tensors.items():
        shape = tuple(tensor.shape)
        rule = rules.get(key)
        if rule is not None:
            want = rule.shape(tuple(ours[rule.ours].shape))
            if shape != want:
                raise ModelError(f"{key} is {list(shape)}, expected {list(want)}")
            rows.append(Row(key, shape, rule.ours, MAPPED, rule.note))
            reached.add(rule.ours)
            continue
        reason = drop_reason(key, tensor)
        if reason is None:
            rows.append(Row(key, shape, None, UNKNOWN, "left out, as asked"))
        else:
            rows.append(Row(key, shape, None, DROPPED, reason))
    unknown = [str(row.source) for row in rows if row.status == UNKNOWN]
    if unknown and not ignore_unknown:
        raise ModelError(
            f"{_count(unknown)} that this format does not know{_some(unknown)}; "
            "add --ignore-unknown to leave them out"
        )
    for key, tensor in ours.items():
        if key not in reached:
            rows.append(Row(None, tuple(tensor.shape), key, INITIALISED, initial_reason(key)))
    return rows


def _count(keys: list[str]) -> str:
    return f"{len(keys)} tensor{'' if len(keys) == 1 else 's'}"


def _some(keys: list[str]) -> str:
    return f" ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
