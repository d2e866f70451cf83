"""What the commands work on: tiny networks, bundles and images, made once and copied."""

from __future__ import annotations

import gc
import hashlib
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

#: Factor of all channel counts of the networks here.
WIDTH = 1 / 8
#: Pixels a side of the images, and how many of a class and generator.
SIDE, IMAGES = 64, 2
#: Two stages of two steps each.
RECIPE = """
width = 0.125
statistics = 6

[[stage]]
bits = 32
epochs = 1
lr = 1e-3
batch = 4
crop = 32
warmup = 1

[[stage]]
bits = 2
epochs = 1
lr = 1e-3
batch = 4
crop = 32
"""


def import_all() -> None:
    """Import what takes seconds, before anything is forked; nothing of it may start a thread."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in (
        *("torch", "onnx", "onnxruntime", "onnx_graphsurgeon", "onnxscript", "PIL.Image"),
        *("safetensors.torch", "pyarrow.parquet", "matplotlib.pyplot", "jinja2", "av"),
        *("torch.onnx._internal.exporter._core", "torch._dynamo", "torch._inductor.config"),
        *("qmdd.exporter.export", "qmdd.exporter.trace", "qmdd.exporter.passes.fold_chain"),
        *("qmdd.calibration.train", "qmdd.calibration.sensitivity", "qmdd.runtime.detector"),
        *("qmdd.runtime.scan.scan", "qmdd.runtime.watching.loop", "qmdd.models.foreign"),
        *("qmdd.exporter.report.gather", "qmdd.exporter.report.page", "qmdd.exporter.twin"),
        *("qmdd.exporter.engine.build", "qmdd.exporter.triton.serve", "qmdd.runtime.bench"),
        *("qmdd.runtime.evaluate", "qmdd.runtime.deploy.deployment", "qmdd.exporter.comparing"),
        *("qmdd.calibration.calibrate", "qmdd.exporter.report.look", "qmdd.exporter.probes"),
    ):
        importlib.import_module(name)

    import torch

    torch.set_num_threads(1)


def trace_once() -> None:
    """Let each network be traced once in this process and in those forked from it afterwards.

    Tracing takes most of the time of an export, and changes no file.
    """
    import onnx

    from qmdd.exporter import trace

    real, known = trace.canonical_from_detector, {}

    def cached(detector: nn.Module) -> onnx.ModelProto:
        key = _key(detector)
        if key not in known:
            known[key] = real(detector).SerializeToString(deterministic=True)
        return onnx.load_from_string(known[key])

    for module in (trace, importlib.import_module("qmdd.exporter.twin")):
        vars(module)["canonical_from_detector"] = cached


def _key(detector: nn.Module) -> str:
    state = hashlib.sha256(repr(detector).encode())
    for name, tensor in sorted(detector.state_dict().items()):
        state.update(name.encode() + tensor.detach().numpy().tobytes())
    return state.hexdigest()


def make_images(root: Path) -> None:
    """Images in the field's layout, ``<generator>/0_real`` and ``1_fake``, two generators."""
    from PIL import Image

    draw = np.random.default_rng(5)
    for generator in ("alpha", "beta"):
        for label, step in (("0_real", 1), ("1_fake", 2)):
            folder = root / generator / label
            folder.mkdir(parents=True)
            for index in range(IMAGES):
                pixels = draw.integers(0, 256, (SIDE // step, SIDE // step, 3), dtype=np.uint8)
                image = Image.fromarray(pixels.repeat(step, 0).repeat(step, 1))
                image.save(folder / f"{index}.png")


def make_detector(bits: int = 2, seed: int = 0) -> Any:
    """A narrow detector whose statistics have seen images."""
    import torch

    from qmdd.models import build_detector

    torch.manual_seed(seed)
    detector = build_detector("resnet23", bits, width=WIDTH).train()
    with torch.no_grad():
        for _ in range(3):
            detector(torch.randint(0, 256, (4, 3, SIDE, SIDE)))
    return detector.eval()


def make_world(root: Path) -> None:
    """Fill the folder ``root``: images, checkpoints, bundles, a recipe, the results of a scan."""
    from qmdd.calibration.train import save_detector
    from qmdd.exporter.export import export_bundle

    make_images(root / "images")
    save_detector(make_detector(), root / "latent.safetensors", {"recipe": "{}"})
    save_detector(make_detector(32), root / "full.safetensors", {"recipe": "{}"})
    for name, target, weights in (
        ("bundle", "onnx", None),
        ("other", "onnx", "int8"),
        ("rtx", "rtx", None),
    ):
        export_bundle(
            root / "latent.safetensors",
            root / name,
            target=target,
            weights=weights,
            images=sorted((root / "images").rglob("*.png"))[:2],
            verify=target == "onnx",
        )
    _make_published(root / "NPR.pth")
    (root / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    _make_results(root)
    _make_repository(root)
    # What is forked would copy every page that the collector of garbage looks at.
    gc.collect()
    gc.freeze()


def _make_published(path: Path) -> None:
    """A checkpoint as others publish it: the tests' own network of that form."""
    import torch

    network = importlib.import_module("tests.foreign.conftest").NprNet()
    torch.save({"model": network.state_dict()}, path)


def _make_results(root: Path) -> None:
    """A finished scan, with another bundle than the one that is used later."""
    from qmdd.runtime.inputs import find_inputs
    from qmdd.runtime.scan.scan import scan

    inputs = find_inputs([os.fspath(root / "images")])
    scan(root / "other", inputs, root / "results", part=3, threads=1)


def _make_repository(root: Path) -> None:
    """A model repository with one version of a model."""
    from qmdd.exporter.triton.serve import serve_bundles

    serve_bundles([root / "other"], root / "models", name="detector")
