"""Which layer of a full-precision detector loses how much at which width.

Each layer, by the name that ``layer_bits`` gives it, is quantised alone: its weights, and the
codes that it reads. (A downsampling convolution reads the codes of the block's first one, so it is
its weights alone; and the first one's activations are coarser for both.) Three measures over the
same images: the mean squared change of the logit, the change of the binary cross-entropy, and the
change of the accuracy.

Behind a calibrated convolution the statistics of batch-norm are set anew (:mod:`.batch_norm`); here
those that the one layer touches are, in the same way.

What it costs: ranges come from the histograms of one pass; one pass computes each convolution once
more for every width, for the moments; and one pass runs the rest of the network from the layer's
block on for every layer and width: about half a forward pass each. Memory is that of one batch and
the inputs of the blocks for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models import ActivationChain, Detector, QuantConv2d, quantised_convolutions
from ..models.histogram import Histogram
from ..models.quantizers import (
    ActivationQuantizer,
    LsqWeight,
    WeightQuantizer,
    build_activation,
    build_weight,
    per_channel,
)
from .batch_norm import Moments, Normalisation
from .calibrate import Plan, check_enough, set_range
from .images import CalibrationImages, Report
from .mixture import packed_bytes
from .observe import activation_chains
from .weight_steps import fit_weight_steps


@dataclasses.dataclass(frozen=True)
class Loss:
    """What one layer at one width costs, on the images measured.

    Attributes:
        layer: its name.
        bits: width of its weights, and of the codes it reads.
        weights: number of its weights.
        packed_bytes: what they take at this width.
        logit_mse: mean squared change of the logit.
        bce: change of the mean binary cross-entropy (nats).
        acc: change of the accuracy, 0..1.
    """

    layer: str
    bits: int
    weights: int
    packed_bytes: int
    logit_mse: float
    bce: float
    acc: float


class Score:
    """Running sums over images: logits against labels and against reference logits."""

    def __init__(self) -> None:
        self.images, self._squares, self._bce, self._correct = 0, 0.0, 0.0, 0

    def add(self, logits: Tensor, reference: Tensor, labels: Tensor) -> None:
        """Logits, reference logits and labels, each ``[n]``."""
        wide = logits.double()
        self.images += len(logits)
        self._squares += float((wide - reference.double()).square().sum())
        bce = F.binary_cross_entropy_with_logits(wide, labels.double(), reduction="sum")
        self._bce += float(bce)
        self._correct += int(((logits > 0) == (labels > 0.5)).sum())

    @property
    def logit_mse(self) -> float:
        """Mean squared difference to the reference."""
        return self._squares / self.images

    @property
    def bce(self) -> float:
        """Mean binary cross-entropy."""
        return self._bce / self.images

    @property
    def acc(self) -> float:
        """Accuracy."""
        return self._correct / self.images


class _Variant:
    """One layer at one width: its quantizer, its weights, and the batch-norms it moves."""

    def __init__(
        self,
        layer: str,
        bits: int,
        quantizer: ActivationQuantizer | None,
        weight: Tensor,
        readers: Sequence[str],
    ) -> None:
        self.layer, self.bits = layer, bits
        self.quantizer, self.weight = quantizer, weight
        #: Convolutions whose output changes: the layer's own first.
        self.readers = list(readers)
        self.moments = {name: Moments() for name in self.readers}
        self.score = Score()

    def values(self, x: Tensor) -> Tensor:
        """What the layer reads in place of ``x``."""
        if self.quantizer is None:
            return x
        codes = self.quantizer.encode(x)
        return codes.centred() * codes.step


class _Network:
    """A full-precision detector taken apart: blocks in order, chains and convolutions by name."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector.eval()
        self.blocks: list[tuple[str, nn.Module]] = []
        for index, stage in enumerate(detector.stages):
            if isinstance(stage, nn.Sequential):
                self.blocks += [(f"stages.{index}.{n}", b) for n, b in enumerate(stage)]
            else:
                self.blocks.append((f"stages.{index}", stage))
        self.chains: dict[str, ActivationChain] = dict(activation_chains(detector))
        self.convs: dict[str, QuantConv2d] = {
            name.removesuffix(".conv"): conv
            for name, conv in quantised_convolutions(detector)
            if not name.startswith("stem.")
        }
        self.readers = self._readers()

    def _readers(self) -> dict[str, list[str]]:
        """Which convolutions read each chain, found by running an image."""
        made: dict[int, str] = {}
        found: dict[str, list[str]] = {name: [] for name in self.chains}
        kept: list[Tensor] = []  # alive until the end, so that no two have one id
        handles = []

        def note(name: str, out: Tensor) -> None:
            kept.append(out)
            made[id(out)] = name

        def read(name: str, x: Tensor) -> None:
            if id(x) in made:
                found[made[id(x)]].append(name)

        for name, chain in self.chains.items():
            handles.append(
                chain.register_forward_hook(lambda _m, _a, out, name=name: note(name, out))
            )
        for name, conv in self.convs.items():
            handles.append(
                conv.register_forward_pre_hook(lambda _m, args, name=name: read(name, args[0]))
            )
        with torch.no_grad():
            self.detector(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
        for handle in handles:
            handle.remove()
        return found

    def block_of(self, layer: str) -> int:
        """Index of the block that holds ``layer``."""
        for index, (name, _) in enumerate(self.blocks):
            if layer == name or layer.startswith(f"{name}."):
                return index
        raise ValueError(f"no block holds {layer}")

    def inputs(self, images: Tensor) -> list[Tensor]:
        """What each block reads, and last what the head reads."""
        x = self.detector.stem(images)
        found = [x]
        for _, block in self.blocks:
            found.append(block(found[-1]))
        return found

    def logits_from(self, index: int, x: Tensor) -> Tensor:
        """Logits from block ``index`` on, whose input is ``x``."""
        for _, block in self.blocks[index:]:
            x = block(x)
        logits: Tensor = self.detector.head(x)
        return logits


def measure(
    detector: Detector,
    observed: Mapping[str, Histogram],
    images: CalibrationImages,
    plans: Sequence[Plan],
    report: Report | None = None,
) -> tuple[list[Loss], Score]:
    """The loss of every layer at the width of every plan, and the full-precision score.

    Args:
        detector: full precision.
        observed: what :func:`.observe.observe` saw of it.
        images: to measure on; read twice.
        plans: one for each width; their ``layer_bits`` are not looked at.
        report: called with what is being done, images done and their number.

    Raises:
        CalibrationError: too few images for a method.
    """
    network = _Network(detector)
    with torch.no_grad():
        variants = [v for plan in plans for v in _variants(network, observed, plan)]
        reference = _collect_moments(network, variants, images, report)
        score = Score()
        for images_, labels in images.batches("measuring", report):
            inputs = network.inputs(images_)
            logits = network.logits_from(len(network.blocks), inputs[-1])
            score.add(logits, logits, labels)
            for variant in variants:
                block = network.block_of(variant.layer)
                with _quantised(network, variant, reference):
                    changed = network.logits_from(block, inputs[block])
                variant.score.add(changed, logits, labels)
    losses = [_loss(network.convs[v.layer], v, score) for v in variants]
    return losses, score


def _loss(conv: QuantConv2d, variant: _Variant, reference: Score) -> Loss:
    weights = int(np.prod(conv.weight_shape))
    return Loss(
        layer=variant.layer,
        bits=variant.bits,
        weights=weights,
        packed_bytes=packed_bytes(weights, variant.bits),
        logit_mse=variant.score.logit_mse,
        bce=variant.score.bce - reference.bce,
        acc=variant.score.acc - reference.acc,
    )


def _variants(
    network: _Network, observed: Mapping[str, Histogram], plan: Plan
) -> Iterator[_Variant]:
    check_enough(observed, plan)
    for name, conv in network.convs.items():
        quantizer, readers = None, [name]
        if name in network.chains:
            quantizer = build_activation("minmax", plan.bits, plan.slr).eval()
            set_range(quantizer, observed[name], plan.method)
            readers += [reader for reader in network.readers[name] if reader != name]
        weight = _quantised_weight(build_weight(plan.weight, plan.bits, conv.latent()), conv)
        yield _Variant(name, plan.bits, quantizer, weight, readers)


def _quantised_weight(quantizer: WeightQuantizer, conv: QuantConv2d) -> Tensor:
    latent = conv.latent().detach()
    if isinstance(quantizer, LsqWeight):
        fit_weight_steps(quantizer, latent)
    codes, scale = quantizer.freeze(latent)
    return codes.to(latent.dtype) * per_channel(scale, latent)


def _collect_moments(
    network: _Network,
    variants: Sequence[_Variant],
    images: CalibrationImages,
    report: Report | None,
) -> dict[str, Moments]:
    """Mean and variance behind each convolution: in full precision (returned), and by variant."""
    reference = {name: Moments() for name in network.convs}
    by_reader: dict[str, list[_Variant]] = {name: [] for name in network.convs}
    for variant in variants:
        for reader in variant.readers:
            by_reader[reader].append(variant)

    def hook(name: str, x: Tensor) -> None:
        conv = network.convs[name]
        reference[name].add(conv._convolve(x, conv.latent()))
        for variant in by_reader[name]:
            weight = variant.weight if variant.layer == name else conv.latent()
            variant.moments[name].add(conv._convolve(variant.values(x), weight))

    handles = [
        conv.register_forward_pre_hook(lambda _m, args, name=name: hook(name, args[0]))
        for name, conv in network.convs.items()
    ]
    try:
        for batch in images.batches("moments", report):
            network.detector(batch.images)
    finally:
        for handle in handles:
            handle.remove()
    return reference


@contextlib.contextmanager
def _quantised(
    network: _Network, variant: _Variant, reference: Mapping[str, Moments]
) -> Iterator[None]:
    """While open, the network computes ``variant``."""
    weight = network.convs[variant.layer].latent().data
    kept = weight.clone()
    weight.copy_(variant.weight)
    norms = {name: network.convs[name].bn for name in variant.readers}
    held = {name: Normalisation.of(norm) for name, norm in norms.items()}
    for name, norm in norms.items():
        held[name].moved(reference[name], variant.moments[name], norm.eps).set_on(norm)
    chain = network.chains.get(variant.layer)
    handle = chain and chain.register_forward_hook(lambda _m, _a, out: variant.values(out))
    try:
        yield
    finally:
        if handle:
            handle.remove()
        weight.copy_(kept)
        for name, norm in norms.items():
            held[name].set_on(norm)


__all__ = ["Loss", "Score", "measure"]
