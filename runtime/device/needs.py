"""What a bundle, and what a target, asks of a machine: plain data, made where these are known."""

from __future__ import annotations

import contextlib
import dataclasses

from ..bundle import MANIFEST, Bundle
from ..engine import EngineRecord, engine_folder, read_record


@dataclasses.dataclass(frozen=True)
class TargetNeeds:
    """A target, as far as a machine matters to it.

    Attributes:
        name: such as ``orin-nano@6.2``.
        summary: for people.
        runtime: what runs its models: ``onnxruntime``, ``openvino``, ``qonnx``.
        backend: what builds its engine: ``tensorrt``, ``tensorrt_rtx``; empty without an engine.
        versions: lowest and highest version of the backend, both included.
        capabilities: compute capabilities of its GPUs; empty for any.
        jetpack: of a Jetson, NVIDIA's release of its software.
        memory: of the device in bytes, 0 if that varies.
        workspace: scratch memory of the builder in bytes.
        refused: why nothing can be made for it.
    """

    name: str
    summary: str
    runtime: str = "onnxruntime"
    backend: str = ""
    versions: tuple[str, str] = ("", "")
    capabilities: tuple[str, ...] = ()
    jetpack: str = ""
    memory: int = 0
    workspace: int = 0
    refused: str = ""


@dataclasses.dataclass(frozen=True)
class BundleNeeds:
    """A bundle, as far as a machine matters to it.

    Attributes:
        path: its folder, for people.
        target: what it was exported for.
        size: bytes of all its files.
        native: whether it has a model for the native operators.
        engine: the sidecar of its engine, if it has one.
        written: when it was written, seconds since 1970; 0 if that is not known.
    """

    path: str
    target: str
    size: int
    native: bool = False
    engine: EngineRecord | None = None
    written: float = 0.0


def bundle_needs(bundle: Bundle) -> BundleNeeds:
    """What ``bundle`` asks of a machine.

    Raises:
        EngineError: its engine's sidecar is not one of ours.
    """
    written = 0.0
    with contextlib.suppress(OSError):
        written = (bundle.path / MANIFEST).stat().st_mtime
    return BundleNeeds(
        path=str(bundle.path),
        target=bundle.target,
        size=sum(entry["bytes"] for entry in bundle.manifest["files"].values()),
        native=bundle.native_path is not None,
        engine=read_record(bundle) if engine_folder(bundle) else None,
        written=written,
    )
