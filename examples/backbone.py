"""A backbone of one's own: four connected quantised convolutions, no residual blocks.

A network of the project's layers can be exported as it is::

    qmdd export --module examples.backbone:network -o bundle

To train it by name it has to be known by name: :func:`register` says what that takes.
"""

from __future__ import annotations

import torch
from torch import nn

from qmdd.models import Detector, DetectorConfig, Head, Stem, build_detector, config, registry
from qmdd.models.detector import cqb

WIDTHS = (64, 128, 256, 512)


class PlainDetector(Detector):
    """Stem, four 3x3 convolutions that halve the image's sides, head."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        channels = config.channels(WIDTHS[0])
        self.stem = Stem(
            channels,
            quantized=config.quantized,
            representation=config.representation,
            std=config.std,
        )
        stages: list[nn.Module] = []
        for index, width in enumerate(WIDTHS):
            planes = config.channels(width)
            # The name is what a layer's own width is asked for by (--layer-bits).
            stages.append(cqb(config, f"stages.{index}", channels, planes, 3, stride=2))
            channels = planes
        self.stages = nn.Sequential(*stages)
        self.head = Head(channels, quantized=config.quantized)


def register() -> None:
    """Make ``plain`` a name.

    In the project these are a line in models/config.py, one in models/registry.py and one in
    cli/options.py. Nothing else knows how a network is built: freezing, tracing, parity and
    counting look for the layers, wherever they stand.
    """
    if "plain" not in config.ARCHITECTURES:
        config.ARCHITECTURES = (*config.ARCHITECTURES, "plain")
        registry._BUILDERS["plain"] = PlainDetector


def network(**options: object) -> Detector:
    """A narrow one with its first weights, in evaluation mode."""
    register()
    torch.manual_seed(0)
    return build_detector("plain", **{"bits": 2, "width": 0.125, **options}).eval()  # type: ignore[arg-type]
