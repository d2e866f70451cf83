"""What may stand before a quantizer is decided before anything is written."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qmdd.exporter.errors import ExportError
from qmdd.exporter.trace import canonical_from_detector
from qmdd.models import CQB, ActivationChain, QuantConv2d, Stem

Operation = Callable[["Network", Tensor], Tensor]


class Network(nn.Module):
    """A stem, an operation to be tried, a quantised layer, a head."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.stem = Stem(8, kernel=3, pool=False)
        self.plain = nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 8)
        self.prelu = nn.PReLU(8)
        self.operation = operation
        self.layer = CQB(8, 8, 3, bits=2)
        self.head = nn.Linear(8, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.layer(self.operation(self, self.stem(image)))
        logit: Tensor = self.head(torch.sigmoid(x).mean(dim=(2, 3)))
        return logit.squeeze(1)


def _network(operation: Operation) -> Network:
    torch.manual_seed(0)
    return Network(operation).eval()


INEXACT: dict[str, tuple[Operation, str, str]] = {
    "convolution": (lambda net, x: net.plain(x), "plain: Conv", "QuantConv2d behind"),
    "batch-norm": (
        lambda net, x: net.norm(x),
        "norm: BatchNormalization",
        "QuantConv2d bring its own",
    ),
    "linear": (
        lambda net, x: net.linear(x.transpose(1, 3)).transpose(1, 3),
        "linear: (MatMul|Gemm)",
        "behind the last quantizer",
    ),
    "sigmoid": (lambda _, x: torch.sigmoid(x), "Sigmoid", "behind the last quantizer"),
    "exponential": (lambda _, x: torch.exp(x), "Exp", "behind the last quantizer"),
    "attention": (
        lambda _, x: x * x.mean(dim=(2, 3), keepdim=True),
        "ReduceMean",
        "behind the last quantizer",
    ),
    "wide pooling": (lambda _, x: F.avg_pool2d(x, 2), "AveragePool", "1x2 and 2x1"),
    "bilinear": (
        lambda _, x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
        "Resize",
        "nearest",
    ),
}

EXACT: dict[str, Operation] = {
    "nothing": lambda _, x: x,
    "prelu": lambda net, x: net.prelu(x),
    "arithmetic": lambda _, x: (x * 1.5 + 0.25).clamp(-2.0, 2.0).abs() - x / 3.0,
    "pooling": lambda _, x: F.avg_pool2d(F.avg_pool2d(x, (1, 2)), (2, 1)) + F.max_pool2d(x, 2),
    "nearest": lambda _, x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "concatenation": lambda _, x: torch.cat([x[:, 4:], x[:, :4]], dim=1),
    "selection": lambda _, x: torch.where(x > 0.5, x, -x),
    "shuffle": lambda _, x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2),
}


@pytest.mark.parametrize("case", INEXACT)
def test_what_runtimes_round_differently_is_named(case: str) -> None:
    """The layer, the operation and the way out, before a file is written."""
    operation, named, way_out = INEXACT[case]
    with pytest.raises(ExportError, match=rf"not exact: .*{named}.* before a quantizer.*{way_out}"):
        canonical_from_detector(_network(operation))


@pytest.mark.parametrize("case", EXACT)
def test_what_ieee_defines_may_stand_there(case: str) -> None:
    """And what stands behind the last quantizer (a sigmoid, a mean) is nobody's business."""
    model = canonical_from_detector(_network(EXACT[case]))
    assert sum(node.op_type == "MultiThreshold" for node in model.graph.node) == 1


def test_many_are_counted() -> None:
    """Three are named, the rest counted, each piece of advice given once."""

    def operation(net: Network, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.sigmoid(net.plain(x))
        return x

    with pytest.raises(ExportError, match=r"\(and 3 more\)") as caught:
        canonical_from_detector(_network(operation))
    text = str(caught.value)
    assert len(re.findall("before a quantizer", text)) == 3
    assert text.count("QuantConv2d behind") == 1


def test_a_quantised_convolution_without_a_quantizer_says_so() -> None:
    """Values where codes are needed: the model's own message arrives."""

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = Stem(8, kernel=3), QuantConv2d(8, 1, 1, bits=2)

        def forward(self, image: Tensor) -> Tensor:
            x: Tensor = self.conv(self.stem(image))
            return x.mean(dim=(1, 2, 3))

    with pytest.raises(ExportError, match="put an ActivationChain before it"):
        canonical_from_detector(Bare().eval())


def test_a_convolution_used_in_two_ways_is_refused() -> None:
    """Two quantizers with other steps feed it: no one scale can be folded."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = Stem(8, kernel=3), QuantConv2d(8, 8, 1, bits=2)
            self.first, self.second = (ActivationChain(8, bits=2) for _ in range(2))

        def forward(self, image: Tensor) -> Tensor:
            x = self.stem(image)
            out: Tensor = self.conv(self.second(self.conv(self.first(x))))
            return out.mean(dim=(1, 2, 3))

    network = Shared().eval()
    assert len(canonical_from_detector(network).graph.node) > 0  # equal steps: one scale
    with torch.no_grad():
        network.second.quantizer.inner.scale2.fill_(1.5)  # type: ignore[union-attr]
    with pytest.raises(ExportError, match=r"conv: used twice.*a convolution of its own"):
        canonical_from_detector(network)


def test_a_convolution_that_never_runs_is_named() -> None:
    network = _network(lambda _, x: x)
    network.spare = QuantConv2d(8, 8, 1, bits=2)  # type: ignore[assignment]
    with pytest.raises(ExportError, match="spare: never used"):
        canonical_from_detector(network)
