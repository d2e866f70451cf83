"""A bundle's estimate for a target: everything that ``qmdd estimate`` reports."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ..runtime.bundle import Bundle
from .devices import Device, Fact, Mode, find_device
from .errors import ExportError
from .roofline import Estimate, Roofs, assumptions, estimate, roofs_of
from .targets import TARGETS, Target, find_target
from .workload import layers_of_file

#: Said wherever a figure of this module stands.
LABEL = "estimated"


@dataclasses.dataclass(frozen=True)
class BundleEstimate:
    """The estimates of one bundle on one device.

    Attributes:
        bundle: its folder.
        network: what it holds, in words.
        target: its full name.
        device: with its data.
        mode: the power mode.
        roofs: that follow from the two.
        side: of the images, pixels.
        estimates: one for each precision asked for, in the order of :data:`.devices.PRECISIONS`.
        left_out: precisions of ``all`` that do not apply, and why.
        notes: what else must be known.
    """

    bundle: Path
    network: str
    target: str
    device: Device
    mode: Mode
    roofs: Roofs
    side: int
    estimates: tuple[Estimate, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def assumptions(self) -> list[str]:
        """What the figures rest on."""
        return assumptions(self.roofs, self.side, self.estimates[0].batch)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "label": LABEL,
            "bundle": str(self.bundle),
            "network": self.network,
            "target": self.target,
            "device": {
                "name": self.device.name,
                "title": self.device.title,
                "architecture": self.device.architecture.name,
                "mode": self.mode.name,
                "facts": {name: dataclasses.asdict(fact) for name, fact in self.facts().items()},
            },
            "side": self.side,
            "assumptions": self.assumptions,
            "notes": list(self.notes),
            "left_out": list(self.left_out),
            "estimates": [found.to_dict() for found in self.estimates],
        }

    def facts(self) -> dict[str, Fact]:
        """The numbers of the device that the estimate uses."""
        return {
            "multiprocessors": self.device.multiprocessors,
            "clock_mhz": self.mode.clock_mhz,
            "bandwidth_gb_s": self.mode.bandwidth,
            "cache_mib": self.device.cache_mib,
            "memory_gb": self.device.memory_gb,
            **{
                f"operations_per_clock_{width}": fact
                for width, fact in self.device.architecture.per_clock.items()
            },
        }


def estimate_bundle(
    path: Path,
    target: str | None = None,
    *,
    precision: str = "all",
    side: int = 256,
    batch: int = 1,
    mode: str | None = None,
) -> BundleEstimate:
    """Estimate the bundle in folder ``path`` on the device of ``target``.

    Args:
        path: a bundle of any target.
        target: a name of :data:`.targets.TARGETS`, or a module's name alone; by default the one
            that the bundle was exported for.
        precision: one of :data:`.devices.PRECISIONS`, or ``all`` that apply.
        side: of the images, pixels; within what the bundle takes.
        batch: images at a time.
        mode: power mode; by default the fastest that the target's JetPack has.

    Raises:
        BundleError: the bundle is missing or damaged.
        ExportError: no such target, precision or mode, or no data of the device.
    """
    bundle = Bundle.open(path)
    found = target_with_device(target or bundle.target)
    device = find_device(str(found.device))
    chosen = device.mode(mode, found.jetpack)
    roofs = roofs_of(device, chosen)
    _check_side(bundle, side)
    _check_form(bundle)
    layers = layers_of_file(bundle.model_path, side)
    estimates, left_out = [], []
    for width in _asked(precision, device):
        try:
            estimates.append(estimate(layers, roofs, width, batch))
        except ExportError as error:
            if precision != "all":
                raise
            left_out.append(f"{width}: {error}")
    bundle.check_unchanged()
    bits = "full precision" if bundle.bits == _FULL_PRECISION else f"{bundle.bits} bits"
    refused = (f"not a target to export for: {found.refused}",) if found.refused else ()
    return BundleEstimate(
        bundle=path,
        network=f"{bundle.arch}, {bits}, lowered for {bundle.target}",
        target=found.name,
        device=device,
        mode=chosen,
        roofs=roofs,
        side=side,
        estimates=tuple(estimates),
        left_out=tuple(left_out),
        notes=(*device.notes, *refused),
    )


_FULL_PRECISION = 32


def target_with_device(name: str) -> Target:
    """The target called ``name``, refused ones included, if there is data of its device.

    Raises:
        ExportError: no such target, or one that stands for no single device.
    """
    found = TARGETS[name] if name in TARGETS else find_target(name)
    if found.device is None:
        with_data = dict.fromkeys(t.name.partition("@")[0] for t in TARGETS.values() if t.device)
        raise ExportError(
            f"target {name} stands for no single device, so there is nothing to estimate it with; "
            f"choose another --target: there is data for {', '.join(with_data)}"
        )
    return found


def _asked(precision: str, device: Device) -> tuple[str, ...]:
    if precision == "all":
        return device.precisions
    if precision not in device.precisions:
        raise ExportError(
            f"{device.title} ({device.architecture.name}) does not compute in {precision}; "
            f"it has {', '.join(device.precisions)}"
        )
    return (precision,)


def _check_form(bundle: Bundle) -> None:
    lowered = TARGETS.get(bundle.target)
    if lowered is not None and lowered.form == "cpu":
        raise ExportError(
            f"{bundle.path}: lowered for CPUs, whose kernels are no GPU's; export the checkpoint "
            "for the device itself, or with --target onnx, and estimate that bundle"
        )


def _check_side(bundle: Bundle, side: int) -> None:
    low, multiple, high = (
        bundle.manifest["input"][n] for n in ("min_side", "multiple", "max_side")
    )
    if not low <= side <= high or side % multiple:
        raise ExportError(
            f"side {side}: this bundle takes images of {low} to {high} pixels a side in steps of "
            f"{multiple}"
        )
