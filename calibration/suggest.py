"""A mixed-precision suggestion for a size budget, and what it really loses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from ..models import Detector, quantised_convolutions
from ..models.stem import STEM_BITS
from .calibrate import Plan, calibrate
from .images import Report
from .mixture import Choice, Mixture, best_mixture, packed_bytes
from .sensitivity import Loss, Score
from .session import Session


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """Widths for a budget.

    Attributes:
        layer_bits: of every layer, by name.
        packed_bytes: of all weights, the stem's 8-bit ones among them.
        predicted: sum of the layers' own losses, mean squared change of the logit.
        measured: calibrated at these widths, on the same images.
        uniform: the widest single width within the budget and its own measurement, if any fits.
    """

    layer_bits: dict[str, int]
    packed_bytes: int
    predicted: float
    measured: Score
    uniform: tuple[int, int, Score] | None


def stem_bytes(detector: Detector) -> int:
    """Bytes of the stem's weights, whose width is fixed."""
    stem = [c for name, c in quantised_convolutions(detector) if name.startswith("stem.")]
    return sum(packed_bytes(math.prod(conv.weight_shape), STEM_BITS) for conv in stem)


def suggest(losses: Sequence[Loss], budget: int, fixed: int) -> Mixture:
    """The mixture with the least sum of mean squared logit changes within ``budget`` bytes.

    Errors of different layers are taken to add up, which they do while they are small and
    independent; :func:`check` measures what they really do.

    Args:
        losses: of every layer at every width.
        budget: bytes of all packed weights.
        fixed: how many of them are spent already.

    Raises:
        CalibrationError: the narrowest widths take more than the budget.
    """
    choices: dict[str, list[Choice]] = {}
    for loss in sorted(losses, key=lambda found: found.bits):
        choice = Choice(loss.bits, loss.packed_bytes, loss.logit_mse)
        choices.setdefault(loss.layer, []).append(choice)
    found = best_mixture(choices, budget, fixed)
    return found._replace(size=found.size + fixed)


def check(
    session: Session, mixture: Mixture, losses: Sequence[Loss], plan: Plan, report: Report
) -> Suggestion:
    """Calibrate at the mixture, and at the widest single width of its size; measure both.

    Args:
        session: checkpoint, images and histograms.
        mixture: what :func:`suggest` found.
        losses: what it was found from.
        plan: method and SLR; its widths are not looked at.
        report: called with what is being done, images done and their number.
    """
    mixed = _measured(session, plan, dict(mixture.bits), report)
    uniform = None
    fixed = stem_bytes(session.detector)
    for bits in sorted({loss.bits for loss in losses}, reverse=True):
        size = fixed + sum(loss.packed_bytes for loss in losses if loss.bits == bits)
        if size <= mixture.size:
            same = dict.fromkeys(mixture.bits, bits)
            uniform = (bits, size, _measured(session, plan, same, report))
            break
    return Suggestion(dict(mixture.bits), mixture.size, mixture.loss, mixed, uniform)


def _measured(session: Session, plan: Plan, widths: dict[str, int], report: Report) -> Score:
    most = max(widths.values())
    others = tuple(sorted((name, bits) for name, bits in widths.items() if bits != most))
    chosen = dataclasses.replace(plan, bits=most, layer_bits=others)
    detector, _ = calibrate(session.detector, session.observed, session.images, chosen, report)
    score = Score()
    with torch.no_grad():
        for images, labels in session.images.batches("checking the widths", report):
            score.add(detector(images), session.detector(images), labels)
    return score


__all__ = ["Suggestion", "check", "stem_bytes", "suggest"]
