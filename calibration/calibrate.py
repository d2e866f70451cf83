"""Post-training calibration: a full-precision detector to a quantised one, without training.

Three passes over the images, each reading them anew (see :mod:`.images`): one checks them, one
observes every layer's input (:mod:`.observe`), one moves batch-norm's statistics by what
quantisation changed (:mod:`.batch_norm`). In between, ranges follow from the histograms
(:mod:`.ranges`, :mod:`.slr_fit`) and weight steps from the weights (:mod:`.weight_steps`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch

from ..models import (
    Detector,
    DetectorConfig,
    ModelError,
    QuantConv2d,
    detector_from_config,
    quantised_chains,
    quantised_convolutions,
)
from ..models.checkpoint import load_weights
from ..models.histogram import Histogram
from ..models.quantizers import (
    ActivationQuantizer,
    LsqWeight,
    MinMaxActivation,
    SlrActivation,
)
from .batch_norm import align
from .errors import CalibrationError
from .images import CalibrationImages, Report
from .ranges import Method, Range, clipped_share
from .slr_fit import fit_slr
from .weight_steps import dead_channels, fit_weight_steps


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to calibrate to.

    Attributes:
        bits: width of weights and activations: 1, 2, 3, 4 or 8.
        method: how ranges are found; weights follow it (see :meth:`weight`).
        slr: put SLR before the uniform grid, its offset fitted.
        layer_bits: widths that differ from ``bits``, by layer.
    """

    bits: int
    method: Method = dataclasses.field(default_factory=Method)
    slr: bool = False
    layer_bits: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        widths = {self.bits, *(bits for _, bits in self.layer_bits)}
        if 1 in widths and len(widths) > 1:
            raise CalibrationError(
                "layers of 1 bit have a weight quantizer of their own (sign and mean) and cannot "
                "be mixed with wider ones; use widths of 2 bits or more, or --bits 1 alone"
            )

    @property
    def weight(self) -> str:
        """The weight quantizer: ``binary`` at 1 bit, ``minmax`` for that method, else ``lsq``.

        ``lsq`` here means its form only, an integer grid with a step per channel; the step is the
        one with the least squared error.
        """
        if self.bits == 1:
            return "binary"
        return "minmax" if self.method.name == "minmax" else "lsq"

    def config(self, source: DetectorConfig) -> DetectorConfig:
        """The calibrated detector's configuration; :class:`CalibrationError` if it has none."""
        try:
            return dataclasses.replace(
                source,
                bits=self.bits,
                activation="minmax",
                weight=self.weight,
                slr=self.slr,
                layer_bits=self.layer_bits,
            )
        except ModelError as error:
            raise CalibrationError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class LayerRange:
    """What calibration did to one layer.

    Attributes:
        layer: its name.
        bits: its width.
        values: numbers seen at its input; 0 for a layer that reads another one's codes.
        seen: smallest and largest of them, ``None`` likewise, as all below.
        low: smallest value that a code stands for (under SLR: start of the range).
        high: largest one.
        step: of the input, in its own units (under SLR: of the logarithm).
        clipped: share of the values outside ``low`` and ``high`` by more than half a step.
        offset: SLR's ``off``, ``None`` without SLR.
        tau: SLR's ``tau``.
        dead_channels: output channels whose weights are all zero.
    """

    layer: str
    bits: int
    values: int
    seen: tuple[float, float] | None
    low: float | None
    high: float | None
    step: float | None
    clipped: float | None
    offset: float | None
    tau: float | None
    dead_channels: int


def calibrate(
    source: Detector,
    observed: Mapping[str, Histogram],
    images: CalibrationImages,
    plan: Plan,
    report: Report | None = None,
) -> tuple[Detector, list[LayerRange]]:
    """A quantised detector, trainable and in evaluation mode, and what was done to each layer.

    Args:
        source: full precision; it is left as it is.
        observed: what :func:`.observe.observe` saw of it.
        images: to set batch-norm on; read once.
        plan: what to calibrate to.
        report: called with ``("batch-norm", done, total)``.

    Raises:
        CalibrationError: too few images for the method, or a plan that cannot be.
    """
    detector, layers = quantise(source, observed, plan)
    batches = (batch.images for batch in images.batches("batch-norm", report))
    align(detector, source, batches)
    return detector, layers


def quantise(
    source: Detector, observed: Mapping[str, Histogram], plan: Plan
) -> tuple[Detector, list[LayerRange]]:
    """As :func:`calibrate`, with the batch-norm statistics of ``source`` still in place."""
    check_enough(observed, plan)
    try:
        with torch.random.fork_rng(devices=()):  # its first weights are drawn, and thrown away
            detector = detector_from_config(plan.config(source.config))
        load_weights(detector, source)
    except ModelError as error:
        raise CalibrationError(str(error)) from error
    for _, conv in quantised_convolutions(detector):
        if isinstance(conv.quantizer, LsqWeight):
            fit_weight_steps(conv.quantizer, conv.latent())
    for name, chain in quantised_chains(detector):
        if chain.quantizer is not None:
            set_range(chain.quantizer, observed[name], plan.method)
    return detector, _layers(detector, observed)


def check_enough(observed: Mapping[str, Histogram], plan: Plan) -> None:
    """Raise :class:`CalibrationError` if a layer saw too few values for the method."""
    widths = dict(plan.layer_bits)
    for name, histogram in observed.items():
        needed = plan.method.needs(widths.get(name, plan.bits))
        if histogram.total < needed:
            raise CalibrationError(
                f"layer {name} saw {histogram.total:,} values on these images, and --method "
                f"{plan.method.name} needs {needed:,} to mean anything; give more or larger "
                "images, or use --method minmax"
            )


@torch.no_grad()
def set_range(quantizer: ActivationQuantizer, histogram: Histogram, method: Method) -> None:
    """Set a MinMax quantizer, alone or under SLR, to what ``method`` finds in ``histogram``."""
    if isinstance(quantizer, SlrActivation):
        _set_slr(quantizer, histogram, method)
    elif isinstance(quantizer, MinMaxActivation):
        _fill(quantizer, method.find(histogram, quantizer.bits))
    else:
        raise TypeError(f"{type(quantizer).__name__} has no range")


def _set_slr(quantizer: SlrActivation, histogram: Histogram, method: Method) -> None:
    search = method.name == "mse"
    given = (
        Range(histogram.low, histogram.high) if search else method.find(histogram, quantizer.bits)
    )
    fit = fit_slr(histogram, given, quantizer.bits, search_ends=search)
    largest = max(abs(histogram.low), abs(histogram.high))
    quantizer.running_max.fill_(largest)
    quantizer.seen.fill_(1.0)
    quantizer.tau.fill_(fit.offset - min(largest, quantizer.epsilon))
    offset = float(quantizer.offset.detach())  # as float32 tau gives it
    inner = quantizer.inner
    if not isinstance(inner, MinMaxActivation):
        raise TypeError(f"{type(inner).__name__} under SLR has no range")
    _fill(inner, Range(math.log(fit.low + offset), math.log(fit.high + offset)))


def _fill(quantizer: MinMaxActivation, found: Range) -> None:
    quantizer.low.fill_(found.low)
    quantizer.high.fill_(found.high)
    quantizer.seen.fill_(1.0)


def _layers(detector: Detector, observed: Mapping[str, Histogram]) -> list[LayerRange]:
    chains = dict(quantised_chains(detector))
    found = []
    for full_name, conv in quantised_convolutions(detector):
        name = full_name.removesuffix(".conv")
        chain = chains.get(name)
        if chain is not None and chain.quantizer is not None:
            found.append(_with_input(name, conv, chain.quantizer, observed[name]))
        elif name != "stem":
            dead = dead_channels(conv.latent())
            found.append(
                LayerRange(name, conv.bits, 0, None, None, None, None, None, None, None, dead)
            )
    return found


def _with_input(
    name: str, conv: QuantConv2d, quantizer: ActivationQuantizer, histogram: Histogram
) -> LayerRange:
    step, offset, tau = float(quantizer.step), None, None
    if isinstance(quantizer, SlrActivation) and isinstance(quantizer.inner, MinMaxActivation):
        offset, tau = float(quantizer.offset.detach()), float(quantizer.tau.detach())
        start = float(quantizer.inner.low)
        low, high = (math.exp(start + n * step) - offset for n in (0, quantizer.top))
        beyond = (math.exp(start - step / 2), math.exp(start + (quantizer.top + 0.5) * step))
        clipped = clipped_share(histogram, beyond[0] - offset, beyond[1] - offset)
    else:
        zero = float(quantizer.zero)
        low, high = -zero * step, (quantizer.top - zero) * step
        clipped = clipped_share(histogram, low - step / 2, high + step / 2)
    return LayerRange(
        layer=name,
        bits=quantizer.bits,
        values=histogram.total,
        seen=(histogram.low, histogram.high),
        low=low,
        high=high,
        step=step,
        clipped=clipped,
        offset=offset,
        tau=tau,
        dead_channels=dead_channels(conv.latent()),
    )


__all__ = ["LayerRange", "Plan", "calibrate", "check_enough", "quantise", "set_range"]
