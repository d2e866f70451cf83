"""What the exporter's tests share: shallow detectors, each traced once; graphs in ONNX Runtime."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
import torch
from PIL import Image

from qmdd.exporter.export import export_bundle
from qmdd.exporter.lower import _forget_shapes, _pack_initializers, _set_header
from qmdd.exporter.multithreshold import DOMAIN
from qmdd.exporter.passes.cell_stem import lower_cells
from qmdd.exporter.passes.engine_blob import int4_constants
from qmdd.exporter.passes.lower_thresholds import lower_thresholds
from qmdd.exporter.passes.pack_weights import packed_constants
from qmdd.exporter.passes.transpose_rest import transpose_rest
from qmdd.exporter.source import Source
from qmdd.models import (
    Detector,
    build_detector,
    mobilenet,
    n2uq_resnet,
    npr_resnet,
    quantised_chains,
    resnet,
)
from qmdd.models.checkpoint import checkpoint_bytes, freeze
from qmdd.models.quantizers import (
    LsqActivation,
    MinMaxActivation,
    N2uqActivation,
    SlrActivation,
)

#: 1/8 of the real widths, as in the other rooms, and one block to a stage: tracing takes 2 s.
NARROW = 1 / 8
SHALLOW = {name: (block, (1, 1, 1, 1)) for name, (block, _) in resnet.LAYOUTS.items()}
SHALLOW_N2UQ = {name: (block, (1, 2, 1, 1)) for name, (block, _) in n2uq_resnet.LAYOUTS.items()}
#: No expansion, a strided block, a residual one; every projection's ratio but 144 -> 32 is whole.
SHALLOW_MOBILE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2))

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]


def _patch_depth(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(resnet, "LAYOUTS", SHALLOW)
    patch.setattr(mobilenet, "SETTINGS", SHALLOW_MOBILE)
    patch.setattr(n2uq_resnet, "LAYOUTS", SHALLOW_N2UQ)
    patch.setattr(npr_resnet, "DEPTHS", (1, 2))


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a test runs, detectors have one block to a stage."""
    _patch_depth(monkeypatch)


def _spread(detector: Detector, seed: int) -> None:
    """Give every parameter that a fresh detector has at a round value one of its own."""
    rng = np.random.default_rng(seed)

    def draw(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.from_numpy(rng.uniform(low, high, tuple(tensor.shape))))

    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if "prelu" in name:
                draw(parameter, 0.0, 0.6)
            elif ".shift_" in name:
                draw(parameter, -0.2, 0.2)
            elif name.endswith(".alpha"):
                draw(parameter, 0.3, 0.8)
            elif name.endswith("bn.weight"):
                draw(parameter, 0.5, 1.5)
            elif name.endswith("bn.bias"):
                draw(parameter, -0.3, 0.3)
        for module in detector.modules():
            if isinstance(module, N2uqActivation):
                draw(module.a, 1.2 / module.top, 2.8 / module.top)
                draw(module.scale2, 0.7, 1.3)
            if isinstance(module, SlrActivation):
                draw(module.tau, -0.2, 0.2)


def _fit_ranges(detector: Detector) -> None:
    """Let LSQ and MinMax span what they meet in evaluation, so that all their codes occur."""
    generator = torch.Generator().manual_seed(12)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        for _, layer in quantised_chains(detector):
            outer = layer.quantizer
            inner = outer.inner if isinstance(outer, SlrActivation) else outer

            def count(
                x: torch.Tensor,
                inner: torch.nn.Module | None = inner,
                original: Callable[[torch.Tensor], torch.Tensor] = inner.count,  # type: ignore[union-attr]
            ) -> torch.Tensor:
                low, high = np.quantile(x.numpy(), [0.02, 0.98])
                if isinstance(inner, LsqActivation) and high > 0:
                    inner.raw_step.fill_(high / inner.top)
                if isinstance(inner, MinMaxActivation) and high > low:
                    inner.low.fill_(low)
                    inner.high.fill_(high)
                return original(x)

            patch.setattr(inner, "count", count)
        detector(torch.randint(0, 256, (4, 3, 64, 64), generator=generator))


@pytest.fixture(scope="session")
def make_detector(settle: Callable[[Detector], Detector]) -> Callable[..., Detector]:
    """A fresh narrow detector in evaluation mode, ``make_detector(arch, bits, seed=, deep=, ...)``.

    Slopes, shifts, alpha, batch-norms and quantizers are random and settled on random pixels, so
    that codes are spread over all levels. One block to a stage, all of them with ``deep``.
    """

    def make(
        arch: str = "resnet23", bits: int = 2, *, seed: int = 0, deep: bool = False, **options: Any
    ) -> Detector:
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
            if not deep:
                _patch_depth(patch)
            torch.manual_seed(seed)
            detector = build_detector(arch, bits, **{"width": NARROW, **options})
            _spread(detector, seed)
            settle(detector)
            if detector.config.quantized:
                _fit_ranges(detector)
            return detector

    return make


@pytest.fixture(scope="session")
def small(make_detector: Callable[..., Detector]) -> Detector:
    """A ResNet-23 of one block to a stage, 2 bits, SLR over N2UQ; read only."""
    return make_detector()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, small: Detector) -> dict[str, Path]:
    """Files of :func:`small`: ``latent`` and ``frozen``; to read them, use :func:`shallow`."""
    folder = tmp_path_factory.mktemp("checkpoints")
    files = {form: folder / f"{form}.safetensors" for form in ("latent", "frozen")}
    files["latent"].write_bytes(checkpoint_bytes(small))
    files["frozen"].write_bytes(checkpoint_bytes(freeze(copy.deepcopy(small))))
    return files


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """PNG files of noise on coarse blocks, 70x94 and 32x32: sides that strides do not divide."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(7)
    files = []
    for height, width in ((70, 94), (32, 32)):
        coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3))
        smooth = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
        noisy = np.clip(smooth + rng.normal(0, 20, smooth.shape), 0, 255).astype(np.uint8)
        files.append(folder / f"{height}x{width}.png")
        Image.fromarray(noisy).save(files[-1])
    return files


@pytest.fixture(scope="session")
def to_model() -> Callable[..., onnx.ModelProto]:
    """A graphsurgeon graph as the exporter writes it: ``to_model(graph, opset=25)``, checked."""

    def convert(graph: gs.Graph, opset: int = 25) -> onnx.ModelProto:
        graph.opset = opset
        for output in graph.outputs:  # a pass may have put another tensor there
            output.dtype = output.dtype or np.dtype(np.float32)
            output.shape = output.shape or [f"{output.name}.{axis}" for axis in range(4)]
        own = any(node.domain == DOMAIN for node in graph.nodes)
        model: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False)
        _set_header(model, opset, own)
        _pack_initializers(model, packed_constants(graph), int4_constants(graph))
        onnx.checker.check_model(model, full_check=True)
        return model

    return convert


@pytest.fixture(scope="session")
def run_model() -> Callable[..., list[Array]]:
    """Outputs of a model for named inputs: ``run_model(model, optimize=True, x=...)``."""

    def run(model: onnx.ModelProto, optimize: bool = True, **inputs: Array) -> list[Array]:
        options, level = ort.SessionOptions(), ort.GraphOptimizationLevel
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        options.graph_optimization_level = (
            level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        )
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return [np.asarray(array) for array in session.run(None, inputs)]

    return run


@pytest.fixture(scope="session")
def graph_outputs(
    to_model: Callable[..., onnx.ModelProto], run_model: Callable[..., list[Array]]
) -> Callable[..., dict[str, Array]]:
    """Logits and codes, channels first, of a graph between two passes, in whatever form it is.

    ``graph_outputs(graph, images)``: what is private to channels-last graphs is written plainly,
    and the model runs without optimiser.
    """

    def run(graph: gs.Graph, images: Array, opset: int = 21) -> dict[str, Array]:
        copy = graph.copy()
        last = any(tensor.name.endswith(".last") for tensor in copy.tensors().values())
        for one in (lower_cells, transpose_rest, lower_thresholds):
            one(copy)
        _forget_shapes(copy)
        model = onnx.shape_inference.infer_shapes(to_model(copy, opset))
        kinds = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
        outputs = [name for node in model.graph.node for name in node.output]
        probes = [name for name in outputs if name.endswith(".codes")]
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, kinds[name], None) for name in probes
        )
        found = run_model(model, optimize=False, image=images)
        turned = [np.moveaxis(a, -1, 1) if last and a.ndim == 4 else a for a in found]
        return dict(zip(["logit", *probes], turned, strict=True))

    return run


@pytest.fixture(scope="session")
def convolve() -> Callable[..., I64]:
    """A convolution in int64, product by product: ``convolve(x, weight, stride, pads)``.

    ``x`` ``[N, C, H, W]``, ``weight`` ``[O, C, k, k]``, ``pads`` top, left, bottom, right.
    """

    def run(x: I64, weight: I64, stride: int, pads: tuple[int, int, int, int]) -> I64:
        top, left, bottom, right = pads
        padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (top, bottom), (left, right)))
        kernel = weight.shape[-1]
        height = (padded.shape[2] - kernel) // stride + 1
        width = (padded.shape[3] - kernel) // stride + 1
        total = np.zeros((x.shape[0], weight.shape[0], height, width), dtype=np.int64)
        for i in range(kernel):
            for j in range(kernel):
                rows = slice(i, i + stride * (height - 1) + 1, stride)
                columns = slice(j, j + stride * (width - 1) + 1, stride)
                patch = padded[:, :, rows, columns]
                total += np.einsum("nchw,oc->nohw", patch, weight[:, :, i, j].astype(np.int64))
        return total

    return run


@pytest.fixture(scope="session")
def spread_of_codes() -> Callable[..., int]:
    """How many of a detector's layers meet at least ``least`` different codes on ``images``."""
    from qmdd.exporter.parity import source_outputs

    def count(detector: Detector, images: npt.NDArray[np.uint8], least: int) -> int:
        _, codes = source_outputs(detector, images)
        return sum(np.unique(found).size >= least for found in codes.values())

    return count


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Nets this small gain nothing by threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def proven_bundle(
    tmp_path_factory: pytest.TempPathFactory,
    small: Detector,
    trace_once: Callable[[Detector], onnx.ModelProto],
    pictures: list[Path],
) -> Path:
    """A bundle of :func:`small` for target ``onnx``, parity passed. Read only."""
    folder = tmp_path_factory.mktemp("proven") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qmdd.exporter.trace.canonical_from_detector", trace_once)
        source = Source(small, "resnet23", 2, {"sha256": "ab" * 32})
        assert export_bundle(source, folder, images=pictures).passed
    return folder


@pytest.fixture(scope="session")
def triton_config() -> Any:
    """Triton's own protobuf definitions of a model's configuration, as its client ships them.

    By its file: the package around it wants gRPC, which nothing here needs.
    """
    place = Path(importlib.util.find_spec("tritonclient").submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location(
        "triton_model_config", place / "grpc" / "model_config_pb2.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
