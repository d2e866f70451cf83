"""An engine for a bundle: built, audited, and added to the bundle whole or not at all.

The new files lie in a folder of their own inside the bundle, ``engine/<id>``; the manifest is what
makes them a part of it, and it is replaced in one step. An interruption at any point leaves the old
manifest with all the old files, or the new one with all the new.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...runtime.bundle import MANIFEST, MODEL, Bundle, manifest_bytes
from ...runtime.engine import ENGINE, LAYERS, LOG, SIDECAR, EngineRecord, architecture
from ...runtime.files import locked, sha256_of, write_atomically
from ...runtime.onnx_limits import check_model
from ..errors import BuildError, ExportError
from ..plan import PlannedLayer
from ..targets import EngineSpec, Target, find_target
from .audit import Audit, audit
from .child import RESULT, VERBOSE_LOG
from .layers import EngineLayer
from .process import OUTPUT, Report, run_builder
from .request import BuildRequest, Profile, bounds_of

#: Where engines lie inside a bundle.
FOLDER = "engine"
#: A device takes minutes for what a workstation does in seconds.
TIMEOUT = 3600.0
#: Default side, the paper's. One size only: then TensorRT-RTX 1.7 gives the same engine for the
#: same model, byte for byte; as soon as a size is free, names in it differ from build to build.
SIDE = 256
#: More images at once than any device of ours has memory for.
MAX_BATCH = 256
#: Share of the memory that the builder may take by default; the rest is the system's.
_SHARE = 0.75
_WORK = ".engine."
_ADDED = (ENGINE, SIDECAR, LAYERS, LOG)


@dataclasses.dataclass(frozen=True)
class BuildResult:
    """What :func:`build_engine` made.

    Attributes:
        bundle: its folder.
        record: the engine's sidecar.
        audit: of the engine.
        engine: the engine's file; ``None`` if the audit failed: then nothing was added.
    """

    bundle: Path
    record: EngineRecord
    audit: Audit
    engine: Path | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "bundle": str(self.bundle),
            "engine": str(self.engine) if self.engine else None,
            "record": dataclasses.asdict(self.record),
            "audit": self.audit.to_dict(),
        }


def build_engine(
    path: Path,
    *,
    target: str | None = None,
    workspace_mib: int | None = None,
    timeout: float = TIMEOUT,
    memory_limit_mib: int | None = None,
    batch: str = "1",
    side: str | None = None,
    allow_fallback: bool = False,
    report: Report | None = None,
) -> BuildResult:
    """Build the engine of the bundle in folder ``path``.

    Args:
        path: the bundle.
        target: to build for; default: the one that the bundle was exported for.
        workspace_mib: most scratch memory of a layer; default: the target's.
        timeout: seconds that the builder may take.
        memory_limit_mib: memory that the builder's process may take; default: three quarters of
            the device's, or of this machine's where that is less.
        batch: images at once, ``N`` or ``LEAST:BEST:MOST``.
        side: height and width in pixels, likewise; default: 256.
        allow_fallback: add the engine even if the audit finds a fault.
        report: called with ``(what is being done, done, total)``.

    Raises:
        BundleError: no such bundle. ExportError: a target that does not go with it. BuildError: the
            build failed (TensorRT is not installed, refuses, crashes, takes too much); its log is
            kept elsewhere. The bundle is as before then.
    """
    say = report or (lambda _what, _done, _total: None)
    say("reading the bundle", 0, 1)
    bundle = Bundle.open(path)
    check_model(bundle.model_path)
    if (bundle.path / FOLDER).is_symlink():  # the bundle may have come from elsewhere
        raise BuildError(f"{bundle.path / FOLDER}: a link, so no engine is added; remove it")
    chosen, engine = engine_target(bundle, target)
    plan = plan_of(bundle)
    profile = _profile(bundle, batch, side)
    memory = (memory_limit_mib << 20) if memory_limit_mib else default_memory_limit(chosen)
    workspace = (workspace_mib or engine.workspace_mib) << 20
    with _locked(bundle.path), _work_folder(bundle.path) as work:
        request = BuildRequest(
            backend=engine.backend,
            model=str(bundle.model_path),
            folder=str(work),
            compute_capabilities=engine.compute_capabilities,
            versions=engine.versions,
            workspace=workspace,
            profile=profile,
        )
        try:
            built = run_builder(request, timeout=timeout, memory_limit=memory, report=say)
        except BuildError as error:
            raise BuildError(f"{bundle.path}: {error}{_keep_log(work)}") from error
        layers = [EngineLayer.from_dict(layer) for layer in built["layers"]]
        found = audit(plan, layers, built["warnings"])
        record = _record(bundle, chosen, request, built, work)
        added = None
        if found.passed or allow_fallback:
            added = _add(bundle, work, record, built) / ENGINE
    say("done", 1, 1)
    return BuildResult(bundle.path, record, found, added)


def engine_target(bundle: Bundle, name: str | None) -> tuple[Target, EngineSpec]:
    """The target to build ``bundle`` for, and how.

    Raises:
        ExportError: no such target, one without an engine, or one that the model is not lowered
            for.
    """
    target = find_target(name or bundle.target)
    if target.engine is None:
        raise ExportError(
            f"target {target.name} has no engine: its model is run as it is; choose a --target "
            "that has one (qmdd targets)"
        )
    lowered = find_target(bundle.target)
    again = f"export the bundle again: qmdd export --target {target.name}"
    if lowered.form != target.form:
        raise ExportError(
            f"{bundle.path}: was exported for {bundle.target}, which no builder of {target.name} "
            f"takes; {again}"
        )
    low, high = target.opsets
    opset = bundle.manifest.get("opset")
    if type(opset) is not int or not low <= opset <= high:
        raise ExportError(
            f"{bundle.path}: is written at opset {opset}, target {target.name} takes {low} to "
            f"{high}; {again}"
        )
    for layer in plan_of(bundle):
        if not _can_hold(target.engine, layer):
            raise ExportError(
                f"{bundle.path}: {layer.name} holds weights as {layer.weight_storage}, which "
                f"target {target.name} cannot; {again}"
            )
    return target, target.engine


def _can_hold(engine: EngineSpec, layer: PlannedLayer) -> bool:
    """Whether an engine takes the layer's weights; TensorRT proper has INT4 in products only."""
    if layer.weight_storage not in ("int4", "int2"):
        return True
    product = layer.op != "Conv" and layer.weight_storage == "int4"
    return layer.weight_storage in engine.storages or (product and "int4" in engine.precisions)


def plan_of(bundle: Bundle) -> list[PlannedLayer]:
    """What the bundle's manifest says about how each layer is meant to run.

    Raises:
        ExportError: it says nothing, or not as we write it.
    """
    plan = bundle.manifest.get("plan")
    if not isinstance(plan, list) or not all(isinstance(layer, dict) for layer in plan):
        raise ExportError(
            f"{bundle.path}: its manifest holds no plan to audit an engine by; export it again"
        )
    return [PlannedLayer.from_dict(layer) for layer in plan]


def default_memory_limit(target: Target) -> int:
    """Bytes that the builder may take for ``target`` on this machine."""
    here = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    device = target.memory_gib << 30
    return int(_SHARE * (min(here, device) if device else here))


def _profile(bundle: Bundle, batch: str, side: str | None) -> Profile:
    sides = bundle.sides
    low, high, multiple = sides["min_side"], sides["max_side"], sides["multiple"]
    default = min(max(SIDE, low), high)
    return Profile.of(
        bounds_of(batch, "--batch", 1, MAX_BATCH),
        bounds_of(side or str(default - default % multiple), "--side", low, high, multiple),
    )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one build works on a bundle at a time."""
    with contextlib.ExitStack() as inside:
        try:
            inside.enter_context(locked(folder))
        except BlockingIOError as error:
            raise BuildError(f"{folder}: another qmdd build is working on it; wait") from error
        yield


@contextlib.contextmanager
def _work_folder(bundle: Path) -> Iterator[Path]:
    """A fresh hidden folder in the bundle, gone afterwards unless it was moved to its place."""
    for left in bundle.glob(f"{_WORK}*"):  # of a build that was killed: the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    work = bundle / f"{_WORK}{secrets.token_hex(8)}"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _record(
    bundle: Bundle, target: Target, request: BuildRequest, built: dict[str, Any], work: Path
) -> EngineRecord:
    shapes = dataclasses.asdict(request.profile)
    return EngineRecord(
        label="built, not run",
        target=target.name,
        backend=request.backend,
        version=str(built["version"]),
        compute_capabilities=tuple(built["compute_capabilities"]),
        systems=tuple(built["systems"]),
        machine=architecture(),
        onnx_sha256=bundle.manifest["files"][MODEL]["sha256"],
        engine_sha256=sha256_of(work / ENGINE),
        profile=shapes,
        options={"workspace_mib": request.workspace >> 20},
        seconds=built["seconds"],
        sizes={
            "engine": (work / ENGINE).stat().st_size,
            "peak_memory": built["peak_memory"],
            **built["sizes"],
        },
        device=built["device"],
    )


def _add(bundle: Bundle, work: Path, record: EngineRecord, built: dict[str, Any]) -> Path:
    """Move the work folder to its place and write the manifest that names it."""
    (work / SIDECAR).write_bytes(record.to_json())
    table = {"layers": built["layers"], "warnings": built["warnings"]}
    (work / LAYERS).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    for name in (VERBOSE_LOG, OUTPUT, RESULT):
        (work / name).unlink(missing_ok=True)
    for name in _ADDED:
        with open(work / name, "rb") as stream:
            os.fsync(stream.fileno())
    name = f"{FOLDER}/{secrets.token_hex(6)}"  # never one that the old manifest may name
    place = bundle.path / name
    place.parent.mkdir(exist_ok=True)
    os.replace(work, place)
    manifest = _with_engine(bundle.manifest, name, record, place)
    try:
        if Bundle.open(bundle.path, check=False).manifest != bundle.manifest:
            raise BuildError(f"{bundle.path}: was changed while the engine was built; build again")
        write_atomically(bundle.path / MANIFEST, manifest_bytes(manifest))
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    for old in place.parent.iterdir():
        if old.name != place.name:
            shutil.rmtree(old, ignore_errors=True)
    return place


def _with_engine(
    manifest: dict[str, Any], name: str, record: EngineRecord, place: Path
) -> dict[str, Any]:
    files = {
        key: entry for key, entry in manifest["files"].items() if not key.startswith(f"{FOLDER}/")
    }
    for added in _ADDED:
        path = place / added
        files[f"{name}/{added}"] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    entry = {
        "folder": name,
        "label": record.label,
        "target": record.target,
        "backend": record.backend,
        "version": record.version,
        "compute_capabilities": list(record.compute_capabilities),
    }
    return {**manifest, "files": files, "engine": entry}


def _keep_log(work: Path) -> str:
    """Copy what the failed builder said out of the bundle; where it lies, as a part of a line."""
    said = b"".join(
        (work / name).read_bytes() for name in (VERBOSE_LOG, OUTPUT) if (work / name).exists()
    )
    if not said:
        return ""
    handle, name = tempfile.mkstemp(prefix="qmdd-build-", suffix=".log")
    with os.fdopen(handle, "wb") as stream:
        stream.write(said)
    return f"; log: {name}"
