"""N2UQ's published ResNets' format: ``quan1.a``, ``quan1.start``, ``clip_val``, ``bias11`` ...

Source: Liu et al., CVPR 2022, and their published code. Its two quantizers are ours by name and
meaning (:mod:`..quantizers.n2uq`): gaps held above 1e-3, strict ``>``, ``scale1`` on the input,
``scale2`` on the output; weights at odd integers times a scale from their mean magnitude. What
differs is said in the report, and in ``docs/import.md``:

* the stem: full precision there, 8-bit weights and whole pixel means here;
* the head: of 1000 classes there, one logit here, which has to be trained;
* downsampling convolutions, where the file has them in full precision: refused, or quantised if
  that is asked for, with the thresholds of the block's first quantizer, which sees the same input
  behind its shifts. Such a network has to be trained on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..config import DetectorConfig
from ..errors import ModelError
from ..n2uq_resnet import LAYOUTS, N2uqBottleneck
from ..quantizers import QUANTIZED_BITS
from ..quantizers.n2uq import SMALLEST_CLIP, SMALLEST_GAP
from ..stem import IMAGENET_STD, PIXEL_MEAN, PIXEL_TOP
from .account import Rule, norm_rules, per_channel_shape, scalar_shape
from .format import Format
from .layout import Layout, layout_of, width_of
from .npr import divided_by_std

#: ImageNet's mean of pixels scaled to 0..1, exact.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
#: Tensors of the published quantizers that are constants of their formulas.
_CONSTANTS = {"two": 2.0, "one": 1.0, "zero": 0.0, "minusone": -1.0, "eps": SMALLEST_GAP}
_CONSTANT = re.compile(r"layer\d+\.\d+\.(?:quan\d|conv\d|downsample\.[01])\.(\w+)")
_NETWORKS = {
    Layout(depths, block is N2uqBottleneck): arch for arch, (block, depths) in LAYOUTS.items()
}


class N2uqFormat(Format):
    """See the module's text.

    Args:
        quantize_downsample: accept downsampling convolutions in full precision, and quantise them.
    """

    name = "n2uq"
    marks = ("conv1.weight", "layer1.0.quan1.a")

    def __init__(self, quantize_downsample: bool = False) -> None:
        self.quantize_downsample = quantize_downsample

    def config(self, tensors: Mapping[str, Tensor], bits: int | None) -> DetectorConfig:
        found = layout_of(tensors)
        if found not in _NETWORKS:
            known = "; ".join(f"{arch}: {layout}" for layout, arch in _NETWORKS.items())
            raise ModelError(f"{found}; N2UQ's published networks have others ({known})")
        float_ones = [key for key in tensors if key.endswith(".downsample.0.weight")]
        if float_ones and not self.quantize_downsample:
            raise ModelError(
                f"its {len(float_ones)} downsampling convolutions are in full precision, which no "
                "two runtimes sum alike; take the checkpoint that quantises them, or add "
                "--quantize-downsample to quantise them here, and train on"
            )
        return DetectorConfig(
            _NETWORKS[found],
            _bits_of(tensors, bits),
            slr=False,
            cqb=False,
            representation="rgb",
            width=width_of(tensors),
        )

    def rules(self, config: DetectorConfig, tensors: Mapping[str, Tensor]) -> dict[str, Rule]:
        rules = {
            "conv1.weight": Rule(
                "stem.conv.weight",
                convert=divided_by_std,
                note="divided by the pixels' std, for 8 bits",
            ),
            **norm_rules("bn1", "stem.conv.bn"),
            "bn1.running_mean": Rule(
                "stem.conv.bn.running_mean",
                convert=lambda mean: mean - mean_shift(tensors["conv1.weight"]),
                note="moved with the pixels' rounded mean",
            ),
        }
        block, depths = LAYOUTS[config.arch]
        count = 3 if block is N2uqBottleneck else 2
        for stage, depth in enumerate(depths):
            for position in range(depth):
                theirs, ours = f"layer{stage + 1}.{position}", f"stages.{stage}.{position}"
                rules |= _block_rules(theirs, ours, count)
                if position == 0 and (stage > 0 or block is N2uqBottleneck):
                    rules |= _downsample_rules(theirs, ours, tensors)
        if _classes(tensors) == 1:
            rules["fc.weight"] = Rule("head.fc.weight")
            rules["fc.bias"] = Rule("head.fc.bias")
        return rules

    def drop_reason(self, key: str, tensor: Tensor) -> str | None:
        if key in ("fc.weight", "fc.bias"):
            return f"{tensor.shape[0] if tensor.dim() else 0} classes; a detector's head is new"
        found = _CONSTANT.fullmatch(key)
        if found is None or found[1] not in _CONSTANTS:
            return None
        want = torch.tensor([_CONSTANTS[found[1]]])
        if not torch.equal(tensor, want):
            raise ModelError(
                f"{key} is {tensor.reshape(-1)[:3].tolist()}, and {want.tolist()} in the published "
                "quantizer: this is another one"
            )
        return f"the published formula's {_CONSTANTS[found[1]]:g}"

    def initial_reason(self, ours: str) -> str:
        if ours.startswith("head."):
            return "new (seed 0): to be trained"
        if ours == "stem.gain":
            return "a constant: a pixel's share of 255"
        if ".downsample.act." in ours:
            return "as the block's first quantizer: to be trained"
        if ".downsample." in ours and ours.endswith(".clip_val"):
            return "N2UQ's initial value: to be trained"
        return "not in the file; it only counts batches"

    def fill(self, state: Mapping[str, Tensor], initialised: list[str]) -> None:
        for key in initialised:
            if ".downsample.act." in key:
                state[key].copy_(state[key.replace(".downsample.", ".conv1.")])

    def notes(self, tensors: Mapping[str, Tensor]) -> list[str]:
        _check_scales(tensors)
        lines = [
            "the stem's weights are rounded to 8 bits, and the pixels' mean to whole values, in "
            "evaluation; the published stem is in full precision"
        ]
        if _classes(tensors) != 1:
            lines.append("the head is new: scores mean nothing before the network is trained on")
        new = [key for key in tensors if key.endswith(".downsample.0.weight")]
        if new:
            lines.append(
                f"{len(new)} downsampling convolutions were in full precision and are quantised "
                "here: another function than the published one, to be trained on"
            )
        held = {k: int((t < SMALLEST_GAP).sum()) for k, t in tensors.items() if k.endswith(".a")}
        if any(held.values()):
            lines.append(
                f"{sum(held.values())} gaps below {SMALLEST_GAP:g} are held there, as published"
            )
        falling = [k for k, t in tensors.items() if k.endswith(".scale1") and bool((t < 0).any())]
        if falling:
            lines.append(
                f"{len(falling)} quantizers have a negative input scale "
                f"({', '.join(k.removesuffix('.scale1') for k in falling)}): they fall with their "
                "input, so their codes are counted from the other end; the values are the published"
            )
        return lines


def mean_shift(weight: Tensor) -> Tensor:
    """What the stem's output ``[C]`` gains where pixels lose the exact mean, not the whole one.

    ``sum w (round(m) - m) / (255 std)``; the batch-norm's mean is moved by it, so that only where
    the kernel hangs over the image's edge a difference is left.
    """
    exact = torch.tensor(IMAGENET_MEAN, dtype=torch.float64) * PIXEL_TOP
    lost = (torch.tensor(PIXEL_MEAN, dtype=torch.float64) - exact) / PIXEL_TOP
    lost /= torch.tensor(IMAGENET_STD, dtype=torch.float64)
    return (weight.double().sum(dim=(2, 3)) @ lost).float()


def _classes(tensors: Mapping[str, Tensor]) -> int:
    weight = tensors.get("fc.weight")
    return weight.shape[0] if weight is not None and weight.dim() else 0


def _bits_of(tensors: Mapping[str, Tensor], asked: int | None) -> int:
    """The width whose number of thresholds every quantizer has."""
    sizes = {tensor.numel() for key, tensor in tensors.items() if key.endswith(".a")}
    known = {2**bits - 1: bits for bits in QUANTIZED_BITS}
    if len(sizes) != 1 or not sizes <= known.keys():
        raise ModelError(
            f"its quantizers have {', '.join(map(str, sorted(sizes)))} thresholds; one width for "
            f"all of them is needed, of {', '.join(map(str, known))} thresholds"
        )
    bits = known[sizes.pop()]
    if asked not in (None, bits):
        raise ModelError(f"its quantizers have {2**bits - 1} thresholds: {bits} bits, not {asked}")
    return bits


def _quantizer_rules(source: str, ours: str) -> dict[str, Rule]:
    rules = {
        f"{source}.{name}": Rule(f"{ours}.{name}", scalar_shape)
        for name in ("start", "scale1", "scale2")
    }
    return {**rules, f"{source}.a": Rule(f"{ours}.a")}


def _shift_rules(source: str, number: int, ours: str) -> dict[str, Rule]:
    """Shift, PReLU, shift."""
    return {
        f"{source}.bias{number}1.bias": Rule(f"{ours}.shift_in.bias", per_channel_shape),
        f"{source}.prelu{number}.weight": Rule(f"{ours}.prelu.weight"),
        f"{source}.bias{number}2.bias": Rule(f"{ours}.shift_out.bias", per_channel_shape),
    }


def _conv_rules(source: str, ours: str) -> dict[str, Rule]:
    return {
        f"{source}.weight": Rule(f"{ours}.weight"),
        f"{source}.clip_val": Rule(f"{ours}.quantizer.clip_val", scalar_shape),
    }


def _block_rules(theirs: str, ours: str, count: int) -> dict[str, Rule]:
    """``count`` convolutions, and what closes the block: numbered 3, in bottlenecks 0."""
    rules: dict[str, Rule] = {}
    for number in range(1, count + 1):
        layer = f"{ours}.conv{number}"
        rules |= _shift_rules(theirs, number, f"{layer}.act")
        rules |= _quantizer_rules(f"{theirs}.quan{number}", f"{layer}.act.quantizer")
        rules |= _conv_rules(f"{theirs}.conv{number}", f"{layer}.conv")
        rules |= norm_rules(f"{theirs}.bn{number}", f"{layer}.conv.bn")
    return rules | _shift_rules(theirs, 3 if count == 2 else 0, f"{ours}.closing")


def _downsample_rules(theirs: str, ours: str, tensors: Mapping[str, Tensor]) -> dict[str, Rule]:
    source, layer = f"{theirs}.downsample", f"{ours}.downsample"
    if f"{source}.0.weight" in tensors:
        note = "in full precision in the file; quantised here"
        return {
            f"{source}.0.weight": Rule(f"{layer}.conv.weight", note=note),
            **norm_rules(f"{source}.1", f"{layer}.conv.bn"),
        }
    return {
        **_quantizer_rules(f"{source}.0", f"{layer}.act.quantizer"),
        **_conv_rules(f"{source}.1", f"{layer}.conv"),
        **norm_rules(f"{source}.2", f"{layer}.conv.bn"),
    }


def _check_scales(tensors: Mapping[str, Tensor]) -> None:
    for key, tensor in tensors.items():
        if key.endswith(".clip_val") and bool((tensor < SMALLEST_CLIP).any()):
            raise ModelError(
                f"{key} is {float(tensor.min()):g}; weights cannot be clipped below "
                f"{SMALLEST_CLIP:g}: take another checkpoint"
            )
        if key.endswith(".scale1") and bool((tensor == 0).any()):
            raise ModelError(
                f"{key} is 0: its quantizer gives one code whatever it reads; take another "
                "checkpoint"
            )
