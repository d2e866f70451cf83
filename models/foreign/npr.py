"""The published NPR detector's format: ``conv1, bn1, layer1.0.conv1 ..., fc1``.

Source: Tan et al., CVPR 2024, and their published network. It sees pixels normalised with
ImageNet's mean and deviation; the mean cancels in NPR, and the deviation is multiplied into the
stem's weights here (:mod:`..stem`), so that pixels stay integers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..config import DetectorConfig
from ..errors import ModelError
from ..npr_resnet import DEPTHS
from ..quantizers import FULL_PRECISION
from ..stem import IMAGENET_STD
from .account import Rule, norm_rules
from .format import Format
from .layout import Layout, layout_of, width_of

_PUBLISHED = Layout(DEPTHS, bottleneck=True)


class NprFormat(Format):
    """See the module's text."""

    name = "npr"
    # fc1 is what no other ResNet has.
    marks = ("conv1.weight", "layer1.0.conv1.weight", "fc1.weight")

    def config(self, tensors: Mapping[str, Tensor], bits: int | None) -> DetectorConfig:
        if bits not in (None, FULL_PRECISION):
            raise ModelError(
                f"a full-precision detector, not one of {bits} bits; import it without --bits, "
                "then calibrate it or train on from it"
            )
        found = layout_of(tensors)
        if found != _PUBLISHED:
            raise ModelError(f"{found}; the published NPR detector has {_PUBLISHED}")
        return DetectorConfig(
            "npr_resnet50", FULL_PRECISION, slr=False, cqb=False, width=width_of(tensors)
        )

    def rules(self, config: DetectorConfig, tensors: Mapping[str, Tensor]) -> dict[str, Rule]:
        rules = {
            "conv1.weight": Rule(
                "stem.conv.weight",
                convert=divided_by_std,
                note="divided by the pixels' std",
            ),
            **norm_rules("bn1", "stem.conv.bn"),
        }
        for stage, depth in enumerate(DEPTHS):
            for position in range(depth):
                theirs, ours = f"layer{stage + 1}.{position}", f"stages.{stage}.{position}"
                for number in (1, 2, 3):
                    conv = f"{ours}.conv{number}.conv"
                    rules[f"{theirs}.conv{number}.weight"] = Rule(f"{conv}.weight")
                    rules |= norm_rules(f"{theirs}.bn{number}", f"{conv}.bn")
                if position == 0:
                    rules[f"{theirs}.downsample.0.weight"] = Rule(f"{ours}.downsample.weight")
                    rules |= norm_rules(f"{theirs}.downsample.1", f"{ours}.downsample.bn")
        rules["fc1.weight"] = Rule("head.fc.weight")
        rules["fc1.bias"] = Rule("head.fc.bias")
        return rules

    def drop_reason(self, key: str, tensor: Tensor) -> str | None:
        return None  # nothing in a published file is left out

    def initial_reason(self, ours: str) -> str:
        if ours == "stem.gain":
            return "a constant: 2/3 of a pixel's share of 255"
        return "not in the file; it only counts batches"

    def notes(self, tensors: Mapping[str, Tensor]) -> list[str]:
        return []


def divided_by_std(weight: Tensor) -> Tensor:
    """A stem's weight ``[C, 3, k, k]`` on normalised pixels, for pixels scaled to 0..1."""
    return weight / torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1)
