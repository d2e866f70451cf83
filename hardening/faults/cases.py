"""Every command that writes, in the ways in which it does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from .case import Case, Output
from .device import ENVIRONMENT, OPTIONS, runs, with_device

_IMAGES = ("--images", "images/alpha/0_real")
_FULL = ("full.safetensors", "images")
_BITS = ("--bits", "2", "--threads", "1")


def _is_page(path: Path) -> bool:
    return path.read_bytes().rstrip().endswith(b"</html>")


def _is_picture(path: Path) -> bool:
    data = path.read_bytes()
    if path.suffix == ".svg":
        return data.rstrip().endswith(b"</svg>")
    return data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82")


def _is_json(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_bytes()))
    except ValueError:
        return False


def _is_checkpoint(path: Path) -> bool:
    from qmdd.models import ModelError
    from qmdd.models.checkpoint import Checkpoint

    try:
        return Checkpoint(path).detector() is not None
    except ModelError:
        return False


def _is_bundle(path: Path) -> bool:
    from qmdd.runtime.bundle import Bundle
    from qmdd.runtime.errors import BundleError

    try:
        return bool(Bundle.open(path).manifest)
    except BundleError:
        return False


def _is_built(path: Path) -> bool:
    """A whole bundle with an engine, and nothing that its manifest does not list."""
    from qmdd.runtime.bundle import Bundle

    return _is_bundle(path) and "engine" in Bundle.open(path).manifest


def _holds_verdicts(path: Path) -> bool:
    """Whole lines, but for the last one; each of another file."""
    *lines, _ = path.read_bytes().split(b"\n")
    names = [json.loads(line)["path"] for line in lines]
    return len(names) == len(set(names))


def _watched(path: Path) -> bool:
    """Each image of the world once."""
    return _holds_verdicts(path) and path.read_bytes().count(b"\n") == 8


def _rows(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    parts = sorted((path / "parts").glob("*.parquet"))
    return [name for part in parts for name in pq.read_table(part)["path"].to_pylist()]


def _scanned(path: Path) -> bool:
    """Each image of the world once, and a record of them."""
    if not (path / "scan.json").is_file() or not (path / "parts").is_dir():
        return False
    rows = _rows(path)
    return len(rows) == len(set(rows)) == 8


def _scanning(path: Path) -> bool:
    """Whole parts only, no image twice."""
    rows = _rows(path) if (path / "parts").is_dir() else []
    return len(rows) == len(set(rows))


def _trained(path: Path) -> dict[str, object]:
    """By file: tensors and notes, whose order in the file is another one in each process."""
    from safetensors import safe_open

    found: dict[str, object] = {}
    for file in sorted(path.glob("[!.]*")):
        if file.suffix == ".json":
            found[file.name] = json.loads(file.read_bytes())
            continue
        with safe_open(file, framework="numpy") as opened:
            tensors = {name: opened.get_tensor(name).tobytes() for name in sorted(opened.keys())}
            found[file.name] = (tensors, sorted(opened.metadata().items()))
    return found


def _training(path: Path) -> bool:
    """Whole files only."""
    from safetensors import SafetensorError

    try:
        return bool(_trained(path)) or not any(path.glob("[!.]*"))
    except (SafetensorError, ValueError):
        return False


def _is_repository(path: Path) -> bool:
    """Its model has whole versions only, and a configuration."""
    model = path / "detector"
    versions = [entry for entry in model.iterdir() if entry.name.isdecimal()]
    return all(_is_bundle(entry) for entry in versions) and (model / "config.pbtxt").is_file()


def _link(source: str, name: str) -> Callable[[Path, Path], None]:
    """Make the old state of ``name`` out of ``source`` of the world."""

    def prepare(world: Path, place: Path) -> None:
        if (world / source).is_dir():
            shutil.copytree(world / source, place / name)
        else:
            shutil.copy2(world / source, place / name)

    return prepare


def _text(name: str) -> Callable[[Path, Path], None]:
    """An old file, which is to be replaced."""

    def prepare(_world: Path, place: Path) -> None:
        (place / name).write_text("old", encoding="utf-8")

    return prepare


CASES = (
    Case(
        "export",
        ("export", "--checkpoint", "latent.safetensors", *_IMAGES, "-o", "out/deep/bundle"),
        ("latent.safetensors", "images"),
        (Output("out/deep/bundle"),),
        once=True,
    ),
    Case(
        "export --force",
        ("export", "--checkpoint", "latent.safetensors", *_IMAGES, "-o", "out", "--force"),
        ("latent.safetensors", "images"),
        (Output("out"),),
        prepare=_link("other", "out"),
    ),
    Case(
        "export --target cpu --force",
        (
            *("export", "--checkpoint", "latent.safetensors", "--target", "cpu", *_IMAGES),
            *("-o", "out", "--force"),
        ),
        ("latent.safetensors", "images"),
        (Output("out"),),
        prepare=_link("other", "out"),
    ),
    Case(
        "export --serve triton",
        ("export", "--serve", "triton", "--bundle", "bundle", "-o", "models"),
        ("bundle",),
        (Output("models"),),
        once=True,
    ),
    Case(
        "export --serve triton, further",
        (
            *("export", "--serve", "triton", "--bundle", "bundle", "-o", "models"),
            *("--name", "detector"),
        ),
        ("bundle", "models"),
        (Output("models", between=_is_repository),),
        once=True,
    ),
    Case(
        "build",
        ("build", "rtx", "--side", "64"),
        ("rtx",),
        (Output("rtx", whole=_is_built, between=_is_bundle),),
    ),
    Case(
        "report",
        ("report", "bundle", "--golden", "-o", "report.html", "--force"),
        ("bundle",),
        (Output("report.html", whole=_is_page),),
        prepare=_text("report.html"),
    ),
    Case(
        "inspect --plot",
        ("inspect", "bundle", "--plot", "layers.svg"),
        ("bundle",),
        (Output("layers.svg", whole=_is_picture),),
        prepare=_text("layers.svg"),
    ),
    Case(
        "estimate --plot",
        ("estimate", "rtx", "--target", "orin-nano", "--plot", "roofline.png"),
        ("rtx",),
        (Output("roofline.png", whole=_is_picture),),
        prepare=_text("roofline.png"),
    ),
    Case(
        "scan",
        ("scan", "bundle", "images", "-o", "results", "--part", "2", "--threads", "1"),
        ("bundle", "images"),
        (Output("results", whole=_scanned, between=_scanning),),
    ),
    Case(
        "scan --force",
        ("scan", "bundle", "images", "-o", "results", "--part", "2", "--threads", "1", "--force"),
        ("bundle", "images", "results"),
        (Output("results", whole=_scanned, between=_scanning),),
    ),
    Case(
        "watch",
        (
            *("watch", "bundle", "images", "-o", "verdicts.jsonl", "--once", "--settle", "0"),
            *("--threads", "1"),
        ),
        ("bundle", "images"),
        (Output("verdicts.jsonl", whole=_watched, between=_holds_verdicts),),
    ),
    Case(
        "bench --plot",
        (
            *("bench", "bundle", "--no-twin", "--seconds", "0.1", "--size", "64"),
            *("--threads", "1", "--batch", "1", "--plot", "times.svg"),
        ),
        ("bundle",),
        (Output("times.svg", whole=_is_picture),),
        prepare=_text("times.svg"),
    ),
    Case(
        "bench --write-twin",
        ("bench", "bundle", "--write-twin", "twin.onnx", "--force"),
        ("bundle",),
        (Output("twin.onnx"),),
        prepare=_text("twin.onnx"),
    ),
    Case(
        "eval",
        (
            *("eval", "bundle", "--data", "images", "--threads", "1"),
            *("--scores", "scores.csv", "--plot", "plot.png"),
        ),
        ("bundle", "images"),
        (Output("scores.csv"), Output("plot.png", whole=_is_picture)),
        prepare=_text("scores.csv"),
    ),
    Case(
        "train",
        (
            *("train", "--data", "images", "--recipe", "recipe.toml", "--out", "run"),
            *("--save-every", "1", "--threads", "1"),
        ),
        ("images", "recipe.toml"),
        (Output("run", content=_trained, between=_training),),
    ),
    Case(
        "calibrate",
        (
            *("calibrate", "full.safetensors", "--data", "images", *_BITS, "-o", "w.safetensors"),
            *("--latent", "l.safetensors", "--force"),
        ),
        _FULL,
        (Output("w.safetensors"), Output("l.safetensors")),
        prepare=_text("w.safetensors"),
    ),
    Case(
        "sensitivity",
        (
            *("sensitivity", "full.safetensors", "--data", "images", "--widths", "2,8"),
            *(
                "--threads",
                "1",
                "--images",
                "2",
                "--budget",
                "100000",
                "-o",
                "widths.json",
                "--force",
            ),
            *("--plot", "loss.png"),
        ),
        _FULL,
        (Output("widths.json"), Output("loss.png", whole=_is_picture)),
        prepare=_text("widths.json"),
    ),
    Case(
        "freeze",
        ("freeze", "latent.safetensors", "-o", "frozen.safetensors", "--force"),
        ("latent.safetensors",),
        (Output("frozen.safetensors"),),
        prepare=_text("frozen.safetensors"),
    ),
    Case(
        "import",
        ("import", "NPR.pth", "-o", "npr.safetensors", "--force"),
        ("NPR.pth",),
        (Output("npr.safetensors"),),
        prepare=_text("npr.safetensors"),
    ),
    Case(
        "deploy",
        ("deploy", "bundle", *OPTIONS),
        ("bundle", "other"),
        (
            Output("device/qmdd", whole=runs("bundle"), between=runs("other", "bundle")),
            Output("bundle/devices/device.json", whole=_is_json),
        ),
        prepare=with_device(1),
        environment=ENVIRONMENT,
    ),
    Case(
        "deploy, the device killed",
        ("deploy", "bundle", *OPTIONS),
        ("bundle", "other"),
        (
            Output("device/qmdd", whole=runs("bundle"), between=runs("other", "bundle")),
            Output("bundle/devices/device.json", whole=_is_json),
        ),
        prepare=with_device(1),
        environment=ENVIRONMENT,
        agent=True,
    ),
    Case(
        "rollback",
        ("rollback", *OPTIONS[:3]),
        ("bundle", "other"),
        (Output("device/qmdd", whole=runs("other"), between=runs("other", "bundle")),),
        prepare=with_device(2),
        environment=ENVIRONMENT,
        once=True,
    ),
    Case(
        "rollback, the device killed",
        ("rollback", *OPTIONS[:3]),
        ("bundle", "other"),
        (Output("device/qmdd", whole=runs("other"), between=runs("other", "bundle")),),
        prepare=with_device(2),
        environment=ENVIRONMENT,
        once=True,
        agent=True,
    ),
)
