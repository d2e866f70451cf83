"""Batch-norm statistics taken anew: after training, and after quantisation without training.

After training (:func:`reestimate`) they are averaged over images, each batch normalised by itself.
Those of a calibrated detector (:func:`align`) are the full-precision ones, moved as quantisation
moved the mean and the variance of what each layer normalises::

    slope' = slope / sqrt(g)            g = (v_q + G eps) / (v + eps)       G = sum v_q / sum v
    mean'  = m_q + (mean - m) * sqrt(g)

``slope`` is ``1 / sqrt(var + eps)``, ``m``, ``v`` are moments of the full-precision network and
``m_q``, ``v_q`` of the quantised one on the same images, ``eps`` is batch-norm's own, ``G`` the
layer's change of scale (SLR's values are logarithms, often a hundredth of their argument). Behind
batch-norm both then have the same mean, ``(m_q - mean') slope' = (m - mean) slope``, and the same
variance as far as ``eps`` is small beside ``v``; in ``g`` it keeps dead channels as they are. A
slope above ``1 / sqrt(eps)`` has no variance; there gamma takes the rest. That the images are few,
and others than those of the training, touches both networks alike and cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..models import Detector, quantised_chains, quantised_convolutions
from ..models.quantizers import WeightQuantizer

#: torch's own default, which a detector has when it is built.
MOMENTUM = 0.1


def reestimate(
    detector: Detector, batches: Iterable[Tensor], device: torch.device | None = None
) -> None:
    """Replace every batch-norm's mean and variance by their average over ``batches``.

    The network runs in training mode, so that each layer is normalised with the batch's own
    statistics and sees what the layers before it will hand on once they are set. Every batch weighs
    the same. The detector is left in training mode.

    Args:
        detector: its running statistics are replaced; quantizers go on observing their input.
        batches: images ``[n, 3, H, W]``, uint8, or floats holding 0..255.
        device: where the images go; by default they stay where they are.
    """
    norms = list(_norms(detector).values())
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    detector.train()
    with torch.no_grad():
        for batch in batches:
            detector(batch if device is None else batch.to(device))
    for norm in norms:
        norm.momentum = MOMENTUM


class Moments:
    """Mean and variance per channel of a stream of ``[n, C, H, W]``, summed in float64."""

    def __init__(self) -> None:
        self._count = 0
        self._sum, self._squares = torch.zeros((), dtype=torch.float64), torch.zeros(())

    def add(self, x: Tensor) -> None:
        """Count ``x`` in."""
        rows = x.double().transpose(0, 1).flatten(1)
        self._count += rows.shape[1]
        self._sum = self._sum + rows.sum(1)
        self._squares = self._squares + rows.square().sum(1)

    @property
    def mean(self) -> Tensor:
        """float64 ``[C]``."""
        return self._sum / self._count

    @property
    def variance(self) -> Tensor:
        """float64 ``[C]``, not negative."""
        return (self._squares / self._count - self.mean.square()).clamp_min(0.0)


class Normalisation(NamedTuple):
    """What a batch-norm does besides adding beta: each float64 ``[C]``."""

    mean: Tensor
    variance: Tensor
    gamma: Tensor

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> Normalisation:
        """A copy of ``norm``'s."""
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError("batch-norm without running statistics")
        mean, variance = norm.running_mean.double(), norm.running_var.double()
        return cls(mean, variance, norm.weight.detach().double())

    def moved(self, before: Moments, after: Moments, eps: float) -> Normalisation:
        """The same once what is normalised has changed; see the module's text."""
        scale = after.variance.sum() / before.variance.sum()
        if not bool(torch.isfinite(scale)) or float(scale) == 0:  # nothing varies
            scale = torch.ones_like(scale)
        grown = (after.variance + scale * eps) / (before.variance + eps)
        mean = after.mean + (self.mean - before.mean) * grown.sqrt()
        wanted = (self.variance + eps) * grown
        variance = (wanted - eps).clamp_min(0.0)
        return Normalisation(mean, variance, self.gamma * ((variance + eps) / wanted).sqrt())

    def set_on(self, norm: nn.BatchNorm2d) -> None:
        """Put these in place of ``norm``'s."""
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError("batch-norm without running statistics")
        norm.running_mean.copy_(self.mean)
        norm.running_var.copy_(self.variance)
        norm.weight.data.copy_(self.gamma)


@torch.no_grad()
def align(detector: Detector, source: Detector, batches: Iterable[Tensor]) -> None:
    """Set what batch-norm does in ``detector``, which is ``source`` quantised.

    Both networks run on each batch. While it runs, every layer of ``detector`` is normalised by
    statistics moved by this batch's own difference, so that the next layer reads what it will read
    in the end; the final ones follow from the sums over all images. One pass is enough, and nothing
    but these sums is kept. ``detector`` is left in evaluation mode.

    Args:
        detector: quantised; ranges and steps are not changed.
        source: full precision, of the same topology.
        batches: images ``[n, 3, H, W]``, uint8.
    """
    norms, originals = _norms(detector), _norms(source)
    start = {name: Normalisation.of(norm) for name, norm in originals.items()}
    before = {name: Moments() for name in norms}
    after = {name: Moments() for name in norms}
    batch_before: dict[str, Moments] = {}

    def see_source(name: str, x: Tensor) -> None:
        batch_before[name] = Moments()
        for moments in (before[name], batch_before[name]):
            moments.add(x)

    def see_quantised(name: str, x: Tensor) -> None:
        of_batch = Moments()
        for moments in (after[name], of_batch):
            moments.add(x)
        start[name].moved(batch_before[name], of_batch, norms[name].eps).set_on(norms[name])

    handles = [
        norm.register_forward_pre_hook(_on(name, see_source)) for name, norm in originals.items()
    ]
    handles += [
        norm.register_forward_pre_hook(_on(name, see_quantised)) for name, norm in norms.items()
    ]
    source.eval()
    _values_with_fixed_quantizers(detector)
    try:
        for batch in batches:
            source(batch)
            detector(batch)
    finally:
        for handle in handles:
            handle.remove()
    for name, norm in norms.items():
        start[name].moved(before[name], after[name], norm.eps).set_on(norm)
    detector.eval()


def _norms(network: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}


def _on(name: str, see: Callable[[str, Tensor], None]) -> Callable[[nn.Module, Any], None]:
    """A forward pre-hook that hands the layer's name and input to ``see``."""

    def hook(_module: nn.Module, arguments: Any) -> None:
        see(name, arguments[0])

    return hook


def _values_with_fixed_quantizers(detector: Detector) -> None:
    """Training's arithmetic on values, with nothing that observes, drops out or is learned."""
    detector.train()
    for norm in _norms(detector).values():
        norm.eval()
    for _, chain in quantised_chains(detector):
        if chain.quantizer is not None:
            chain.quantizer.eval()
    for _, conv in quantised_convolutions(detector):
        if isinstance(conv.quantizer, WeightQuantizer):
            conv.quantizer.eval()


__all__ = ["Moments", "Normalisation", "align", "reestimate"]
