"""What a network costs, per layer and in total: parameters, multiply-adds, OPs, stored bytes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .config import DetectorConfig
from .conventions import CONVENTIONS, DEFAULT, layer_ops, total_ops
from .detector import Detector
from .elementwise import counted
from .errors import ModelError
from .registry import build_detector, detector_from_config
from .stats import LayerStats, with_widths
from .storage import Stored, bytes_by_kind, stored_numbers

#: Side of the image for which operations are counted, the paper's.
SIDE = 256
#: Name of the row for what belongs to no convolution or linear layer.
REST = "(the rest)"


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """One row: a convolution or linear layer with its batch-norm and the chain before it.

    Attributes:
        name: dotted name; :data:`REST` for what belongs to none.
        kind: ``conv``, ``depthwise``, ``linear``, empty for :data:`REST`.
        weight_bits: width of its weights, 0 for :data:`REST`.
        code_bits: width of what it reads, likewise.
        shape: of its output without the batch.
        parameters: learned numbers but the quantizers' own, as in :func:`.stats.parameters`.
        multiply_adds: for one image.
        ops: by the convention of Table 4 (:mod:`.conventions`).
        bytes: all it stores, in theory (:mod:`.storage`).
    """

    name: str
    kind: str
    weight_bits: int
    code_bits: int
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    ops: float
    bytes: int


@dataclasses.dataclass(frozen=True)
class NetworkCost:
    """A network's rows in the order in which they run; every total is the sum of its column.

    Attributes:
        name: of the network.
        bits: width of its weights, 32 in full precision.
        config: what it was built from, ``None`` for a network of the user's own.
        side: of the image, pixels.
        layers: its rows.
        bytes_by_kind: what is stored, by :data:`.storage.KINDS`.
        bops: OPs by the convention FLOPs + BOPs/64, for comparison with binary networks.
        elementwise: float operations outside convolutions, which OPs leave out.
    """

    name: str
    bits: int
    config: DetectorConfig | None
    side: int
    layers: tuple[LayerCost, ...]
    bytes_by_kind: dict[str, int]
    bops: float
    elementwise: int

    @property
    def parameters(self) -> int:
        """Of the full-precision twin: what quantizers learn is left out."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """For one image of ``side`` pixels."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def ops(self) -> float:
        """By the convention of Table 4."""
        return sum(layer.ops for layer in self.layers)

    @property
    def bytes(self) -> int:
        """Stored, in theory."""
        return sum(layer.bytes for layer in self.layers)

    def to_dict(self, *, layers: bool = False) -> dict[str, Any]:
        """Plain data for JSON; ``ops_bops`` is FLOPs + BOPs/64, for comparison with others."""
        total = {
            "name": self.name,
            "bits": self.bits,
            "side": self.side,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "ops": self.ops,
            "ops_bops": self.bops,
            "elementwise": self.elementwise,
            "bytes": self.bytes,
            "bytes_by_kind": self.bytes_by_kind,
        }
        if layers:
            total["layers"] = [dataclasses.asdict(layer) for layer in self.layers]
        return total


def network_cost(network: nn.Module, name: str, bits: int, side: int = SIDE) -> NetworkCost:
    """Count ``network``, which is neither run nor changed; it may lie on torch's meta device."""
    return _cost(network, name, bits, side, *counted(network, side))


def config_cost(config: DetectorConfig, side: int = SIDE) -> NetworkCost:
    """Count the detector that ``config`` describes."""
    with torch.device("meta"):
        network = detector_from_config(config)
    return network_cost(network, config.arch, config.bits, side)


def costs_by_width(
    arch: str, widths: Iterable[int], side: int = SIDE, **topology: Any
) -> Iterator[NetworkCost]:
    """The built-in architecture ``arch`` at each of ``widths``.

    Args:
        arch: one of :data:`.config.ARCHITECTURES`.
        widths: of weights and activations, 32 for full precision.
        side: of the image, pixels.
        topology: further fields of :class:`.config.DetectorConfig`.

    Raises:
        ModelError: an unsupported value.
    """
    layers: list[LayerStats] = []
    elementwise = 0
    for bits in widths:
        with torch.device("meta"):
            network = build_detector(arch, bits, **topology)
        if not layers:  # what is computed does not depend on the width: run once
            layers, elementwise = counted(network, side)
        yield _cost(network, arch, bits, side, with_widths(layers, network), elementwise)


def config_of_manifest(manifest: Mapping[str, Any], where: Path) -> DetectorConfig:
    """The configuration that a bundle's manifest names as its source's.

    Raises:
        ModelError: it names none (a network of the user's own), or an unusable one.
    """
    source = manifest.get("source")
    config = source.get("config") if isinstance(source, dict) else None
    if config is None:
        raise ModelError(
            f"{where}: its manifest does not say how its network is built (it was exported with "
            "--module); count the network itself with --module"
        )
    try:
        return DetectorConfig.from_json(json.dumps(config))
    except (ModelError, TypeError) as error:
        raise ModelError(f"{where}: its manifest: {error}") from error


def _cost(
    network: nn.Module,
    name: str,
    bits: int,
    side: int,
    layers: list[LayerStats],
    elementwise: int,
) -> NetworkCost:
    stored = stored_numbers(network)
    return NetworkCost(
        name,
        bits,
        network.config if isinstance(network, Detector) else None,
        side,
        tuple(_rows(layers, stored)),
        bytes_by_kind(stored),
        total_ops(layers, CONVENTIONS["bops"]),
        elementwise,
    )


def _rows(layers: list[LayerStats], stored: list[Stored]) -> list[LayerCost]:
    """A layer that runs twice is a row each time; what it stores stands in the first."""
    held: dict[str, list[Stored]] = {}
    blocks = {layer.name.removesuffix(".conv").removesuffix(".fc"): layer.name for layer in layers}
    for item in stored:
        held.setdefault(_row_of(item.owner, blocks), []).append(item)
    rows = []
    for layer in layers:
        own = held.pop(layer.name, [])
        rows.append(
            LayerCost(
                layer.name,
                layer.kind,
                layer.weight_bits,
                layer.code_bits,
                layer.shape,
                sum(item.numbers for item in own if item.parameter),
                layer.multiply_adds,
                layer_ops(layer, DEFAULT),
                sum(item.bytes for item in own),
            )
        )
    rest = [item for items in held.values() for item in items]
    if rest:
        learned = sum(item.numbers for item in rest if item.parameter)
        size = sum(item.bytes for item in rest)
        rows.append(LayerCost(REST, "", 0, 0, (), learned, 0, 0.0, size))
    return rows


def _row_of(owner: str, blocks: dict[str, str]) -> str:
    """The row of the innermost block that holds the module ``owner``."""
    while owner:
        if owner in blocks:
            return blocks[owner]
        owner = owner.rpartition(".")[0]
    return REST
