"""Valid files of every kind, made once: narrow networks, their bundle, pictures, clips.

They are made by qmdd itself, so they are what it writes today; a folder holds them for all
processes of a run.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from qmdd.models import Detector

#: Share of the published channels: all layers, few numbers.
WIDTH = 1 / 16
#: The bundle's engine, which no TensorRT has built.
ENGINE_FOLDER = "engine/0123456789ab"


class Workshop:
    """Seeds in ``folder``, each made when it is first asked for.

    Args:
        folder: kept between runs; ``seeds`` below it is ours.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "seeds"
        self.folder.mkdir(parents=True, exist_ok=True)

    @functools.cached_property
    def bundle(self) -> Path:
        """A bundle for CPUs: native model, golden results, probes, the files of an engine."""
        return self._bundle("bundle", "cpu", _add_engine)

    @functools.cached_property
    def portable(self) -> bytes:
        """The model of the interchange form."""
        place = self._bundle("portable", "onnx", lambda _place: None)
        return (place / "model.onnx").read_bytes()

    def _bundle(self, name: str, target: str, finish: Callable[[Path], None]) -> Path:
        place = self.folder / name
        if not place.exists():
            work = self.folder / f"{name}.{os.getpid()}"
            _export(self.checkpoint("frozen"), work, target, self.picture("PNG"))
            finish(work)
            os.replace(work, place)
        return place

    def checkpoint(self, form: str) -> Path:
        """A checkpoint: ``frozen``, ``latent``, ``full`` (precision), ``binary``, ``mobile``."""
        return self._file(f"{form}.safetensors", lambda: _checkpoint(form))

    def foreign(self, form: str) -> Path:
        """A file of ``torch.save``: ``npr`` or ``plain`` (few tensors), also with ``-legacy``."""
        return self._file(f"{form}.pth", lambda: _foreign(form))

    def picture(self, form: str, mode: str = "RGB") -> Path:
        """An image of a format and mode of Pillow's, 40x34 pixels."""
        return self._file(f"{form}-{mode}.{form.lower()}", lambda: _picture(form, mode))

    def clip(self, codec: str, suffix: str) -> Path:
        """A video of four frames, 32x32 pixels."""
        return self._file(f"{codec}{suffix}", lambda: _clip(codec, suffix))

    def file(self, name: str) -> bytes:
        """A file of the bundle."""
        return (self.bundle / name).read_bytes()

    def names(self) -> list[str]:
        """Names of the bundle's files, the manifest's own left out."""
        return sorted(json.loads(self.file("manifest.json"))["files"])

    def _file(self, name: str, make: Any) -> Path:
        path = self.folder / name
        if not path.exists():
            data = make()
            part = path.with_name(f"{name}.{os.getpid()}")
            part.write_bytes(data)
            os.replace(part, path)
        return path


def _detector(form: str) -> Detector:
    import torch

    from qmdd.models import DetectorConfig
    from qmdd.models.checkpoint import freeze
    from qmdd.models.registry import detector_from_config

    made: dict[str, dict[str, Any]] = {
        "full": {"bits": 32},
        "binary": {"bits": 1, "cqb": False},
        "mobile": {"arch": "mobilenetv2", "bits": 4, "activation": "lsq", "weight": "lsq"},
        "npr": {"arch": "npr_resnet50", "bits": 32, "slr": False, "cqb": False},
    }
    options = made.get(form, {"bits": 2})
    torch.manual_seed(1)
    detector = detector_from_config(DetectorConfig(width=WIDTH, **options))
    generator = torch.Generator().manual_seed(2)
    detector.train()
    with torch.no_grad():  # statistics of real forwards: all codes occur
        for _ in range(3):
            detector(torch.randint(0, 256, (4, 3, 64, 64), generator=generator))
    detector.eval()
    return freeze(detector) if form in ("frozen", "binary", "mobile") else detector


def _checkpoint(form: str) -> bytes:
    from qmdd.models.checkpoint import checkpoint_bytes

    notes = {"generators": '["alpha", "beta"]', "recipe": "{}", "data": "0" * 64}
    return checkpoint_bytes(_detector(form), notes)


def _foreign(form: str) -> bytes:
    import torch

    kind, _, legacy = form.partition("-")
    out = io.BytesIO()
    state: dict[str, Any] = {
        "state_dict": {
            "module.conv1.weight": torch.arange(24, dtype=torch.float16).reshape(2, 3, 2, 2),
            "module.fc1.bias": torch.nn.Parameter(torch.ones(1)),
            "module.count": torch.tensor(3),
        },
        "epoch": 3,
    }
    if kind == "npr":
        state = {"model": _npr_state(), "total_steps": 7}
    torch.save(state, out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()


def _npr_state() -> dict[str, torch.Tensor]:
    """The published detector's names and shapes, narrow, with our numbers."""
    from qmdd.models.foreign.npr import NprFormat

    detector = _detector("npr")
    rules = NprFormat().rules(detector.config, {})
    state = detector.state_dict()
    return {theirs: state[rule.ours] for theirs, rule in rules.items()}


def _picture(form: str, mode: str) -> bytes:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(3).integers(0, 256, (34, 40, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image = image if mode == "RGB" else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    options: dict[str, Any] = {"exif": exif} if form in ("JPEG", "WEBP", "PNG", "TIFF") else {}
    if form == "GIF":
        options = {"save_all": True, "append_images": [image.rotate(90)]}
    if form == "TIFF" and mode == "RGB":
        options["compression"] = "tiff_lzw"
    image.save(out, form, **options)
    return out.getvalue()


def _clip(codec: str, suffix: str) -> bytes:
    import av
    import numpy as np

    out = io.BytesIO()
    form = {".mkv": "matroska", ".ogv": "ogg", ".wmv": "asf", ".mpg": "mpeg"}
    with av.open(out, "w", format=form.get(suffix, suffix[1:])) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for index in range(4):
            pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def _export(checkpoint: Path, place: Path, target: str, picture: Path) -> None:
    from qmdd.exporter.export import export_bundle

    export_bundle(checkpoint, place, target=target, images=[picture], force=True)


def _add_engine(place: Path) -> None:
    """What ``qmdd build`` adds, with bytes in the place of an engine."""
    from qmdd.runtime.engine import EngineRecord

    manifest = json.loads((place / "manifest.json").read_bytes())
    folder = place / ENGINE_FOLDER
    folder.mkdir(parents=True)
    engine = b"ftrt" + bytes(range(256)) * 4
    (folder / "model.engine").write_bytes(engine)
    record = EngineRecord(
        label="built, not run",
        target="cpu",
        backend="tensorrt_rtx",
        version="1.7.0.1",
        compute_capabilities=("8.6", "8.9"),
        systems=("Linux",),
        machine="x86_64",
        onnx_sha256=manifest["files"]["model.onnx"]["sha256"],
        engine_sha256=hashlib.sha256(engine).hexdigest(),
        profile=dict.fromkeys(("min", "opt", "max"), (1, 3, 32, 32)),
        options={"workspace_mib": 256},
        seconds={"build": 1.5},
        sizes={"engine": len(engine), "weights": 9, "activations": 9, "peak_memory": 9},
        device={"gpu": "none"},
    )
    (folder / "engine.json").write_bytes(record.to_json())
    (folder / "layers.json").write_bytes(json.dumps(_layers(manifest)).encode())
    (folder / "build.log").write_bytes(b"made up\n")
    for name in ("model.engine", "engine.json", "layers.json", "build.log"):
        data = (folder / name).read_bytes()
        manifest["files"][f"{ENGINE_FOLDER}/{name}"] = entry_of(data)
    manifest["engine"] = {"folder": ENGINE_FOLDER, "label": record.label}
    (place / "manifest.json").write_bytes(json.dumps(manifest, indent=1).encode())


def entry_of(data: bytes) -> dict[str, Any]:
    """A file's entry in a manifest."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _layers(manifest: dict[str, Any]) -> dict[str, Any]:
    """A layer table of the first three planned layers."""
    tensor = {"name": "x", "dims": [1, 4, 16, 16], "dtype": "int8"}
    layers = [
        {
            "name": f"layer {index}",
            "type": "convolution",
            "kind": "convolution",
            "onnx": [planned["name"]],
            "inputs": [tensor],
            "constants": [{"name": "w", "dims": [4, 4, 3, 3], "dtype": "int8"}],
            "outputs": [tensor],
        }
        for index, planned in enumerate(manifest["plan"][:3])
    ]
    return {"layers": layers, "warnings": [{"severity": "WARNING", "text": "w", "node": "n"}]}
