"""The published networks, written anew from their papers and descriptions, and files of theirs.

These are the independent side of the comparison: plain torch modules, named as the published code
names its tensors, nothing of qmdd in them. They hold random but sensible weights; in float64 their
forward is what an imported checkpoint is measured against.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NARROW = 8  # channels of the stem, 64 in the published networks


def _colour(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 3, 1, 1)


def normalised(images: Tensor) -> Tensor:
    """``(p / 255 - mean) / std`` of uint8 ``[N, 3, H, W]``, float64."""
    return (images.double() / 255 - _colour(MEAN)) / _colour(STD)


class PostBlock(nn.Module):
    """1x1, 3x3 (strided), 1x1, each with batch-norm; ReLU between them and behind the sum."""

    def __init__(self, c_in: int, planes: int, stride: int) -> None:
        super().__init__()
        out = 4 * planes
        self.conv1 = nn.Conv2d(c_in, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = None
        if stride > 1 or c_in != out:
            conv = nn.Conv2d(c_in, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class NprNet(nn.Module):
    """Tan et al.'s detector: NPR times 2/3 of normalised pixels, half a ResNet-50, one logit."""

    def __init__(self, stem: int = NARROW) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        channels = stem
        for name, planes, depth in (("layer1", stem, 3), ("layer2", 2 * stem, 4)):
            blocks = []
            for position in range(depth):
                stride = 2 if name == "layer2" and position == 0 else 1
                blocks.append(PostBlock(channels, planes, stride))
                channels = 4 * planes
            self.add_module(name, nn.Sequential(*blocks))
        self.fc1 = nn.Linear(channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = normalised(images).to(self.fc1.weight.dtype)
        corner = x[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = F.relu(self.bn1(self.conv1((x - corner) * 2 / 3)))
        x = F.max_pool2d(x, 3, 2, padding=1)
        x = self.get_submodule("layer2")(self.get_submodule("layer1")(x))
        return self.fc1(x.mean(dim=(2, 3))).squeeze(1)


class Bias(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class Thresholds(nn.Module):
    """N2UQ's activation quantizer, Eq. 5-6; ``count`` keeps the codes of the last call."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.top = 2**bits - 1
        self.a = nn.Parameter(torch.full((self.top,), 2 / self.top))
        for name, value in (("start", 0), ("scale1", 1), ("scale2", 1)):
            self.register_parameter(name, nn.Parameter(torch.tensor([float(value)])))
        constants = {"two": 2.0, "one": 1.0, "zero": 0.0, "minusone": -1.0, "eps": 1e-3}
        for name, constant in constants.items():
            self.register_parameter(name, nn.Parameter(torch.tensor([constant]), False))
        self.count = torch.empty(0)

    def margins(self, x: Tensor) -> Tensor:
        """``scale1 x - T_i``, ``[..., n]``."""
        gaps = torch.where(self.a > 1e-3, self.a, torch.full_like(self.a, 1e-3))
        thresholds = self.start + torch.cumsum(gaps, 0) - gaps / 2
        return (x * self.scale1)[..., None] - thresholds

    def forward(self, x: Tensor) -> Tensor:
        self.count = (self.margins(x) > 0).sum(-1)
        return self.count * (2 / self.top) * self.scale2


class HardConv(nn.Module):
    """N2UQ's weight quantizer and convolution; a channel of zeros stays one."""

    def __init__(self, c_in: int, c_out: int, bits: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.bits, self.stride = bits, stride
        self.clip_val = nn.Parameter(torch.tensor([2.0]))
        self.zero = nn.Parameter(torch.tensor([0.0]), False)
        weight = torch.empty(c_out, c_in, kernel, kernel)
        self.weight = nn.Parameter(nn.init.kaiming_normal_(weight, mode="fan_out"))

    def levels(self) -> tuple[Tensor, Tensor]:
        """Level ``0 .. n`` before rounding ``[C_out, ...]``, and each channel's factor."""
        top = 2**self.bits - 1
        factor = self.weight.abs().mean(dim=(1, 2, 3), keepdim=True) * top / 2 ** (self.bits - 1)
        half = self.clip_val / 2
        scaled = torch.where(factor > 0, self.weight / factor, torch.zeros_like(self.weight))
        return (torch.clamp(scaled, -half, half) + half) * top / self.clip_val, factor

    def forward(self, x: Tensor) -> Tensor:
        level, factor = self.levels()
        top = 2**self.bits - 1
        weight = factor * (torch.round(level) * self.clip_val / top - self.clip_val / 2)
        return F.conv2d(x, weight, stride=self.stride, padding=self.weight.shape[2] // 2)


class UniformBlock(nn.Module):
    """Before each convolution bias, PReLU, bias, quantizer; behind the sum the first three."""

    def __init__(
        self, c_in: int, planes: int, stride: int, bits: int, deep: bool, quantised_down: bool
    ) -> None:
        super().__init__()
        out = planes * (4 if deep else 1)
        plain = [(c_in, planes, 3, stride), (planes, planes, 3, 1)]
        bottle = [(c_in, planes, 1, 1), (planes, planes, 3, stride), (planes, out, 1, 1)]
        layers = bottle if deep else plain
        self.count, self.last = len(layers), "0" if deep else "3"
        for number, (before, after, kernel, by) in enumerate(layers, 1):
            self._shifts(str(number), before)
            self.add_module(f"quan{number}", Thresholds(bits))
            self.add_module(f"conv{number}", HardConv(before, after, bits, kernel, by))
            self.add_module(f"bn{number}", nn.BatchNorm2d(after))
        self._shifts(self.last, out)
        self.downsample = None
        if stride > 1 or c_in != out:
            norm = nn.BatchNorm2d(out)
            if quantised_down:
                conv = HardConv(c_in, out, bits, 1, stride)
                self.downsample = nn.Sequential(Thresholds(bits), conv, norm)
            else:
                self.downsample = nn.Sequential(nn.Conv2d(c_in, out, 1, stride, bias=False), norm)

    def _shifts(self, number: str, channels: int) -> None:
        self.add_module(f"bias{number}1", Bias(channels))
        self.add_module(f"prelu{number}", nn.PReLU(channels))
        self.add_module(f"bias{number}2", Bias(channels))

    def _shifted(self, number: str, x: Tensor) -> Tensor:
        for name in (f"bias{number}1", f"prelu{number}", f"bias{number}2"):
            x = self.get_submodule(name)(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number in map(str, range(1, self.count + 1)):
            y = self._shifted(number, y)
            for part in ("quan", "conv", "bn"):
                y = self.get_submodule(f"{part}{number}")(y)
        return self._shifted(self.last, y + (x if self.downsample is None else self.downsample(x)))


class UniformNet(nn.Module):
    """Liu et al.'s ResNets: 7x7 stem on normalised pixels, four stages, mean, linear layer."""

    def __init__(
        self,
        arch: str = "resnet18",
        bits: int = 2,
        stem: int = NARROW,
        classes: int = 1000,
        quantised_down: bool = True,
    ) -> None:
        super().__init__()
        depths = {"resnet18": (2, 2, 2, 2)}.get(arch, (3, 4, 6, 3))
        deep = arch == "resnet50"
        self.conv1 = nn.Conv2d(3, stem, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        channels = stem
        for stage, depth in enumerate(depths):
            planes, blocks = stem * 2**stage, []
            for position in range(depth):
                stride = 2 if stage and not position else 1
                block = UniformBlock(channels, planes, stride, bits, deep, quantised_down)
                blocks.append(block)
                channels = planes * (4 if deep else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)
        #: What is taken from pixels; the published mean, unless a test puts another one here.
        self.pixel_mean = _colour(MEAN) * 255

    def stem(self, images: Tensor) -> Tensor:
        """The convolution's output."""
        x = (images.double() - self.pixel_mean) / 255 / _colour(STD)
        return self.conv1(x.to(self.conv1.weight.dtype))

    def forward(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.stem(images))), 3, 2, padding=1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(x.mean(dim=(2, 3)))

    def quantizers(self) -> dict[str, Thresholds]:
        """By our layers' names, in the order of execution."""
        found = {}
        for name, module in self.named_modules():
            if isinstance(module, Thresholds):
                stage, position, layer, *_ = name.split(".")
                number = int(stage.removeprefix("layer")) - 1
                ours = layer.replace("quan", "conv")
                found[f"stages.{number}.{position}.{ours}"] = module
        return found


def _spread(net: nn.Module, seed: int) -> None:
    """Random but sensible values where a fresh network has round ones."""
    generator = torch.Generator().manual_seed(seed)
    ranges = {
        "scale1": (0.8, 1.5),
        "scale2": (0.8, 1.3),
        "clip_val": (1.6, 2.4),
        "start": (-0.5, 0.0),
    }
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, Thresholds):
                module.a.uniform_(1.2 / module.top, 2.8 / module.top, generator=generator)
            for name, parameter in module.named_parameters(recurse=False):
                if name in ranges:
                    parameter.uniform_(*ranges[name], generator=generator)
            if isinstance(module, nn.PReLU):
                module.weight.uniform_(0.0, 0.5, generator=generator)
            elif isinstance(module, Bias):
                module.bias.uniform_(-0.2, 0.2, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.3, 0.3, generator=generator)


def _settled(net: nn.Module, seed: int) -> nn.Module:
    """Batch-norm statistics of real forwards, then evaluation mode."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    generator = torch.Generator().manual_seed(seed)
    for norm in norms:
        norm.momentum = 0.5
    net.train()
    with torch.no_grad():
        for _ in range(4):
            net(torch.randint(0, 256, (4, 3, 64, 64), generator=generator))
    return net.eval().requires_grad_(False)


Maker = Callable[..., Any]


@pytest.fixture(scope="session")
def npr_net() -> Maker:
    """``npr_net(stem=8, seed=0)``: a settled :class:`NprNet`, a fresh copy each time."""

    def make(seed: int = 0, **options: Any) -> NprNet:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = NprNet(**options)
        _spread(net, seed)
        settled = _settled(net, seed)
        assert isinstance(settled, NprNet)
        return settled

    return make


@pytest.fixture(scope="session")
def n2uq_net() -> Maker:
    """``n2uq_net(arch="resnet18", bits=2, ..., seed=0)``: a settled :class:`UniformNet`."""

    def make(seed: int = 0, **options: Any) -> UniformNet:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = UniformNet(**options)
        _spread(net, seed)
        settled = _settled(net, seed)
        assert isinstance(settled, UniformNet)
        return settled

    return make


@pytest.fixture(scope="session")
def save_n2uq() -> Callable[..., Path]:
    """Save a network as N2UQ's training script does: under ``module.``, beside other things."""

    def save(net: nn.Module, path: Path, **options: Any) -> Path:
        state = {f"module.{key}": value for key, value in net.state_dict().items()}
        beside = {"epoch": 128, "best_top1_acc": torch.tensor(69.4), "optimizer": {"state": {}}}
        torch.save({**beside, "state_dict": state}, path, **options)
        return path

    return save


@pytest.fixture(scope="session")
def with_our_stem() -> Maker:
    """``with_our_stem(net, detector)``: a :class:`UniformNet` with the detector's 8-bit stem.

    In float64. Weights, pixel mean and statistics of the stem are those that the detector computes
    with in evaluation, since the published stem is in full precision; a head of 1000 classes is the
    detector's new one. All else stays as it is.
    """

    def change(net: UniformNet, detector: Any) -> UniformNet:
        net, stem = net.double(), detector.stem
        frozen = stem.conv.frozen()
        with torch.no_grad():
            scale = frozen.scale.double().reshape(-1, 1, 1, 1)
            net.conv1.weight.copy_(frozen.codes.double() * scale * _colour(STD))
            net.bn1.running_mean.copy_(stem.conv.bn.running_mean)
        if net.fc.out_features != 1:
            net.fc = detector.head.fc.double()
        net.pixel_mean = _colour((124, 116, 104))
        return net

    return change


@pytest.fixture(scope="session")
def some_images() -> Tensor:
    """Four images of noise on coarse blocks: uint8 ``[4, 3, 64, 96]``."""
    rng = np.random.default_rng(21)
    coarse = rng.integers(0, 256, (4, 3, 8, 12)).repeat(8, axis=2).repeat(8, axis=3)
    noisy = np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255)
    return torch.from_numpy(noisy.astype(np.uint8))
