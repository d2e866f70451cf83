"""What an exported model is made of: operators counted, storage and opset as asked, no more."""

from __future__ import annotations

import os
import re
import site
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto

from qmdd.exporter import trace
from qmdd.exporter.errors import ExportError
from qmdd.exporter.export import CONTRACT
from qmdd.exporter.lower import check_model, check_quantised, node_counts, onnx_for_target
from qmdd.exporter.parity import compare
from qmdd.exporter.targets import find_target
from qmdd.exporter.trace import canonical_from_detector
from qmdd.models import Detector, quantised_chains
from qmdd.models.conv import QuantConv2d
from qmdd.models.cqb import Shortcut
from qmdd.models.resnet import BasicBlock, Bottleneck

TraceOnce = Callable[[Detector], onnx.ModelProto]
STEM_AND_HEAD = {"Relu": 1, "MaxPool": 1, "PRelu": 1, "GlobalAveragePool": 1, "Flatten": 1}
CLOSING = {"Gemm": 1, "Squeeze": 1}


def _parts(detector: Detector) -> dict[str, Any]:
    """What a detector is made of, counted in the modules themselves."""
    shortcuts = [m for m in detector.modules() if isinstance(m, Shortcut)]
    return {
        "layers": len(quantised_chains(detector)),
        "convolutions": sum(isinstance(m, QuantConv2d) for m in detector.modules()),
        "blocks": sum(isinstance(m, (BasicBlock, Bottleneck)) for m in detector.modules()),
        "pooled": sum(s.stride > 1 for s in shortcuts),
        "up": sum(s.kind == "up" for s in shortcuts),
        "groups": [s.in_channels // s.out_channels for s in shortcuts if s.kind == "down"],
    }


def _expected_target(detector: Detector, thresholds: int) -> dict[str, int]:
    """Operators of the ``onnx`` target at opset 25, up to 15 thresholds, 2 or 4 bits."""
    p = _parts(detector)
    layers, convolutions, groups = p["layers"], p["convolutions"], p["groups"]
    counts = {
        **STEM_AND_HEAD,
        **CLOSING,
        "Conv": convolutions,
        "QuantizeLinear": layers,
        "DequantizeLinear": layers + convolutions,
        "Gather": convolutions - 1,  # all but the stem have a codebook
        "GreaterOrEqual": thresholds * layers,
        # the image, one for each weight index, one for each comparison
        "Cast": 1 + (convolutions - 1) + thresholds * layers,
        # acc * m, shortcut * (1 - alpha), the mean over a group
        "Mul": convolutions + layers + len(groups),
        # + b, main + shortcut, + residual, counting thresholds, adding a group up
        "Add": convolutions
        + layers
        + p["blocks"]
        + (thresholds - 1) * layers
        + sum(group - 1 for group in groups),
        "AveragePool": 2 * p["pooled"],
        "Concat": p["up"],
        "Slice": sum(groups),
    }
    return {name: count for name, count in sorted(counts.items()) if count}


def _expected_canonical(detector: Detector) -> dict[str, int]:
    """Operators as traced: chains and NPR explicit, one operator for each quantizer."""
    p = _parts(detector)
    layers, convolutions, groups = p["layers"], p["convolutions"], p["groups"]
    counts = {
        "Relu": 1,
        "MaxPool": 1,
        "ReduceMean": 1,
        **CLOSING,
        "Cast": 1,
        "Sub": 1,
        "Resize": 1,
        "Slice": 2 + sum(groups),
        "Conv": convolutions,
        "DequantizeLinear": convolutions,
        "MultiThreshold": layers,
        "PRelu": 1 + layers,
        "Mul": convolutions + layers + len(groups),
        "Add": convolutions + layers + p["blocks"] + 2 * layers + sum(g - 1 for g in groups),
        "AveragePool": 2 * p["pooled"],
        "Concat": p["up"],
    }
    return {name: count for name, count in sorted(counts.items()) if count}


@pytest.fixture(scope="module")
def deep(make_detector: Callable[..., Detector], trace_once: TraceOnce) -> Callable[[str], Any]:
    """A detector of full depth at 2 bits and its trace, by architecture."""
    known: dict[str, tuple[Detector, bytes]] = {}

    def get(arch: str) -> tuple[Detector, onnx.ModelProto]:
        if arch not in known:
            detector = make_detector(arch, 2, deep=True)
            known[arch] = detector, trace_once(detector).SerializeToString()
        detector, data = known[arch]
        return detector, onnx.load_from_string(data)

    return get


def test_resnet23_is_made_of_these(deep: Callable[[str], Any]) -> None:
    """Written out once, so that the formulas below are held to numbers as well."""
    _, canonical = deep("resnet23")
    lowered = onnx_for_target(canonical, find_target("onnx"), "own", 25)
    assert node_counts(lowered.model) == {
        "Add": 85,
        "AveragePool": 6,
        "Cast": 76,
        "Concat": 3,
        "Conv": 22,
        "DequantizeLinear": 40,
        "Flatten": 1,
        "Gather": 21,
        "Gemm": 1,
        "GlobalAveragePool": 1,
        "GreaterOrEqual": 54,
        "MaxPool": 1,
        "Mul": 40,
        "PRelu": 1,
        "QuantizeLinear": 18,
        "Relu": 1,
        "Squeeze": 1,
    }
    assert lowered.applied == [
        ("fold_stem", 1),
        ("pool_head", 1),
        ("fold_chain", 18),
        ("pack_weights", 21),
        ("lower_thresholds", 18),
    ]
    assert lowered.notes == []
    assert node_counts(canonical)["MultiThreshold"] == 18


@pytest.mark.parametrize(
    ("arch", "layers", "convolutions", "blocks"),
    [("resnet23", 18, 22, 9), ("resnet34", 32, 36, 16), ("resnet50", 48, 53, 16)],
)
def test_operators_follow_from_the_architecture(
    deep: Callable[[str], Any], arch: str, layers: int, convolutions: int, blocks: int
) -> None:
    """No Log, no NPR, no quantizer of our own; one Q for each quantizer, DQ on all it feeds."""
    detector, canonical = deep(arch)
    parts = _parts(detector)
    assert (parts["layers"], parts["convolutions"], parts["blocks"]) == (
        layers,
        convolutions,
        blocks,
    )
    assert node_counts(canonical) == _expected_canonical(detector)
    lowered = onnx_for_target(canonical, find_target("onnx"), "own", 25)
    counts = node_counts(lowered.model)
    assert counts == _expected_target(detector, thresholds=3)
    assert not {"Log", "Resize", "Sub", "MultiThreshold", "ReduceMean"} & counts.keys()
    assert {node.domain for node in lowered.model.graph.node} == {""}
    assert [f.name for f in lowered.model.functions] == []
    check_model(lowered.model)
    check_quantised(lowered.model)


def test_lowering_leaves_the_canonical_model_as_it_was(
    small: Detector, trace_once: TraceOnce
) -> None:
    """One trace serves every target."""
    canonical = trace_once(small)
    before = canonical.SerializeToString(deterministic=True)
    first = onnx_for_target(canonical, find_target("onnx"), "own", 25)
    second = onnx_for_target(canonical, find_target("onnx"), "own", 25)
    assert canonical.SerializeToString(deterministic=True) == before
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(
        deterministic=True
    )


def test_the_canonical_target_keeps_the_quantizers(small: Detector, trace_once: TraceOnce) -> None:
    """``fold_stem`` and ``pool_head`` only; the operator's body travels along, for any opset."""
    for opset in (21, 23, 25):
        lowered = onnx_for_target(trace_once(small), find_target("canonical"), "own", opset)
        counts = node_counts(lowered.model)
        assert counts["MultiThreshold"] == len(quantised_chains(small))
        assert not {"Resize", "Sub", "ReduceMean", "Log"} & counts.keys()
        assert [f.name for f in lowered.model.functions] == ["MultiThreshold"]
        check_model(lowered.model)


ASKED = [
    (bits, storage, opset)
    for bits in (2, 3, 4, 8)
    for storage, opset in (
        ("own", 17), ("own", 19), ("own", 21), ("own", 25),
        ("int8", 17), ("int8", 21), ("int4", 21), ("int4", 25), ("int2", 25),
    )
    if storage in ("own", "int8") or bits <= int(storage[3:])
]  # fmt: skip


@pytest.mark.parametrize(("bits", "storage", "opset"), ASKED)
def test_every_storage_and_opset_is_a_valid_exact_model(
    tmp_path: Path,
    make_detector: Callable[..., Detector],
    trace_once: TraceOnce,
    pictures: list[Path],
    bits: int,
    storage: str,
    opset: int,
) -> None:
    """Full check; loads and runs in a session with no options; 0 wrong codes in both tiers."""
    detector = make_detector(bits=bits)
    lowered = onnx_for_target(trace_once(detector), find_target("onnx"), storage, opset)
    onnx.checker.check_model(lowered.model, full_check=True)
    check_quantised(lowered.model)
    assert [(item.domain, item.version) for item in lowered.model.opset_import] == [("", opset)]
    types = {t.data_type for t in lowered.model.graph.initializer}
    newest = max({TensorProto.UINT4: 21, TensorProto.INT16: 21, 25: 25}.get(t, 13) for t in types)
    assert newest <= opset
    path = tmp_path / "model.onnx"
    path.write_bytes(lowered.model.SerializeToString())
    session = ort.InferenceSession(path)
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("image", "tensor(uint8)", ["N", 3, "H", "W"])
    (result,) = session.get_outputs()
    assert (result.name, result.type, result.shape) == ("logit", "tensor(float)", ["N"])
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 38), dtype=np.uint8)
    logits = session.run(None, {"image": images})[0]
    assert logits.shape == (3,)
    assert logits.dtype == np.float32
    for tier in compare(detector, path, pictures, CONTRACT, threads=1):
        assert (tier.wrong_codes, tier.passed) == (0, True)


def test_equal_layers_are_packed_under_their_own_names(
    make_detector: Callable[..., Detector], pictures: list[Path], tmp_path: Path
) -> None:
    """The tracer merges equal constants; the model stays valid and exact."""
    detector = make_detector(weight="minmax")
    with torch.no_grad():
        for convolution in ("conv1", "conv2"):
            getattr(detector.stages[0][0], convolution).conv.weight.fill_(0.25)  # type: ignore[index]
    lowered = onnx_for_target(canonical_from_detector(detector), find_target("onnx"), "own", 25)
    check_model(lowered.model)
    path = tmp_path / "model.onnx"
    path.write_bytes(lowered.model.SerializeToString())
    for tier in compare(detector, path, pictures, CONTRACT, threads=1):
        assert tier.passed


def _texts(model: onnx.ModelProto) -> list[str]:
    """Everything in the model that is free text."""
    found = [model.producer_name, model.producer_version, model.domain, model.doc_string]
    graph = model.graph
    found += [graph.name, graph.doc_string]
    items = [*graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info]
    items += [*model.functions, *(n for f in model.functions for n in f.node)]
    for item in items:
        found += [item.name, item.doc_string]
    for node in graph.node:
        found += [*node.input, *node.output, *(a.name for a in node.attribute)]
    return found


#: One target of each kind of file; the Jetsons' are equal to one of these (docs/targets.md).
FILES = ("onnx", "cpu", "canonical", "openvino", "qonnx", "orin-nano", "orin-nano@5.1", "rtx")


@pytest.mark.parametrize("target", ["as traced", *FILES])
def test_nothing_of_this_machine_is_in_the_file(
    small: Detector, trace_once: TraceOnce, target: str
) -> None:
    """No paths, no documentation, no metadata, no names of files or people."""
    model = trace_once(small)
    if target != "as traced":
        found = find_target(target)
        model = onnx_for_target(model, found, "own", found.opset).model
    assert (model.producer_name, model.producer_version, model.model_version) == ("qmdd", "", 0)
    everything = [model, model.graph, *model.graph.node, *model.graph.initializer]
    everything += [*model.graph.input, *model.graph.output, *model.functions]
    assert not any(item.doc_string for item in everything)
    layouts = [prop.key for item in everything for prop in item.metadata_props]
    assert layouts == (["qmdd.codes"] if target == "cpu" else [])
    if target != "qonnx":  # whose tools need every shape
        assert not model.graph.value_info
    for text in _texts(model):
        assert re.fullmatch(r"[A-Za-z0-9_./]*", text), text
        assert not text.startswith("/"), text
    data = model.SerializeToString()
    homes = {os.getcwd(), os.path.expanduser("~"), sys.prefix, *site.getsitepackages()}
    homes |= {str(Path(torch.__file__).parent), str(Path(trace.__file__).parent)}
    for place in homes - {"/", ""}:
        assert place.encode() not in data
    assert b".py" not in data


def test_names_of_nodes_are_unique(small: Detector, trace_once: TraceOnce) -> None:
    """Tools that list layers by name (profilers, engines) tell them apart."""
    lowered = onnx_for_target(trace_once(small), find_target("onnx"), "own", 21)
    names = Counter(node.name for node in lowered.model.graph.node)
    assert "" not in names
    assert max(names.values()) == 1


@pytest.mark.parametrize("opset", [16, 26])
def test_an_opset_out_of_range_is_refused(
    small: Detector, trace_once: TraceOnce, opset: int
) -> None:
    with pytest.raises(ExportError, match=f"target onnx is written at opset 17 to 25, not {opset}"):
        onnx_for_target(trace_once(small), find_target("onnx"), "own", opset)


def test_a_model_that_onnx_refuses_is_refused(small: Detector, trace_once: TraceOnce) -> None:
    lowered = onnx_for_target(trace_once(small), find_target("onnx"), "own", 21)
    lowered.model.graph.node[3].op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match=r"fails onnx\.checker: .*NoSuchOperator"):
        check_model(lowered.model)


def test_a_quantizer_without_a_table_is_refused(make_detector: Callable[..., Detector]) -> None:
    """An input scale of zero makes no function of the input: the layer is named."""
    detector = make_detector(slr=False)
    with torch.no_grad():
        quantizer: Any = detector.stages[1][0].conv2.act.quantizer  # type: ignore[index,union-attr]
        quantizer.scale1.fill_(0.0)
    with pytest.raises(ExportError, match=r"stages\.1\.0\.conv2.*not a non-decreasing"):
        canonical_from_detector(detector)


def test_tracing_is_silent_and_leaves_the_detector_alone(
    make_detector: Callable[..., Detector], capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing on either stream; parameters, buffers and modules are what they were."""
    detector = make_detector(bits=4)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    modules = [id(module) for module in detector.modules()]
    canonical_from_detector(detector)
    assert capfd.readouterr() == ("", "")
    assert [id(module) for module in detector.modules()] == modules
    assert before.keys() == detector.state_dict().keys()
    for name, tensor in detector.state_dict().items():
        assert torch.equal(before[name], tensor), name


@pytest.mark.parametrize("outcome", ["raises", "nothing", "fewer"])
def test_a_tracer_that_fails_says_so(
    monkeypatch: pytest.MonkeyPatch, small: Detector, trace_once: TraceOnce, outcome: str
) -> None:
    """Its exception, no result, or a graph in which a quantizer was lost."""
    canonical = trace_once(small)
    (first, *_) = (n for n in canonical.graph.node if n.op_type == "MultiThreshold")
    first.op_type = "Identity"

    def export(*_: object, **__: object) -> Any:
        if outcome == "raises":
            raise RuntimeError("unsupported")
        return None if outcome == "nothing" else type("Program", (), {"model_proto": canonical})

    monkeypatch.setattr(torch.onnx, "export", export)
    message = {
        "raises": "tracing failed: RuntimeError: unsupported",
        "nothing": "tracing failed: the exporter returned nothing",
        "fewer": "tracing kept 7 of 8 quantizers",
    }
    with pytest.raises(ExportError, match=message[outcome]):
        canonical_from_detector(small)
