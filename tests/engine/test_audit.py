"""The audit's verdicts, on layer tables by hand."""

from __future__ import annotations

import dataclasses

import pytest

from qmdd.exporter.engine.audit import MISSING, Audit, audit
from qmdd.exporter.engine.known_warnings import KNOWN, known_warning
from qmdd.exporter.engine.layers import EngineLayer, Tensor
from qmdd.exporter.plan import PlannedLayer

WEIGHTS = (16, 8, 3, 3)
COUNT = 16 * 8 * 9


def planned(**changes: object) -> PlannedLayer:
    layer = PlannedLayer(
        name="a/Conv",
        op="Conv",
        compute="int8",
        weight_storage="int8",
        weights=COUNT,
        weight_bytes=COUNT,
        kernel=(3, 3),
        stride=(1, 1),
        groups=1,
        in_shape=(1, 8, 32, 32),
        out_shape=(1, 16, 32, 32),
        multiply_adds=1,
    )
    return dataclasses.replace(layer, **changes)


def built(
    data: str = "int8", weights: str = "int8", *, kind: str = "convolution", **changes: object
) -> EngineLayer:
    layer = EngineLayer(
        name="conv",
        type="correlation",
        kind=kind,
        onnx=("a/Conv", "a/DQ"),
        inputs=(Tensor("x", (1, 8, -1, -1), data),),
        constants=(Tensor("w", WEIGHTS, weights), Tensor("s", (1, 16, 1, 1), "float32")),
        outputs=(Tensor("y", (1, 16, -1, -1), "float32"),),
    )
    return dataclasses.replace(layer, **changes)


def unpack(*constants: Tensor, out: str = "w8") -> EngineLayer:
    outputs = (Tensor(out, WEIGHTS, "int8"),)
    return EngineLayer("unpack", "kgen", "unpack", ("w/DQ",), (), constants, outputs)


def reads_unpacked(dtype: str = "int8") -> EngineLayer:
    inputs = (Tensor("x", (1, 8, -1, -1), "int8"), Tensor("w8", WEIGHTS, dtype))
    return built(inputs=inputs, constants=(Tensor("s", (1, 16, 1, 1), "float32"),))


def test_as_planned() -> None:
    found = audit([planned()], [built()])
    (layer,) = found.layers
    assert found.passed
    assert (layer.built, layer.built_storage, layer.weight_bytes) == ("int8", "int8", COUNT)
    assert layer.input_bytes == 8 * 32 * 32
    assert layer.engine_layers == ("conv",)
    assert layer.reason == ""


@pytest.mark.parametrize(
    ("plan", "data", "weights", "expected"),
    [
        ("int8", "float32", "float32", "float32"),
        ("int8", "int8", "float32", "float32"),
        ("int8", "float16", "int8", "float16"),
        ("float32", "float16", "float16", "float16"),  # rounds sums that must be exact
        ("float32", "int8", "int8", "int8"),
        ("float16", "float32", "float32", "float32"),
    ],
)
def test_another_type_than_planned(plan: str, data: str, weights: str, expected: str) -> None:
    found = audit([planned(compute=plan)], [built(data, weights)])
    assert [layer.built for layer in found.fallbacks] == [expected]
    (said,) = found.faults
    assert said == (
        f"a/Conv: planned {plan}, built {expected} (activations {data}; weights {weights})"
    )


def test_layer_that_the_engine_does_not_name() -> None:
    found = audit([planned()], [built(onnx=("b/Conv",))])
    assert found.layers[0].built == MISSING
    assert found.faults == ["a/Conv: planned int8, but no layer of the engine names it"]


def test_unnamed_layer_of_floating_point_is_no_finding() -> None:
    found = audit([planned(compute="float32")], [built(onnx=("b/Conv",))])
    assert found.layers[0].built == MISSING
    assert found.passed


def test_one_of_two_parts_in_floating_point() -> None:
    """TensorRT may split a layer; all its parts must be as planned."""
    found = audit([planned()], [built(), built("float32", "float32", name="second")])
    assert found.layers[0].built == "float32"
    assert found.layers[0].engine_layers == ("conv", "second")


def test_kernel_that_only_prepares_operands_is_not_what_computes() -> None:
    helper = built("float32", "float32", kind="kernel", name="pad")
    assert audit([planned()], [helper, built()]).passed


def test_small_product_inside_a_kernel() -> None:
    kernel = built("float32", "float32", kind="kernel")
    assert audit([planned(compute="float32")], [kernel]).passed
    assert not audit([planned()], [kernel]).passed


def test_where_a_float_operand_comes_from_is_told() -> None:
    names = ("q/Q", "dq/DQ", "relu/Relu", "more/Add")
    maker = EngineLayer(
        "k", "kgen", "kernel", names, (), (), (Tensor("x", (1, 8, -1, -1), "float32"),)
    )
    (said,) = audit([planned()], [maker, built("float32")]).faults
    assert "(activations float32 from q/Q, dq/DQ, relu/Relu, ...; weights int8)" in said


@pytest.mark.parametrize(
    ("held", "storage", "size"),
    [
        ((Tensor("w4", WEIGHTS, "int4"),), "int4", COUNT // 2),
        ((Tensor("w4", (COUNT // 2,), "int4"),), "int2", COUNT // 4),
        ((Tensor("w4", WEIGHTS, "int4"), Tensor("pad", (16, 2, 3, 3), "int8")), "int4", 864),
    ],
)
def test_weights_that_are_unpacked_at_every_run(
    held: tuple[Tensor, ...], storage: str, size: int
) -> None:
    found = audit([planned()], [unpack(*held), reads_unpacked()])
    assert found.passed
    assert found.unpacking == ("unpack",)
    assert (found.layers[0].built_storage, found.layers[0].weight_bytes) == (storage, size)


@pytest.mark.parametrize(("elements", "storage"), [(3 * COUNT, "int4"), (3 * COUNT // 2, "int2")])
def test_weights_of_several_layers_in_one_constant(elements: int, storage: str) -> None:
    """Each layer is told its share."""
    plan = [planned(), planned(name="b/Conv", weights=2 * COUNT)]
    both = unpack(Tensor("all", (elements,), "int4"))
    wide = (Tensor("w16", (32, 8, 3, 3), "int8"),)
    both = dataclasses.replace(both, outputs=both.outputs + wide)
    second = built(
        name="second",
        onnx=("b/Conv",),
        inputs=(Tensor("x", (1, 8, -1, -1), "int8"), *wide),
        constants=(),
    )
    found = audit(plan, [both, reads_unpacked(), second])
    assert found.passed
    assert [layer.built_storage for layer in found.layers] == [storage, storage]
    first, other = (layer.weight_bytes for layer in found.layers)
    assert (first + other, other) == (elements // 2, elements // 3)


def test_padded_weights_are_found() -> None:
    wide = built(constants=(Tensor("w", (16, 12, 3, 3), "int8"), Tensor("s", (16,), "float32")))
    (layer,) = audit([planned()], [wide]).layers
    assert (layer.built, layer.weight_bytes) == ("int8", 16 * 12 * 9)


def test_inserted_layers_are_named() -> None:
    copy = EngineLayer("copy", "kgen", "move", (), (), (), ())
    control = EngineLayer("wait", "wait", "control", (), (), (), ())
    found = audit([planned()], [copy, control, built()])
    assert found.inserted == ("copy",)
    assert found.engine_layers == 2


def test_without_an_engine_the_plan_is_told() -> None:
    found = audit([planned(weight_storage="int4", weight_bytes=576)], None)
    (layer,) = found.layers
    assert found.passed
    assert not layer.fell_back
    assert (layer.built, layer.built_storage, layer.weight_bytes) == ("", "", 576)


def _warned(*texts: str) -> Audit:
    held = [
        {"severity": "WARNING", "text": text, "node": f"n{index}"}
        for index, text in enumerate(texts)
    ]
    return audit([planned()], [built()], held)


def test_warnings_are_counted_and_judged() -> None:
    retyped = "x.cpp:1: UINT8 zero_point only on DLA. Defaulting to INT8 instead."
    lazy = "CUDA lazy loading is not enabled. Enabling it can reduce memory usage."
    found = _warned(retyped, "who knows\nwhat", retyped, lazy)
    assert [(w.verdict, w.count, w.nodes) for w in found.warnings] == [
        ("fault", 2, ("n0", "n2")),
        ("unlisted", 1, ("n1",)),
        ("benign", 1, ("n3",)),
    ]
    assert [w.text for w in found.unlisted] == ["who knows what"]
    assert [fault.partition(":")[0] for fault in found.faults] == ["n0, n2"]
    assert not found.passed


def test_unlisted_warning_is_shown_and_fails_nothing() -> None:
    found = _warned("who knows")
    assert found.passed
    assert found.to_dict()["unlisted_warnings"] == 1


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Your ONNX model has been generated with INT64 weights, while TensorRT does not natively "
         "support INT64. Attempting to cast down to INT32.", "int64-narrowed"),
        ("Skipping tactic 0x0 due to insufficient memory on requested size of 800 detected for "
         "tactic 0x1.", "tactic-memory"),
        ("Tactic Device request: 800MB Available: 526MB. Device memory is insufficient to use "
         "tactic.", "tactic-memory"),
        ("Calibrator won't be used in explicit precision mode. Use quantization aware training.",
         "no-calibrator"),
        ("TensorRT was linked against cuDNN 8.6.0 but loaded cuDNN 8.4.1", "cudnn-cublas-minor"),
        (" - 2 weights are affected by this issue: Detected subnormal FP16 values.",
         "weights-converted"),
    ],
)  # fmt: skip
def test_known_warnings(text: str, name: str) -> None:
    known = known_warning(text)
    assert known is not None
    assert known.name == name


def test_every_known_warning_has_a_name_and_a_reason() -> None:
    assert len({known.name for known in KNOWN}) == len(KNOWN)
    assert all(known.reason for known in KNOWN)
