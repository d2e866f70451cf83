"""What a full-precision detector's quantizers would read, seen once, kept as histograms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..models import ActivationChain, Detector
from ..models.checkpoint import LATENT, Checkpoint
from ..models.histogram import Histogram
from .errors import CalibrationError
from .images import CalibrationImages, Report


def full_precision(checkpoint: Checkpoint) -> Detector:
    """The detector of a full-precision latent checkpoint, in evaluation mode.

    Raises:
        CalibrationError: it is frozen or quantised.
        CheckpointError: it is damaged, or holds NaN.
    """
    config = checkpoint.config
    if checkpoint.form != LATENT or config.quantized:
        held = "a frozen checkpoint" if checkpoint.form != LATENT else "a trainable one"
        raise CalibrationError(
            f"{checkpoint.path}: {held} of {config.bits} bits, and calibration starts from full "
            "precision: give it the latent checkpoint of qmdd train --bits 32"
        )
    return checkpoint.detector()


def activation_chains(network: nn.Module) -> list[tuple[str, ActivationChain]]:
    """Every chain before a convolution, by the name that ``layer_bits`` gives its layer.

    With a quantizer or without. A chain that closes a block (N2UQ's networks) never has one, and is
    none of a layer's.
    """
    return [
        (name.removesuffix(".act"), module)
        for name, module in network.named_modules()
        if isinstance(module, ActivationChain) and name.endswith(".act")
    ]


def observe(
    detector: Detector, images: CalibrationImages, report: Report | None = None
) -> dict[str, Histogram]:
    """A histogram of each layer's input to its (future) quantizer, by layer, over all images.

    Args:
        detector: full precision; it runs in evaluation mode.
        images: read once.
        report: called with ``("observing", done, total)``.

    Raises:
        CalibrationError: NaN or infinity reaches a layer.
    """
    found: dict[str, Histogram] = {}
    handles = []
    for name, chain in activation_chains(detector):
        found[name] = Histogram()
        handles.append(chain.register_forward_hook(_counting(name, found[name])))
    detector.eval()
    try:
        with torch.no_grad():
            for batch in images.batches("observing", report):
                detector(batch.images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _counting(name: str, histogram: Histogram) -> Callable[[nn.Module, object, Tensor], None]:
    def hook(_module: nn.Module, _arguments: object, values: Tensor) -> None:
        try:
            histogram.add(values.numpy())
        except ValueError as error:
            raise CalibrationError(
                f"layer {name}: {error} that reach it; the checkpoint's weights are out of hand: "
                "train it again"
            ) from error

    return hook


__all__ = ["activation_chains", "full_precision", "observe"]
