"""The twin's topology quantised by Brevitas, as the QCDQ model that it exports.

    python benchmarks/_brevitas.py TWIN FILE IMAGES [--bits 2]

TWIN is the twin's checkpoint, IMAGES an ``.npy`` file, uint8 ``[k, N, 3, H, W]``.

Brevitas wants an older setuptools than this project, so it is in no extra; a folder of its own on
``PYTHONPATH`` is enough:

    pip install --target FOLDER --no-deps brevitas==0.13.4 dependencies==2.0.1
    pip install --target FOLDER --no-deps unfoldNd onnxoptimizer

Its quantizers stand where ours do: per tensor and unsigned behind the nonlinearity, per channel and
signed on the weights; the stem and the head stay in full precision. Nothing is trained: weights are
the twin's, scales come from a forward pass over the images.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from qmdd.models import ActivationChain, QuantConv2d
from qmdd.models.checkpoint import Checkpoint


class _Quantised(nn.Module):
    """A convolution of ours with Brevitas's in it; batch-norm and gain stay."""

    def __init__(self, conv: QuantConv2d, bits: int) -> None:
        super().__init__()
        from brevitas import nn as qnn

        self.conv = qnn.QuantConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel,
            stride=conv.stride,
            padding=conv.padding,
            groups=conv.groups,
            bias=False,
            weight_bit_width=bits,
            weight_scaling_per_output_channel=True,
        )
        self.conv.weight.data.copy_(conv.latent().detach())
        self.bn = conv.bn

    def forward(self, x: torch.Tensor, gain: torch.Tensor | None = None) -> torch.Tensor:
        out = self.bn(self.conv(x))
        return out if gain is None else out * gain


def quantise(network: nn.Module, bits: int) -> nn.Module:
    """Put Brevitas's quantizers into the twin, everywhere but in the stem."""
    from brevitas import nn as qnn
    from brevitas.quant import Uint8ActPerTensorFloat

    for name, module in list(network.named_modules()):
        if isinstance(module, QuantConv2d) and not name.startswith("stem"):
            network.set_submodule(name, _Quantised(module, bits))
        elif isinstance(module, ActivationChain):
            act = qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat, bit_width=bits)
            network.set_submodule(name, nn.Sequential(module, act))
    return network


def main() -> None:
    """Build, run once in training mode, export, say how long the export took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("twin", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--bits", type=int, default=2)
    given = parser.parse_args()
    from brevitas.export import export_onnx_qcdq

    network = quantise(Checkpoint(given.twin).detector().eval(), given.bits)
    images = torch.from_numpy(np.load(given.images))
    for module in network.modules():  # statistics of scales only; batch-norm keeps the twin's
        if type(module).__module__.startswith("brevitas"):
            module.train()
    with torch.no_grad():
        for batch in images:
            network(batch)
    network.eval()
    started = time.perf_counter()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        export_onnx_qcdq(
            network,
            args=images[0],
            export_path=str(given.file),
            input_names=["image"],
            output_names=["logit"],
            dynamic_axes={"image": {0: "N", 2: "H", 3: "W"}, "logit": {0: "N"}},
            opset_version=17,
            dynamo=False,
        )
    print(f"{time.perf_counter() - started:.2f}")


if __name__ == "__main__":
    main()
