"""What the tests of all rooms share: a tiny image folder, a tiny detector, the real data set."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

if TYPE_CHECKING:
    import onnx

    from qmdd.models import Detector

# No deadline (machines differ), and the same examples on every run.
settings.register_profile("qmdd", deadline=None, derandomize=True, database=None)
settings.load_profile("qmdd")

# A shell's background jobs ignore Ctrl-C, and what they start inherits that: the tests that
# interrupt a command would wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A test that imports OpenVINO itself must not report that to its makers either: without this
# package nothing is sent (qmdd.runtime.openvino_session).
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
# The same for ONNX Runtime (qmdd.runtime).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

#: Widths of the tiny detectors: 1/8 of the real ones, so the same topology in 0.25 M parameters.
NARROW = (8, 16, 32, 64)

DetectorFactory = Callable[..., "Detector"]
VideoFactory = Callable[..., Path]
TraceOnce = Callable[["Detector"], "onnx.ModelProto"]


def pytest_collection_finish() -> None:
    """Spare the suite what it would do hundreds of times, without an effect on any result.

    What has been imported stays: the collector of garbage need not look at it each time. And torch
    puts together the same table of operators for each export.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    if "qmdd.exporter.trace" in sys.modules:
        with contextlib.suppress(ImportError, AttributeError):  # torch's own affair
            from torch.onnx._internal.exporter._registration import ONNXRegistry

            once = functools.cache(ONNXRegistry.from_torchlib)
            ONNXRegistry.from_torchlib = staticmethod(once)  # type: ignore[assignment]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real data set's folder (``train``, ``val``, ``test`` in it), from ``QMDD_DATA``."""
    given = os.environ.get("QMDD_DATA")
    if not given:
        pytest.skip("QMDD_DATA is not set; it names the folder of the real data set")
    return Path(given)


def _photo(rng: np.random.Generator, side: int) -> np.ndarray:
    """Smooth colours with a little grain: uint8 ``[side, side, 3]``."""
    coarse = rng.integers(0, 256, (side // 8, side // 8, 3)).astype(np.float64)
    smooth = coarse.repeat(8, axis=0).repeat(8, axis=1)
    return np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)


def _upsampled(rng: np.random.Generator, side: int) -> np.ndarray:
    """The same kind of picture at half size, every pixel doubled: what NPR looks for."""
    return _photo(rng, side // 2).repeat(2, axis=0).repeat(2, axis=1)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve PNG images of 64x64 in the field's layout: ``<generator>/0_real`` and ``1_fake``.

    Generators ``alpha`` (flat) and ``beta`` (nested one level, as in ForenSynths), three images of
    each class in both. Read only: a test that changes files copies the folder first.
    """
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(5)
    for generator in ("alpha", "beta/cat"):
        for name, make in (("0_real", _photo), ("1_fake", _upsampled)):
            folder = root / generator / name
            folder.mkdir(parents=True)
            for index in range(3):
                Image.fromarray(make(rng, 64)).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def settle() -> Callable[[Detector], Detector]:
    """Give a fresh detector running statistics of real forwards, then put it in evaluation mode.

    Without this, batch-norm means and variances are 0 and 1 and most codes come out the same.
    Thresholds of N2UQ are moved to where all codes occur, off their round initial values.
    """
    import torch
    from torch import nn

    from qmdd.models.quantizers import N2uqActivation

    def settled(detector: Detector) -> Detector:
        for module in detector.modules():
            if isinstance(module, N2uqActivation):
                with torch.no_grad():
                    module.start.fill_(-0.47)
                    module.scale1.fill_(2.03)
        norms = [m for m in detector.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 0.5
        generator = torch.Generator().manual_seed(11)
        detector.train()
        with torch.no_grad():
            for _ in range(3):
                detector(torch.randint(0, 256, (4, 3, 64, 64), generator=generator))
        for norm in norms:
            norm.momentum = 0.1
        return detector.eval()

    return settled


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a test runs, detectors are built at 1/8 of their width."""
    from qmdd.models import resnet

    monkeypatch.setattr(resnet, "WIDTHS", NARROW)


@pytest.fixture(scope="module")
def narrow_module() -> Iterator[None]:
    """:func:`narrow` for a whole module, whose checkpoints must also be read back narrow."""
    from qmdd.models import resnet

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "WIDTHS", NARROW)
        yield


@pytest.fixture(scope="session")
def tiny_detector(settle: Callable[[Detector], Detector]) -> DetectorFactory:
    """Make a settled detector of 1/8 width: ``tiny_detector(arch="resnet23", bits=2, **options)``.

    To load a checkpoint of it, the test must also use :func:`narrow`.
    """
    import torch

    from qmdd.models import build_detector, resnet

    def make(arch: str = "resnet23", bits: int = 2, seed: int = 0, **options: object) -> Detector:
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
            patch.setattr(resnet, "WIDTHS", NARROW)
            torch.manual_seed(seed)
            return settle(build_detector(arch, bits, **options))

    return make


@pytest.fixture(scope="session")
def make_video() -> VideoFactory:
    """Write a tiny video: ``make_video(path, levels)``, each frame of one grey level.

    25 frames a second, or frames at ``millis``. FFV1 keeps levels within 1; in an AVI file of MJPEG
    the frames numbered ``broken`` cannot be decoded.
    """
    from fractions import Fraction

    import av

    def make(
        path: Path,
        levels: Sequence[int],
        *,
        size: tuple[int, int] = (64, 64),
        codec: str = "ffv1",
        millis: Sequence[int] | None = None,
        broken: Sequence[int] = (),
    ) -> Path:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = size
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            base = Fraction(1, 1000) if millis else Fraction(1, 25)
            stream.codec_context.time_base = base
            for index, level in enumerate(levels):
                pixels = np.full((size[1], size[0], 3), level, dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = millis[index] if millis else index, base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        if broken:
            parts = path.read_bytes().split(b"\xff\xd8\xff")  # before each frame
            for number in broken:
                # The last eight bytes are the next frame's place in the file.
                parts[number + 1] = bytes(len(parts[number + 1]) - 8) + parts[number + 1][-8:]
            path.write_bytes(b"\xff\xd8\xff".join(parts))
        return path

    return make


@pytest.fixture(scope="session")
def audio_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a video's name, with sound and no picture."""
    import av

    path = tmp_path_factory.mktemp("audio") / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44_100)
        silence = np.zeros((1, 1024), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def trace_once() -> TraceOnce:
    """:func:`canonical_from_detector`, run once for equal detectors; each call a fresh copy."""
    import onnx

    from qmdd.exporter.trace import canonical_from_detector
    from qmdd.models.checkpoint import freeze

    known: dict[str, bytes] = {}

    def trace(detector: Detector) -> onnx.ModelProto:
        digest = hashlib.sha256(detector.config.to_json().encode())
        known_weights = copy.deepcopy(detector)
        if detector.config.quantized:
            freeze(known_weights)
        for name, tensor in known_weights.state_dict().items():
            digest.update(f"{name}{list(tensor.shape)}".encode() + tensor.numpy().tobytes())
        key = digest.hexdigest()
        if key not in known:
            known[key] = canonical_from_detector(detector).SerializeToString(deterministic=True)
        return onnx.load_from_string(known[key])

    return trace


@pytest.fixture
def quick_trace(monkeypatch: pytest.MonkeyPatch, trace_once: TraceOnce) -> None:
    """Exports of a detector that was traced before do not trace it again."""
    monkeypatch.setattr("qmdd.exporter.trace.canonical_from_detector", trace_once)


@pytest.fixture(scope="session")
def tensorrt_device(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables for processes on a "device" with TensorRT and a GPU, both stand-ins."""
    from .standin.device import device_environment

    found = device_environment(tmp_path_factory.mktemp("cudart"))
    if found is None:
        pytest.skip("no C compiler (cc) for the stand-in of CUDA's library; install gcc")
    return found


#: Chromium as root, with nothing of it looking for the network.
CHROMIUM_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, driven by playwright."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'qmdd[dev]'"
    )
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("Chromium is not installed: apt install chromium")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=found, args=list(CHROMIUM_FLAGS))
        yield opened
        opened.close()
