"""Networks that are in no registry: from a factory in a module, or at hand."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from qmdd.exporter.errors import ExportError, ParityError
from qmdd.exporter.export import export_bundle
from qmdd.exporter.parity import verify_bundle
from qmdd.exporter.source import (
    source_from_checkpoint,
    source_from_module,
    source_from_network,
    state_digest,
)
from qmdd.models import build_detector
from qmdd.models.checkpoint import checkpoint_bytes
from qmdd.runtime.bundle import MODEL, Bundle
from qmdd.runtime.detector import Detector

#: A network like none that is built in: two branches on one quantizer's codes, groups, widths of 1,
#: 3, 4 and 8 bits, every kind of quantizer, concatenation, nearest up-sampling, a head of its own.
NETWORK = """
import torch
from torch import nn
from torch.nn import functional as F

from qmdd.models import CQB, ActivationChain, QuantConv2d, Stem


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = Stem(12, kernel=5, pool=False)
        self.down = CQB(12, 24, 3, 2, bits=4, activation="minmax", slr=False)
        self.act = ActivationChain(24, bits=3, kind="lsq", slr=True, nonlinearity="relu")
        self.left = QuantConv2d(24, 24, 3, padding=1, bits=3, groups=4)
        self.right = QuantConv2d(24, 8, 1, bits=8, kind="lsq", top=7)
        self.binary = CQB(32, 32, 3, bits=1, activation="binary", weight="binary", slr=False)
        self.project = CQB(32, 12, 1, bits=2)
        self.out = nn.Linear(12, 1)

    def forward(self, image):
        x = self.down(self.stem(image))
        codes = self.act(x)
        x = torch.cat([self.left(codes), self.right(codes)], dim=1)
        x = self.binary(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.out(torch.tanh(self.project(x)).mean(dim=(2, 3))).squeeze(1)


def make():
    torch.manual_seed(3)
    net = Net().train()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _ in range(4):
            net(torch.randint(0, 256, (4, 3, 64, 64), generator=generator))
    return net


def other():
    net = make()
    with torch.no_grad():
        net.out.bias += 1.0
    return net


def fails():
    return 1 / 0


def number():
    return 5


def two_logits():
    return nn.Sequential(Net(), nn.Identity())


class Pair(Net):
    def forward(self, image):
        logit = super().forward(image)
        return torch.stack([logit, logit], dim=1)


class Double(Net):
    def forward(self, image):
        return super().forward(image).double()


class Wrong(Net):
    def forward(self, image):
        return super().forward(image[:, :2])
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network above as a module in the current folder, which a script's path does not hold."""
    (tmp_path / "my_networks.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)


def test_a_network_of_ones_own_is_exported_and_verified(
    tmp_path: Path, pictures: list[Path]
) -> None:
    """Exact in both tiers; found again by its state; detected with no torch in it."""
    source = source_from_module("my_networks:make")
    assert (source.arch, source.bits) == ("make", 4)
    result = export_bundle(source, tmp_path / "bundle", images=pictures)
    assert result.passed
    for tier in result.parity:
        assert {layer.layer for layer in tier.layers} == {"down", "act", "binary", "project"}
        assert all(layer.codes and not layer.wrong for layer in tier.layers)
    entry = Bundle.open(tmp_path / "bundle").manifest["source"]
    assert entry["module"] == "my_networks:make"
    assert entry["sha256"] == state_digest(source.network)
    verified = verify_bundle(tmp_path / "bundle", module="my_networks:make", images=pictures)
    assert verified.passed
    scores = [v.score for v in Detector.open(tmp_path / "bundle").detect(pictures)]
    assert all(score is not None and 0 < score < 1 for score in scores)


def test_each_convolution_is_stored_at_its_own_width(tmp_path: Path, pictures: list[Path]) -> None:
    """Weights by width: 2592 of 4 bits, 1296 of 3 (2 + 1), 192 of 8, 9216 of 1, 384 of 2."""
    export_bundle(source_from_module("my_networks:make"), tmp_path / "b", images=pictures[1:])
    sizes = {
        tensor.name: len(tensor.raw_data)
        for tensor in onnx.load(tmp_path / "b" / MODEL).graph.initializer
        if ".index" in tensor.name and tensor.name.endswith((".bytes", ".uint4", ".uint8"))
    }
    assert sorted(sizes.values()) == sorted(
        [12 * 24 * 9 // 2, 24 * 6 * 9 // 4, 24 * 6 * 9 // 8, 24 * 8, 32 * 32 * 9 // 8, 32 * 12 // 4]
    )


def test_a_bundle_of_a_module_needs_that_module(tmp_path: Path, pictures: list[Path]) -> None:
    """Left out, or with another state: the message says which."""
    export_bundle(
        source_from_module("my_networks:make"), tmp_path / "b", images=pictures, verify=False
    )
    with pytest.raises(ParityError, match="from the module my_networks:make; name it with --mod"):
        verify_bundle(tmp_path / "b", images=pictures)
    with pytest.raises(ParityError, match=r"my_networks:other: its network is not the one"):
        verify_bundle(tmp_path / "b", module="my_networks:other", images=pictures)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("my_networks", "is not of the form package.module:factory"),
        (":make", "is not of the form"),
        ("no_such_module:make", "cannot be imported: No module named 'no_such_module'"),
        ("my_networks:nothing", "cannot be imported: module 'my_networks' has no attribute"),
        ("my_networks:fails", "the factory failed: ZeroDivisionError"),
        ("my_networks:number", r"returned int, not a torch\.nn\.Module"),
        ("my_networks:Pair", r"one logit an image, float32 \[N\]; for two images it gave \[2, 2\]"),
        ("my_networks:Double", "its logits are torch.float64"),
        ("my_networks:Wrong", r"cannot run on uint8 images \[2, 3, 64, 64\]: RuntimeError"),
    ],
)
def test_what_is_no_network_is_refused(spec: str, said: str) -> None:
    with pytest.raises(ExportError, match=said):
        source_from_module(spec)


def test_a_network_at_hand(tmp_path: Path, pictures: list[Path]) -> None:
    """The Python interface: no file, no module; a detector's configuration is kept."""
    torch.manual_seed(0)
    detector = build_detector("resnet23", 2, width=0.125)
    source = source_from_network(detector, "mine")
    assert not detector.training
    result = export_bundle(source, tmp_path / "b", images=pictures)
    assert result.passed
    assert Bundle.open(tmp_path / "b").manifest["source"]["config"]["width"] == 0.125


def test_the_digest_sees_every_tensor() -> None:
    """Values, names, shapes and types."""
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    seen = {state_digest(net)}
    net[1].running_mean.add_(1e-6)  # type: ignore[union-attr, operator]
    seen.add(state_digest(net))
    net[1].num_batches_tracked.add_(1)  # type: ignore[union-attr, operator]
    seen.add(state_digest(net))
    seen.add(state_digest(nn.Sequential(net, nn.Identity())))
    seen.add(state_digest(net.half()))
    assert len(seen) == 5


def test_what_a_checkpoint_was_trained_on_travels_with_it(
    tmp_path: Path, small: nn.Module, shallow: None
) -> None:
    """Into the manifest's source; nothing without a record, an error where it is none."""
    path = tmp_path / "c.safetensors"
    for notes, want in (({"generators": '["a", "b"]'}, ["a", "b"]), ({}, None)):
        path.write_bytes(checkpoint_bytes(small, notes))
        assert source_from_checkpoint(path).entry.get("generators") == want
    path.write_bytes(checkpoint_bytes(small, {"generators": "{}"}))
    with pytest.raises(ExportError, match=r"c\.safetensors: its record .* train it again"):
        source_from_checkpoint(path)
