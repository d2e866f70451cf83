"""A network's kernels: counted as the project's own counters do, grouped as the module says."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from qmdd.exporter.errors import ExportError
from qmdd.exporter.lower import onnx_for_target
from qmdd.exporter.targets import find_target
from qmdd.exporter.workload import FUSIONS, KINDS, Layer, layers_of, layers_of_file
from qmdd.models import Detector, quantised_chains
from qmdd.models.stats import layer_stats

Traced = Callable[..., tuple[Detector, onnx.ModelProto]]
ARCHITECTURES = ("resnet23", "resnet50", "mobilenetv2")
SIDES = (64, 98)


@pytest.fixture(scope="module")
def traced(
    make_detector: Callable[..., Detector], trace_once: Callable[[Detector], onnx.ModelProto]
) -> Traced:
    """A narrow detector and its canonical model, made once: ``traced(arch, bits)``; read only."""

    @functools.cache
    def make(arch: str, bits: int) -> tuple[Detector, onnx.ModelProto]:
        detector = make_detector(arch, bits)
        return detector, trace_once(detector)

    return make


def _lowered(
    canonical: onnx.ModelProto, target: str, storage: str = "int8", opset: int = 21
) -> onnx.ModelProto:
    return onnx_for_target(canonical, find_target(target), storage, opset).model


def _products(layers: list[Layer]) -> list[Layer]:
    return [layer for layer in layers if layer.multiply_adds]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_multiply_adds_and_weights_are_the_project_s_own(
    traced: Traced, arch: str, side: int
) -> None:
    """Layer by layer in full precision, where nothing is folded."""
    detector, canonical = traced(arch, 32)
    stats = layer_stats(detector, side)
    for fusion in FUSIONS:
        found = _products(layers_of(_lowered(canonical, "onnx", "own"), side, fusion))
        assert Counter((layer.multiply_adds, layer.weights) for layer in found) == Counter(
            (layer.multiply_adds, layer.weights) for layer in stats
        )
        assert {layer.compute for layer in found} == {"float32"}
        depthwise = sum(layer.kind == "depthwise" for layer in stats)
        assert sum(layer.kind == "depthwise" for layer in found) == depthwise


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_quantised_network_differs_in_its_folded_stem_alone(traced: Traced, arch: str) -> None:
    """NPR folded in makes a 7x7 kernel 8x8, a 3x3 one 4x4."""
    detector, canonical = traced(arch, 2)
    stats = layer_stats(detector, 64)
    found = _products(layers_of(_lowered(canonical, "onnx"), 64))
    assert [layer.kind for layer in found].count("stem") == 1
    stem = next(layer for layer in found if layer.kind == "stem")
    kernel = math.isqrt(stats[0].weights // (3 * stats[0].shape[0]))
    assert stem.multiply_adds * kernel**2 == stats[0].multiply_adds * (kernel + 1) ** 2
    others = Counter(layer.multiply_adds for layer in found if layer is not stem)
    assert others == Counter(layer.multiply_adds for layer in stats[1:])
    quantised = sum(layer.kind == "conv" and layer.weight_bits == 2 for layer in stats[1:])
    assert sum(layer.compute == "int8" for layer in found) == quantised


@pytest.mark.parametrize("target", ["onnx", "canonical", "orin-nano", "rtx-ada"])
def test_forms_of_one_network_agree_on_its_convolutions(traced: Traced, target: str) -> None:
    canonical = traced("resnet23", 2)[1]
    storage, opset = ("own", 21) if target == "canonical" else ("int8", 17)
    found = _products(layers_of(_lowered(canonical, target, storage, opset), 64))
    reference = _products(layers_of(_lowered(canonical, "onnx"), 64))

    def convolutions(layers: list[Layer]) -> list[tuple[int, int, str]]:
        return [(x.multiply_adds, x.weights, x.compute) for x in layers if x.kind == "conv"]

    assert convolutions(found) == convolutions(reference)
    assert {layer.compute for layer in found if layer.kind == "conv"} == {"int8"}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_fusing_moves_fewer_numbers_and_does_the_same_work(traced: Traced, arch: str) -> None:
    model = _lowered(traced(arch, 2)[1], "onnx")
    fused, single = (layers_of(model, 64, fusion) for fusion in FUSIONS)

    def work(layers: list[Layer]) -> Counter[str]:
        total: Counter[str] = Counter()
        for layer in layers:
            total.update(layer.elementwise)
            total["products"] += layer.multiply_adds
            total["weights"] += layer.weights
        return total

    def moved(layers: list[Layer]) -> int:
        return sum(t.elements for layer in layers for t in (*layer.reads, *layer.writes))

    expected = work(single)
    # Dequantising codes is left to who reads them.
    assert expected.pop("DequantizeLinear") > 0
    assert work(fused) == expected
    assert moved(fused) < 0.6 * moved(single)
    assert len(fused) < 0.5 * len(single)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernels_can_run_in_the_order_in_which_they_are_listed(traced: Traced, arch: str) -> None:
    for fusion in FUSIONS:
        layers = layers_of(_lowered(traced(arch, 2)[1], "onnx"), 64, fusion)
        known = {"image"}
        for layer in layers:
            assert {tensor.name for tensor in layer.reads} <= known, layer.name
            assert not {tensor.name for tensor in layer.writes} & known, layer.name
            known.update(tensor.name for tensor in layer.writes)
        assert len({layer.name for layer in layers}) == len(layers)
        assert {layer.kind for layer in layers} <= set(KINDS)
        outside = [t.name for layer in layers for t in (*layer.reads, *layer.writes) if t.outside]
        assert outside[0] == "image"
        assert sum(t.outside for layer in layers for t in layer.writes) == 1


def _parsed(body: str) -> onnx.ModelProto:
    text = (
        '<ir_version: 10, opset_import: ["" : 21]> g (uint8["N", 3, "H", "W"] image)'
        f' => (float["N", 4, "A", "B"] y) <{body}'
    )
    model = onnx.parser.parse_model(text)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    for tensor in model.graph.initializer:  # as the exporter writes them: raw data
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


#: x -> conv -> shortcut of x and scaled sum -> codes -> conv: the smallest residual network.
RESIDUAL = """
  float[4, 3, 3, 3] w = {HALVES}, int8[4, 4, 1, 1] c = {ONES}, float s = {1.0}, int8 z = {0},
  float[1, 4, 1, 1] alpha = {1.0, 2.0, 3.0, 4.0}, float t = {0.5}
> {
  x = Cast <to = 1> (image)
  a = Conv <pads = [1, 1, 1, 1]> (x, w)
  m = Mul (a, alpha)
  u = Mul (a, alpha)
  q = QuantizeLinear (m, s, z)
  v = DequantizeLinear (q, s, z)
  k = DequantizeLinear (c, s)
  b = Conv (v, k)
  y = Add (b, u)
}
""".replace("HALVES", ", ".join(["0.5"] * 108)).replace("ONES", ", ".join(["1"] * 16))


def test_a_small_network_by_hand() -> None:
    """8x8: who reads and writes what, in numbers that were written down by hand."""
    cast, stem, epilogue, conv, last = layers_of(_parsed(RESIDUAL), 8)
    plane = 4 * 64
    assert (cast.kind, cast.reads[0].kind, cast.reads[0].elements) == ("stem", "pixels", 3 * 64)
    assert (stem.kind, stem.multiply_adds, stem.weights) == ("stem", 108 * 64, 108)
    assert stem.stored_bytes == 4 * 108
    assert stem.compute == "float32"
    # m and the codes; u belongs to the kernel that reads it, behind the second convolution.
    assert (epilogue.kind, epilogue.name) == ("epilogue", "q")
    assert dict(epilogue.elementwise) == {"Mul": plane, "QuantizeLinear": plane}
    assert [(t.name, t.elements, t.kind) for t in epilogue.reads] == [("a", plane, "floats")]
    assert [(t.name, t.elements, t.kind) for t in epilogue.writes] == [("q", plane, "codes")]
    assert epilogue.constants == 4 + 1 + 1
    assert (conv.kind, conv.compute, conv.multiply_adds) == ("conv", "int8", 16 * 64)
    assert conv.stored_bytes == 16
    assert [t.name for t in conv.reads] == ["q"]
    assert (last.kind, dict(last.elementwise)) == ("elementwise", {"Mul": plane, "Add": plane})
    assert {t.name for t in last.reads} == {"a", "b"}
    assert [(t.name, t.outside) for t in last.writes] == [("y", True)]
    assert [len(layer.reads) for layer in layers_of(_parsed(RESIDUAL), 8, "single")] == [
        *(1, 1, 1, 1, 1, 1, 1, 2)
    ]


def test_a_view_costs_nothing_and_a_pooling_is_a_kernel_of_its_own() -> None:
    body = """
      int64[4] shape = {0, 4, -1, 2}
    > {
      x = Cast <to = 1> (image)
      c = Concat <axis = 1> (x, x)
      p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
      r = Reshape (p, shape)
      n = Neg (r)
      y = Neg (n)
    }
    """
    stem, pool, rest = layers_of(_parsed(body), 8)
    assert dict(stem.elementwise) == {"Cast": 3 * 64}
    assert [t.elements for t in stem.writes] == [6 * 64]
    assert dict(pool.elementwise) == {"MaxPool": 6 * 64}
    assert [t.name for t in rest.reads] == ["p"]
    assert dict(rest.elementwise) == {"Neg": 2 * 6 * 16}


@pytest.mark.parametrize(("storage", "opset"), [("int8", 17), ("int4", 21), ("int2", 21)])
def test_narrow_weights_of_an_engine_are_unpacked_at_each_inference(
    traced: Traced, storage: str, opset: int
) -> None:
    canonical = traced("resnet23", 2)[1]
    layers = layers_of(_lowered(canonical, "rtx-ada", storage, opset), 64)
    convolutions = [layer for layer in layers if layer.kind == "conv"]
    factor = {"int8": 1, "int4": 2, "int2": 4}[storage]
    for layer in convolutions:
        assert layer.compute == "int8"
        assert layer.stored_bytes * factor == layer.weights
        assert layer.unpacked == (storage != "int8")
    # ONNX Runtime folds packed weights when it loads them.
    packed = layers_of(_lowered(canonical, "onnx", "int4"), 64)
    assert not any(layer.unpacked for layer in packed)


@pytest.mark.parametrize(("bits", "target"), [(4, "onnx"), (8, "onnx"), (2, "thor"), (4, "thor")])
def test_every_form_of_thresholds_is_one_kernel(traced: Traced, bits: int, target: str) -> None:
    """Chains, binary searches and broadcast comparisons, with all their comparisons counted."""
    detector, canonical = traced("resnet23", bits)
    opset = 21 if target == "onnx" else 17
    layers = layers_of(_lowered(canonical, target, "int8", opset), 64)
    epilogues = [layer for layer in layers if layer.kind == "epilogue"]
    assert len(epilogues) == len(quantised_chains(detector))
    compared = bits if (bits, target) == (8, "onnx") else 2**bits - 1
    for layer in epilogues:
        codes = [tensor for tensor in layer.writes if tensor.kind == "codes"]
        assert len(codes) == 1
        made = codes[0].elements
        comparisons = sum(layer.elementwise.get(op, 0) for op in ("Greater", "GreaterOrEqual"))
        assert comparisons == compared * made, layer.name
        looked_up = (bits - 1) * made if (bits, target) == (8, "onnx") else 0
        assert layer.elementwise.get("Gather", 0) == looked_up
        assert layer.constants >= 2**bits - 1


def test_what_is_no_network_of_ours_is_refused(tmp_path: Path) -> None:
    model = _parsed(RESIDUAL)
    two = onnx.ModelProto()
    two.CopyFrom(model)
    two.graph.input.append(model.graph.input[0])
    with pytest.raises(ExportError, match="one input, image"):
        layers_of(two, 8)
    flat = onnx.ModelProto()
    flat.CopyFrom(model)
    del flat.graph.input[0].type.tensor_type.shape.dim[2:]
    with pytest.raises(ExportError, match=r"\[N, 3, H, W\]"):
        layers_of(flat, 8)
    unknown = onnx.ModelProto()
    unknown.CopyFrom(model)
    unknown.graph.node[2].domain = "elsewhere"
    with pytest.raises(ExportError, match="shape"):
        layers_of(unknown, 8)
    with pytest.raises(ExportError, match="no fusion 'cold'; there are fused, single"):
        layers_of(model, 8, "cold")
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(b"\xff not an ONNX file")
    with pytest.raises(ExportError, match=r"model\.onnx: cannot be loaded: no ONNX model"):
        layers_of_file(damaged)
