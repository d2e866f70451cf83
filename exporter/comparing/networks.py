"""Two networks, number by number: weight codes, thresholds, and everything else."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...models import quantised_chains, quantised_convolutions
from ...models.checkpoint import tables
from ...models.quantizers import FULL_PRECISION

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution, and the quantizer before it.

    Attributes:
        shape: of its weight, ``[C_out, C_in / groups, k, k]``.
        bits: width of its weights, 32 in full precision.
        activation_bits: width of the codes that it reads; ``None`` where no quantizer is.
        weights: its integer codes, or floats in full precision.
        scales: float32 ``[C_out]``; ``None`` in full precision.
        table: thresholds of its quantizer float32 ``[codes - 1]``; ``None`` where there is none.
    """

    shape: tuple[int, ...]
    bits: int
    activation_bits: int | None
    weights: Array
    scales: Array | None
    table: Array | None


def layers_of(network: nn.Module) -> dict[str, Layer]:
    """The convolutions of ``network`` by name, in its order; frozen or latent alike."""
    found_tables = tables(network)
    chains = dict(quantised_chains(network))
    layers = {}
    for name, conv in quantised_convolutions(network):
        layer = name.removesuffix(".conv")
        chain = chains.get(layer)
        if conv.quantizer is None:
            weights, scales = conv.latent().detach().cpu().numpy(), None
        else:
            frozen = conv.frozen()
            weights = frozen.codes.detach().cpu().numpy()
            scales = frozen.scale.detach().cpu().numpy().reshape(-1)
        bits = chain.quantizer.bits if chain is not None and chain.quantizer is not None else None
        layers[layer] = Layer(
            conv.weight_shape,
            conv.bits if conv.quantizer is not None else FULL_PRECISION,
            bits,
            weights,
            scales,
            found_tables.get(layer),
        )
    return layers


def compare_networks(a: nn.Module, b: nn.Module) -> dict[str, Any]:
    """Layer by layer, plain data.

    Returns:
        ``layers``: of each layer of either, ``shape``, ``bits``, ``activation_bits`` of both, and
        of ``weights``, ``scales`` and ``thresholds`` their number and how many are ``different``
        (``None`` where there is nothing to compare: another shape or width, or one has none);
        ``rest``: the same of all other numbers of the networks; ``same``: whether all of it is.
    """
    one, other = layers_of(a), layers_of(b)
    rows = [_row(name, one.get(name), other.get(name)) for name in dict.fromkeys((*one, *other))]
    rest = _rest(a, b)
    return {
        "layers": rows,
        "rest": rest,
        "same": all(row["same"] for row in rows) and rest["different"] == 0,
    }


def _row(name: str, a: Layer | None, b: Layer | None) -> dict[str, Any]:
    both = {"a": a, "b": b}
    row: dict[str, Any] = {"layer": name}
    for what in ("shape", "bits", "activation_bits"):
        row[what] = {
            side: getattr(layer, what) if layer is not None else None
            for side, layer in both.items()
        }
    row |= {"weights": None, "scales": None, "thresholds": None, "same": False}
    if a is None or b is None:
        return row
    alike = (a.shape, a.bits) == (b.shape, b.bits)
    if alike:
        row["weights"] = _difference(a.weights, b.weights)
        row["scales"] = _difference(a.scales, b.scales)
    row["thresholds"] = _difference(a.table, b.table)
    parts = [row[what] for what in ("weights", "scales", "thresholds")]
    equal = all(part is None or part["different"] == 0 for part in parts)
    # Of quantizers of one width, tables have one shape.
    row["same"] = alike and equal and a.activation_bits == b.activation_bits
    return row


def _difference(a: Array | None, b: Array | None) -> dict[str, int] | None:
    """Of two arrays of one shape how many numbers there are, and how many are different."""
    if a is None or b is None or a.shape != b.shape:
        return None
    return {"count": int(a.size), "different": int(np.count_nonzero(a != b))}


def _rest(a: nn.Module, b: nn.Module) -> dict[str, int]:
    """All other numbers: batch-norm, shifts, alphas, the head, what a quantizer's codes stand for.

    Those that only one has, or has in another shape, are different.
    """
    one, other = _others(a), _others(b)
    count = different = 0
    for name in dict.fromkeys((*one, *other)):
        x, y = one.get(name), other.get(name)
        if x is None or y is None or x.shape != y.shape:
            largest = max(t.numel() for t in (x, y) if t is not None)
            count, different = count + largest, different + largest
        else:
            count += x.numel()
            different += int((x != y).sum())
    return {"count": count, "different": different}


def _others(network: nn.Module) -> dict[str, torch.Tensor]:
    weights = {f"{name}.weight" for name, _ in quantised_convolutions(network)}
    # Counters of batches change nothing that is computed.
    found = {
        name: tensor.detach()
        for name, tensor in network.state_dict().items()
        if name not in weights and ".quantizer." not in name and "num_batches" not in name
    }
    for name, chain in quantised_chains(network):
        assert chain.quantizer is not None  # noqa: S101 - what quantised_chains selects by
        found[f"{name}: step"] = chain.quantizer.step.detach()
        found[f"{name}: zero"] = chain.quantizer.zero.detach()
    return found
