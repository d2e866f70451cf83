"""What the source network itself shows on some images: quantizers, weights, scores.

One image is at work at a time, so that memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...models import (
    ActivationChain,
    Codes,
    QuantConv2d,
    quantised_chains,
    quantised_convolutions,
)
from ...models.histogram import Histogram
from ..errors import ReportError
from .counts import bars, shares, tables_of_channels, within_floats
from .folding import folding

U8 = npt.NDArray[np.uint8]
Report = Callable[[str, int, int], None]


def look(
    network: nn.Module, images: Sequence[U8], report: Report | None = None
) -> tuple[list[float], list[dict[str, Any]]]:
    """Run ``network`` on ``images``.

    Args:
        images: uint8 ``[3, h, w]`` each.
        report: called with ``("looking", done, total)``.

    Returns:
        The logit of each image; for each quantizer, plain data of what it saw (:meth:`_Seen.told`).

    Raises:
        ReportError: NaN or infinity reaches a quantizer. ModelError: a quantizer without a table.
    """
    seen = [_Seen(name, chain) for name, chain in quantised_chains(network)]
    handles = [each.chain.register_forward_hook(each.note) for each in seen]
    logits = []
    try:
        with torch.no_grad():
            for done, image in enumerate(images, start=1):
                logits.append(float(network(torch.from_numpy(image[np.newaxis]))[0]))
                if report:
                    report("looking", done, len(images))
    finally:
        for handle in handles:
            handle.remove()
    return logits, [each.told() for each in seen]


class _Seen:
    """One quantizer: its tables, and counts of what came to it."""

    def __init__(self, name: str, chain: ActivationChain) -> None:
        assert chain.quantizer is not None  # noqa: S101 - quantised_chains selects by it
        self.name, self.chain, self.quantizer = name, chain, chain.quantizer
        self.folding = folding(name, chain)
        self.before, self.after = Histogram(), Histogram()
        self.codes = np.zeros(self.quantizer.top + 1, dtype=np.int64)
        self.differ = 0

    def note(self, _module: nn.Module, arguments: tuple[Tensor, ...], made: Codes) -> None:
        """When the chain has run: count what it was given, at both places, and its codes."""
        x, codes = arguments[0], made.codes.long()
        self._count(self.before, self.chain.before_quantizer(x))
        self.codes += np.bincount(codes.flatten().numpy(), minlength=len(self.codes))
        if self.folding.folded is None:
            return
        at = self.folding.seen(x)
        self._count(self.after, at)
        rows = at.transpose(0, 1).flatten(1).contiguous()
        table = torch.from_numpy(self.folding.folded).expand(len(rows), -1).contiguous()
        found = torch.searchsorted(table, rows, right=True)
        self.differ += int((found != codes.transpose(0, 1).flatten(1)).sum())

    def _count(self, histogram: Histogram, values: Tensor) -> None:
        try:
            histogram.add(values.numpy())
        except ValueError as error:
            raise ReportError(f"layer {self.name}: {error}; train the checkpoint again") from error

    def told(self) -> dict[str, Any]:
        """Plain data: ``table`` over ``before``; where a chain is folded, ``after`` it, too."""
        table, folded = self.folding.table, self.folding.folded
        told: dict[str, Any] = {
            "layer": self.name,
            "bits": self.quantizer.bits,
            "step": float(self.quantizer.step.detach()),
            "zero": int(self.quantizer.zero.detach()),
            "table": within_floats(table),
            "shares": shares(self.codes),
            "before": bars(self.before, table),
            "after": None,
        }
        if folded is not None:
            told["after"] = {
                **bars(self.after, folded),
                "taken": self.folding.taken,
                "left": self.folding.left,
                "channels": len(folded),
                "tables": tables_of_channels(folded),
                "compared": int(self.codes.sum()),
                "differ": self.differ,
            }
        return told


def weight_codes(network: nn.Module) -> list[dict[str, Any]]:
    """Of each quantised convolution: how often each weight code comes, and its scales."""
    return [_codes(name, c) for name, c in quantised_convolutions(network) if c.quantizer]


def _codes(name: str, conv: QuantConv2d) -> dict[str, Any]:
    frozen = conv.frozen()
    codes, counts = np.unique(frozen.codes.numpy(), return_counts=True)
    scale = frozen.scale.detach()
    return {
        "layer": name,
        "bits": conv.bits,
        "weights": int(counts.sum()),
        "codes": [int(code) for code in codes],
        "counts": [int(count) for count in counts],
        "scale_low": float(scale.min()),
        "scale_high": float(scale.max()),
    }


__all__ = ["look", "weight_codes"]
