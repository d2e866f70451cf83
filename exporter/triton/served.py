"""How Triton can serve a bundle: by which of its backends, in what bounds, and on what proof."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...runtime.bundle import Bundle
from ...runtime.engine import EngineRecord, engine_folder, engine_path, read_record
from ..errors import ExportError
from ..targets import find_target
from .proof import proof
from .settings import MAX_BATCH, ONNXRUNTIME, QUEUE_DELAY_US, TENSORRT, Asked, Settings

#: The engine's file, as Triton's backend looks for it.
PLAN = "model.plan"
_CAPABILITY = re.compile(r"\d{1,3}\.\d{1,3}")


class Served(NamedTuple):
    """A version of a model, before it is written.

    Attributes:
        settings: of the model; its only version has no number yet (``"0"``).
        bundle: what becomes the version's folder.
        plans: engines to put beside it, by file name.
    """

    settings: Settings
    bundle: Bundle
    plans: dict[str, Path]


def served(bundles: Sequence[Bundle], name: str | None, asked: Asked) -> Served:
    """How to serve ``bundles``: one, or one for each kind of GPU.

    Args:
        bundles: opened, hashes checked.
        name: the model's; default: ``ARCH-wBITSaBITS``.
        asked: what the user chose.

    Raises:
        ExportError: Triton cannot run it, or not exactly as it was proven; which, and what to do.
        EngineError: a bundle's engine is not whole.
    """
    first = bundles[0]
    for bundle in bundles:
        _check_target(bundle)
    by_engine = engine_folder(first) is not None
    if len(bundles) > 1 and not by_engine:
        raise ExportError(
            f"{first.path}: several bundles are for engines of several GPUs, and this one holds no "
            "engine; give one bundle, or run qmdd build"
        )
    facts = proof(first)
    bits = first.bits
    width = f"w{bits}a{bits}" if bits < 32 else "fp32"
    common: dict[str, Any] = {
        "name": name or f"{first.arch}-{width}",
        "threshold": first.threshold,
        "arch": first.arch,
        "bits": bits,
        "queue_delay_us": QUEUE_DELAY_US if asked.queue_delay_us is None else asked.queue_delay_us,
        "threads": asked.threads or 0,
    }
    if by_engine:
        return _by_tensorrt(bundles, asked, common, facts)
    most = asked.max_batch or MAX_BATCH
    settings = Settings(
        backend=ONNXRUNTIME,
        sides=first.sides,
        max_batch=most,
        best_batch=most,
        device=asked.device or "cpu",
        plans={},
        versions={"0": facts},
        **common,
    )
    return Served(settings, first, {})


def _check_target(bundle: Bundle) -> None:
    """Refuse what Triton has no exact backend for."""
    if bundle.runtime != "onnxruntime":
        raise ExportError(
            f"{bundle.path}: was lowered for {bundle.target}; Triton brings another release of "
            "such a runtime than the one that it was proven with, or none; export with --target "
            "onnx or cpu"
        )
    target = find_target(bundle.target)
    if target.engine is None or engine_folder(bundle) is not None:
        return
    if target.engine.backend != TENSORRT:
        raise ExportError(_no_rtx(bundle))
    raise ExportError(
        f"{bundle.path}: was lowered for TensorRT ({bundle.target}) and holds no engine; run qmdd "
        "build on it where it is to be served, or export with --target onnx for Triton's ONNX "
        "Runtime"
    )


def _no_rtx(bundle: Bundle) -> str:
    return (
        f"{bundle.path}: is for TensorRT for RTX, and Triton's backend is TensorRT proper, which "
        "does not load such engines; export with --target tensorrt and run qmdd build on the "
        "server, or export with --target onnx"
    )


def _by_tensorrt(
    bundles: Sequence[Bundle], asked: Asked, common: dict[str, Any], facts: dict[str, str]
) -> Served:
    plans: dict[str, Path] = {}
    names: dict[str, str] = {}
    records = [_engine(bundle) for bundle in bundles]
    first = records[0]
    for bundle, record in zip(bundles, records, strict=True):
        if (record.onnx_sha256, record.profile) != (first.onnx_sha256, first.profile):
            raise ExportError(
                f"{bundle.path}: its engine is of another model, or for other batches and sides, "
                f"than that of {bundles[0].path}; build both alike"
            )
        file = PLAN if len(bundles) == 1 else f"model-{record.compute_capabilities[0]}.plan"
        for capability in record.compute_capabilities:
            if capability in names:
                raise ExportError(
                    f"{bundle.path}: a second engine for compute capability {capability}; give one"
                )
            names[capability] = file
        plans[file] = engine_path(bundle)
    least, best, most = _bounds(bundles[0], first)
    if asked.device == "cpu":
        raise ExportError("TensorRT engines run on GPUs alone; leave the device out")
    if asked.max_batch is not None and asked.max_batch > most[0]:
        raise ExportError(
            f"{bundles[0].path}: its engine takes batches of at most {most[0]}, not "
            f"{asked.max_batch}; give a smaller --max-batch, or build it with --batch "
            f"1:{asked.max_batch}:{asked.max_batch}"
        )
    max_batch = asked.max_batch or most[0]
    sides = {**bundles[0].sides, "min_side": least[2], "max_side": most[2]}
    built = {f"tensorrt_{r.compute_capabilities[0]}": r.version for r in records}
    settings = Settings(
        backend=TENSORRT,
        sides=sides,
        max_batch=max_batch,
        best_batch=min(best[0], max_batch),
        device="gpu",
        plans=names,
        versions={"0": {**facts, **built}},
        **common,
    )
    return Served(settings, bundles[0], plans)


def _engine(bundle: Bundle) -> EngineRecord:
    if engine_folder(bundle) is None:
        raise ExportError(f"{bundle.path}: holds no engine; run qmdd build on it first")
    record = read_record(bundle)
    if record.backend != TENSORRT:
        raise ExportError(_no_rtx(bundle))
    if not all(_CAPABILITY.fullmatch(name) for name in record.compute_capabilities):
        raise ExportError(f"{bundle.path}: its engine names no GPU; run qmdd build again")
    return record


def _bounds(bundle: Bundle, record: EngineRecord) -> list[tuple[int, ...]]:
    """Least, best and most of the profile, each ``(batch, 3, side, side)``."""
    shapes = [record.profile[name] for name in ("min", "opt", "max")]
    for shape in shapes:
        if min(shape) < 1 or shape[1] != 3 or shape[2] != shape[3]:
            raise ExportError(f"{bundle.path}: its engine's profile is {shape}; build it again")
    if shapes[0][0] != 1:
        raise ExportError(
            f"{bundle.path}: its engine takes no batch of less than {shapes[0][0]}, and Triton may "
            "send one of 1; build it with --batch 1:BEST:MOST"
        )
    return shapes
