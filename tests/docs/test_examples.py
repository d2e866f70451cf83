"""The worked examples do what docs/extending.md says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
import torch

from examples import backbone, leaky, quantizer, target
from qmdd.exporter import TARGETS, export_bundle, source_from_network
from qmdd.models import Detector, config, quantizers, registry
from qmdd.models.checkpoint import Checkpoint, checkpoint_bytes, freeze


@pytest.fixture(autouse=True)
def unregistered() -> Iterator[None]:
    """What an example makes known is forgotten behind its test."""
    names = config.ARCHITECTURES, config.ACTIVATIONS
    yield
    config.ARCHITECTURES, config.ACTIVATIONS = names
    registry._BUILDERS.pop("plain", None)
    quantizers._ACTIVATIONS.pop("pact", None)
    TARGETS.pop(target.OLD_BOX.name, None)


@pytest.mark.parametrize("network", [backbone.network, quantizer.network])
def test_a_network_of_ones_own_is_exported_exactly(
    network: Callable[[], Detector],
    settle: Callable[[Detector], Detector],
    image_folder: Path,
    tmp_path: Path,
) -> None:
    source = source_from_network(settle(network()), "examples:network")
    images = sorted(image_folder.rglob("*.png"))[:3]
    result = export_bundle(source, tmp_path / "bundle", images=images)
    assert result.passed
    assert [tier.wrong_codes for tier in result.parity] == [0, 0]
    assert all(tier.codes_compared > 5_000 for tier in result.parity)


def test_the_backbone_has_a_checkpoint_like_any_other(tmp_path: Path) -> None:
    detector = backbone.network()
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        expected = detector(image)
    path = tmp_path / "frozen.safetensors"
    path.write_bytes(checkpoint_bytes(freeze(detector)))
    assert Checkpoint(path).config.arch == "plain"
    with torch.no_grad():
        assert torch.equal(Checkpoint(path).detector()(image), expected)


def test_pact_learns_its_clip_where_activations_pass_it() -> None:
    pact = quantizer.PactActivation(2)
    x = torch.tensor([-1.0, 0.4, 1.2, 2.5, 9.0])
    assert pact.codes(x).tolist() == [0, 1, 2, 3, 3]
    assert torch.allclose(pact(x), pact.codes(x) * pact.step)
    pact(x).sum().backward()
    assert pact.alpha.grad is not None
    assert pact.alpha.grad.item() == pytest.approx(2.0)  # PACT Eq. 3: one for each of the last two
    assert pact.table().tolist() == pytest.approx([1 / 3, 1.0, 5 / 3])


def _graph(slopes: list[float]) -> gs.Graph:
    x = gs.Variable("x", np.float32, ["N", len(slopes), 4, 4])
    inner = gs.Variable("inner", np.float32, ["N", len(slopes), 4, 4])
    y = gs.Variable("y", np.float32, ["N", len(slopes), 4, 4])
    slope = gs.Constant("slope", np.array(slopes, dtype=np.float32).reshape(-1, 1, 1))
    nodes = [
        gs.Node("PRelu", "act", inputs=[x, slope], outputs=[inner]),
        gs.Node("Neg", "neg", inputs=[inner], outputs=[y]),
    ]
    return gs.Graph(nodes, [x], [y], opset=17)


def _run(graph: gs.Graph, x: np.ndarray) -> np.ndarray:
    model = gs.export_onnx(graph)
    model.ir_version = 8
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_the_pass_keeps_every_number_and_applies_once() -> None:
    graph = _graph([0.1, 0.1, 0.1])
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    before = _run(graph, x)
    assert leaky.leaky(graph).applied == 1
    assert [node.op for node in graph.nodes] == ["LeakyRelu", "Neg"]
    assert np.array_equal(_run(graph, x), before)
    assert not leaky.leaky(graph).modified


def test_the_pass_says_what_it_left() -> None:
    graph = _graph([0.1, 0.2])
    outcome = leaky.leaky(graph)
    assert not outcome.modified
    assert outcome.notes == ["act: its slopes differ; left as it is"]


def test_the_target_writes_its_own_opset(
    settle: Callable[[Detector], Detector], image_folder: Path, tmp_path: Path
) -> None:
    target.register()
    source = source_from_network(settle(backbone.network()), "examples:network")
    images = sorted(image_folder.rglob("*.png"))[:2]
    result = export_bundle(source, tmp_path / "bundle", target="old-box", images=images)
    assert result.passed
    model = onnx.load(tmp_path / "bundle/model.onnx")
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
