"""The full-precision twin: the same topology, computed as in torch; it says whose twin it is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from qmdd.exporter.errors import ExportError
from qmdd.exporter.twin import twin_config, twin_detector, twin_of_bundle, twin_onnx
from qmdd.models import DetectorConfig
from qmdd.runtime.bench_twin import KEY
from qmdd.runtime.bundle import Bundle
from qmdd.runtime.session import OnnxSession

CONFIG = DetectorConfig(bits=2, width=1 / 8, layer_bits=(("stages.0.0.conv1", 4),))


def test_it_is_the_same_network_without_quantizers() -> None:
    twin = twin_config(CONFIG)
    assert (twin.bits, twin.layer_bits) == (32, ())
    assert (twin.arch, twin.width, twin.cqb) == (CONFIG.arch, CONFIG.width, CONFIG.cqb)


def test_its_file_computes_what_torch_computes() -> None:
    network = twin_detector(CONFIG)
    data = twin_onnx(network)
    model = onnx.load_from_string(data)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["Conv"] == 22  # the stem, 18 of CQBs, 3 that downsample
    assert not kinds["QuantizeLinear"] + kinds["DequantizeLinear"]
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 48), dtype=np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    session = OnnxSession(data, threads=1)
    assert np.abs(session.logits(images) - expected).max() < 1e-5
    assert json.loads(session.metadata[KEY])["arch"] == "resnet23"


def test_the_same_seed_gives_the_same_weights_and_torch_s_own_stay() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (twin_detector(CONFIG, seed).head.fc.weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("source", [{"module": "mine:make", "config": None}, {"config": None}, 3])
def test_a_network_in_no_registry_has_none(source: object) -> None:
    bundle = Bundle(Path("bundle"), {"source": source})
    with pytest.raises(ExportError, match="bundle: exported from a network that is in no registry"):
        twin_of_bundle(bundle)
