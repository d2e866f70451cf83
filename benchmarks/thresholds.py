"""Threshold tables against the source quantizers, float by float.

Three parts, each counting wrong codes:

* ``quantizers``: every layer's table of its quantizer alone (SLR over N2UQ), every float32 within
  2^20 neighbours of each threshold;
* ``folded``: the tables that the exporter folds per channel (shift, PReLU, shift, SLR over N2UQ),
  every float32 within 2^20 neighbours of each threshold of every channel, through the source
  model's own activation chain (28 thousand million floats; ``--channels`` takes fewer);
* ``all_floats``: the first layer's quantizer on all 2^32 float32 bit patterns, NaN and the
  infinities among them.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _record import record

from qmdd.exporter.lower import onnx_for_target
from qmdd.exporter.targets import find_target
from qmdd.exporter.trace import canonical_from_detector
from qmdd.models import ActivationChain, Detector, quantised_chains
from qmdd.models.checkpoint import freeze, is_frozen, load_checkpoint
from qmdd.models.float_order import MAX_KEY, float_from_key, key_from_float
from qmdd.models.zoo import builtin_checkpoint

CHUNK = 1 << 22
Codes = Callable[[np.ndarray], np.ndarray]


def folded_tables(detector: Detector) -> dict[str, np.ndarray]:
    """The tables ``[C, n]`` as they stand in an exported model, by layer."""
    from onnx import numpy_helper

    lowered = onnx_for_target(canonical_from_detector(detector), find_target("onnx"), "own", 25)
    held = {t.name: t for t in lowered.model.graph.initializer}
    tables = {}
    for name, chain in quantised_chains(detector):
        top = chain.quantizer.top if chain.quantizer is not None else 0
        columns = [numpy_helper.to_array(held[f"{name}.t{i}"]).reshape(-1) for i in range(top)]
        tables[name] = np.stack(columns, axis=1)
    return tables


def wrong_in_windows(codes: Codes, table: np.ndarray, radius: int) -> tuple[int, int]:
    """Floats compared and codes found wrong around every threshold of ``table`` ``[C, n]``.

    ``codes`` is the source: float32 ``[C, m]`` to codes ``[C, m]``.
    """
    channels, count = table.shape
    width = max(1, CHUNK // channels)
    compared = wrong = 0
    for index in range(count):
        middle = key_from_float(table[:, index])[:, None]
        for start in range(-radius, radius + 1, width):
            offsets = np.arange(start, min(start + width, radius + 1), dtype=np.int64)
            x = float_from_key(np.clip(middle + offsets, -MAX_KEY, MAX_KEY))
            source = codes(x)
            ours = np.zeros(x.shape, dtype=np.float32)
            for column in range(count):
                ours += x >= table[:, column, None]
            compared += x.size
            wrong += int((source != ours).sum())
    return compared, wrong


def source_chain(source: ActivationChain, channels: np.ndarray) -> Codes:
    """The source model's own activation chain, a row for each of ``channels``.

    Where a slope is negative the exporter keeps the chain up to the PReLU explicit and folds what
    comes after it; then that part is the table's source.
    """
    chain = copy.deepcopy(source)
    for module in (chain.shift_in, chain.shift_out):
        module.bias = torch.nn.Parameter(module.bias.detach()[channels])
    chain.prelu = torch.nn.PReLU(len(channels))
    chain.prelu.weight = torch.nn.Parameter(source.prelu.weight.detach()[channels])

    whole = bool((source.prelu.weight >= 0).all())
    quantizer = source.quantizer
    if quantizer is None:
        raise SystemExit("a full-precision layer has no quantizer")

    def codes(x: np.ndarray) -> np.ndarray:
        rows = torch.from_numpy(x)[None, :, None, :]
        with torch.no_grad():
            found = chain.codes(rows).codes if whole else quantizer.codes(chain.shift_out(rows))
        return found[0, :, 0].numpy()

    return codes


def source_quantizer(chain: ActivationChain) -> Codes:
    """The source model's quantizer alone."""
    quantizer = chain.quantizer
    if quantizer is None:
        raise SystemExit("a full-precision layer has no quantizer")
    return lambda x: quantizer.codes(torch.from_numpy(x)).numpy()


def wrong_on_all_floats(chain: ActivationChain) -> tuple[int, int]:
    """The quantizer and its table on every float32 bit pattern."""
    quantizer = chain.quantizer
    if quantizer is None:
        return 0, 0
    table = quantizer.table()
    compared = wrong = 0
    for start in range(0, 1 << 32, CHUNK):
        bits = np.arange(start, start + CHUNK, dtype=np.uint64).astype(np.uint32)
        x = bits.view(np.float32)
        source = quantizer.codes(torch.from_numpy(x)).numpy()
        ours = np.zeros(x.shape, dtype=np.float32)
        with np.errstate(invalid="ignore"):
            for threshold in table:
                ours += x >= threshold
        compared += x.size
        wrong += int((source != ours).sum())
    return compared, wrong


def main() -> None:
    """Run the three parts and record them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=builtin_checkpoint("resnet23", 2))
    parser.add_argument("--radius", type=int, default=1 << 20)
    parser.add_argument("--channels", type=int, help="of each layer; default: all")
    arguments = parser.parse_args()
    detector = load_checkpoint(arguments.checkpoint)
    if not is_frozen(detector):
        freeze(detector)
    layers = dict(quantised_chains(detector))
    started = time.perf_counter()
    parts: dict[str, list[tuple[int, int]]] = {"quantizers": [], "folded": []}
    for name, table in folded_tables(detector).items():
        layer = layers[name]
        chosen = np.arange(len(table))[: arguments.channels]
        own = layer.quantizer.table()[None] if layer.quantizer is not None else table[:1]
        radius = arguments.radius
        parts["quantizers"].append(wrong_in_windows(source_quantizer(layer), own, radius))
        codes = source_chain(layer, chosen)
        parts["folded"].append(wrong_in_windows(codes, table[chosen], radius))
        print(name, {part: rows[-1] for part, rows in parts.items()}, flush=True)
    name = next(iter(layers))
    compared, wrong = wrong_on_all_floats(layers[name])
    record(
        "thresholds",
        {
            "checkpoint": arguments.checkpoint.name,
            "radius": arguments.radius,
            "layers": len(layers),
            "channels": arguments.channels or "all",
            **{
                part: {"compared": sum(c for c, _ in rows), "wrong": sum(w for _, w in rows)}
                for part, rows in parts.items()
            },
            "all_floats": {"layer": name, "compared": compared, "wrong": wrong},
            "seconds": round(time.perf_counter() - started),
        },
    )


if __name__ == "__main__":
    main()
