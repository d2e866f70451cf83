"""The main job: a checkpoint to a verified bundle, whole or not at all."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ..models.checkpoint import freeze, is_frozen
from ..models.stats import layer_stats, parameters
from ..runtime.bundle import GOLDEN, MANIFEST, MODEL, NATIVE_MODEL, SCHEMA, manifest_bytes
from ..runtime.contract import INPUT, OUTPUT, SIDES, THRESHOLD
from ..runtime.files import check_replaceable, folder_in_place, sha256_of
from ..runtime.golden import Golden, write_golden
from ..runtime.native import library_path
from ..runtime.onnx_limits import MAX_MODEL_BYTES
from ..runtime.parity import TierResult
from ..runtime.probes import PROBES
from ..runtime.sessions import RUNTIMES
from .code_budget import code_budget
from .engine.recipe import RECIPE, recipe
from .errors import ExportError
from .lower import Lowered, check_model, check_quantised, node_counts, onnx_for_target
from .multithreshold import DOMAIN
from .parity import batches, compare, require_runtime, source_outputs
from .plan import PLAN_SIDE, planned_layers
from .probes import probes_of, with_probes
from .samples import sample_images
from .source import Source, source_from_checkpoint
from .storage import check_microsoft, choose_storage
from .targets import Target, find_target

if TYPE_CHECKING:
    import onnx

Report = Callable[[str, int, int], None]

#: What a bundle takes.
CONTRACT: dict[str, Any] = {**INPUT, **SIDES}
#: Images whose codes travel in the bundle, so that a device can verify itself.
GOLDEN_IMAGES = 2
#: Their longest side: the codes of a ResNet-50 at 8 bits and 512 pixels would take 89 MiB.
GOLDEN_SIDE = 256
_STAGES = 5


@dataclasses.dataclass
class ExportResult:
    """What :func:`export_bundle` made; ``seconds`` leaves parity out, ``parity`` may be empty."""

    bundle: Path
    arch: str
    bits: int
    target: str
    model_bytes: int
    seconds: float
    parity_seconds: float
    parity: list[TierResult]
    size: dict[str, int]
    nodes: dict[str, int]
    explain: list[str]

    @property
    def passed(self) -> bool:
        """No tier missed its bar (true when parity was left out)."""
        return all(tier.passed for tier in self.parity)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            **plain,
            "bundle": str(self.bundle),
            "parity": [tier.to_dict() for tier in self.parity],
            "passed": self.passed,
        }


def export_bundle(
    checkpoint: Path | Source,
    output: Path,
    *,
    target: str = "onnx",
    images: Sequence[Path] = (),
    weights: str | None = None,
    precision: str | None = None,
    opset: int | None = None,
    microsoft: bool = False,
    verify: bool = True,
    force: bool = False,
    report: Report | None = None,
) -> ExportResult:
    """Export ``checkpoint`` (latent or frozen) as a bundle folder ``output``.

    Args:
        checkpoint: a file, or a :class:`Source` at hand (a network that is in no registry).
        output: the bundle's folder.
        target: a name of :data:`.targets.TARGETS`.
        images: parity images; by default the samples that travel with the project.
        weights: how weights are stored, ``int2``, ``int4`` or ``int8``; by default packed at each
            layer's own width (``own``), which any opset can hold, and ``int8`` in engines.
        precision: of an engine: ``int8`` (the default) or ``int4``, where its target has that.
        opset: of the written model; by default the target's, or what the storage needs.
        microsoft: ONNX Runtime's own operators may be written, where the target's form has such.
        verify: compare with the source in both tiers; the bundle is kept if it fails, its manifest
            says so, and :attr:`ExportResult.passed` is false.
        force: replace ``output`` if it is a bundle already.
        report: called with ``(what is being done, done, total)``.

    Raises:
        CheckpointError, ImageError: unusable input. ExportError: not exportable exactly.
        OSError: ``output`` cannot be written; nothing of it is left then.
    """
    lowered_for = find_target(target)
    storage, version, width = choose_storage(lowered_for, weights, opset, precision)
    check_microsoft(lowered_for, microsoft)
    if weights and isinstance(checkpoint, Source) and not checkpoint.quantized:
        raise ExportError(
            f"{checkpoint.arch} in full precision has no integer weights to store as {weights}; "
            "leave --weights out"
        )
    _check_output(output, force)
    if verify:
        require_runtime(lowered_for.runtime)
    say = report or (lambda _what, _done, _total: None)
    started = time.perf_counter()
    say("loading", 0, _STAGES)
    source = checkpoint if isinstance(checkpoint, Source) else source_from_checkpoint(checkpoint)
    network = source.network
    lowered, native = _models(
        source, lowered_for, (storage, version, width), say, microsoft=microsoft
    )
    model = _bytes(lowered)
    seconds = time.perf_counter() - started

    say("writing", 4, _STAGES)
    paths = list(images) or sample_images()
    contract = {**CONTRACT, "min_side": lowered_for.min_side}
    with folder_in_place(output, replace=force, marker=MANIFEST) as folder:
        writing = time.perf_counter()
        (folder / MODEL).write_bytes(model)
        if native is not None:
            (folder / NATIVE_MODEL).write_bytes(_bytes(native))
        if lowered_for.engine is not None:
            (folder / RECIPE).write_text(recipe(lowered_for, contract), encoding="utf-8")
        (folder / GOLDEN).parent.mkdir()
        seconds += time.perf_counter() - writing
        checking = time.perf_counter()
        golden = _write_golden(folder / GOLDEN, network, paths, contract)
        if source.quantized and lowered_for.runtime in RUNTIMES:  # a device of ours will use them
            for name, made in ((MODEL, lowered), (NATIVE_MODEL, native)):
                if made is not None:
                    (folder / PROBES[name]).write_bytes(probes_of(made.model).suffix)
        plan = _plan(lowered_for, lowered)
        parity = (
            compare(
                network,
                folder / MODEL,
                paths,
                contract,
                runtime=lowered_for.runtime,
                plan=plan,
                native=folder / NATIVE_MODEL if native is not None and library_path() else None,
                report=say,
            )
            if verify
            else []
        )
        result = ExportResult(
            bundle=output,
            arch=source.arch,
            bits=source.bits,
            target=lowered_for.name,
            model_bytes=len(model),
            seconds=seconds,
            parity_seconds=time.perf_counter() - checking,
            parity=parity,
            size=sizes(network, len(model)),
            nodes=node_counts(lowered.model),
            explain=[
                *(f"{name}: applied {n} times" for name, n in lowered.applied),
                *lowered.notes,
                *(f"native: {note}" for note in (native.notes if native is not None else ())),
            ],
        )
        form = {
            "opset": version,
            "weights": storage,
            "precision": width,
            "runtime": lowered_for.runtime,
            "input": contract,
            "plan": plan,
        }
        if lowered_for.engine is not None and source.quantized:
            form["code_budget"] = code_budget(with_probes(folder / MODEL).model, golden)
        if native is not None:
            form["native"] = {
                "operators": native_operators(native.model),
                "passes": [{"pass": name, "applied": n} for name, n in native.applied],
                "notes": native.notes,
            }
        manifest = _manifest(folder, source, result, form, lowered)
        (folder / MANIFEST).write_bytes(manifest_bytes(manifest))
    say("done", _STAGES, _STAGES)
    return result


def _plan(target: Target, lowered: Lowered) -> list[dict[str, Any]]:
    """The plan for the manifest; how an FPGA flow folds its layers is its own matter."""
    if target.form == "qonnx":
        return []
    return [layer.to_dict() for layer in planned_layers(lowered.model)]


def _check_output(output: Path, force: bool) -> None:
    """Refuse early what the atomic rename would refuse late; only a bundle is ever replaced."""
    try:
        check_replaceable(output, force, MANIFEST)
    except FileExistsError as error:
        hint = "" if force else "; choose another --output or add --force"
        raise ExportError(f"{error}{hint}") from error


def _models(
    source: Source,
    target: Target,
    chosen: tuple[str, int, str],
    say: Report,
    *,
    microsoft: bool,
) -> tuple[Lowered, Lowered | None]:
    """The target's model; and its second one, for our native operators, where it has any.

    Args:
        chosen: storage, opset and precision.
    """
    from .engine_graph import check_engine_graph
    from .portable_graph import check_portable_graph
    from .trace import canonical_from_detector

    say("freezing", 1, _STAGES)
    frozen = _frozen_copy(source.network) if source.quantized else source.network
    say("tracing", 2, _STAGES)
    canonical = canonical_from_detector(frozen)
    say("lowering", 3, _STAGES)
    lowered = onnx_for_target(canonical, target, *chosen, microsoft=microsoft)
    check_model(lowered.model)
    if target.form == "onnx" and source.quantized:
        check_quantised(lowered.model)
    if target.form == "tensorrt":
        check_engine_graph(lowered.model)
    if target.form == "cpu":
        check_portable_graph(lowered.model, microsoft=microsoft)
    if not target.native or not source.quantized:
        return lowered, None
    native = onnx_for_target(canonical, target, *chosen, microsoft=microsoft, native=True)
    check_model(native.model)
    return lowered, native if native_operators(native.model) else None


def native_operators(model: onnx.ModelProto) -> dict[str, int]:
    """Nodes of our own native operators, by name."""
    own = Counter(node.op_type for node in model.graph.node if node.domain == DOMAIN)
    return dict(sorted(own.items()))


def _bytes(lowered: Lowered) -> bytes:
    data = bytes(lowered.model.SerializeToString(deterministic=True))
    if len(data) > MAX_MODEL_BYTES:
        raise ExportError(
            f"the model takes {len(data) >> 20} MiB, and none over {MAX_MODEL_BYTES >> 20} MiB is "
            "read; export fewer bits, or a narrower network"
        )
    return data


def _frozen_copy(network: nn.Module) -> nn.Module:
    """The network to export; the source itself stays as it is, latent weights included."""
    import copy

    return network if is_frozen(network) else freeze(copy.deepcopy(network))


def _write_golden(
    path: Path, network: nn.Module, paths: Sequence[Path], contract: dict[str, Any]
) -> Golden:
    images, logits, codes = [], [], []
    spread = paths[:: max(1, len(paths) // GOLDEN_IMAGES)][:GOLDEN_IMAGES]  # not all of one class
    for batch in batches(spread, {**contract, "max_side": GOLDEN_SIDE}):
        for image in batch:
            logit, record = source_outputs(network, image[None])
            images.append(image)
            logits.append(float(logit[0]))
            codes.append({layer: value.reshape(-1) for layer, value in record.items()})
    golden = Golden(images, np.asarray(logits, dtype=np.float32), codes)
    write_golden(path, golden)
    return golden


def sizes(network: nn.Module, model_bytes: int) -> dict[str, int]:
    """What the network takes, latent or frozen alike.

    ``weights``: weights of convolutions; ``fp32_bytes``: all parameters of the full-precision twin;
    ``weight_bits`` and ``packed_weight_bytes``: the weights at their own width; ``model_bytes``:
    the file; ``multiply_adds``: of one image of :data:`PLAN_SIDE` pixels a side.
    """
    layers = layer_stats(network, PLAN_SIDE)
    convs = list({layer.name: layer for layer in layers if layer.kind != "linear"}.values())
    bits = [conv.weights * conv.weight_bits for conv in convs]
    return {
        "weights": sum(conv.weights for conv in convs),
        "fp32_bytes": 4 * parameters(network),
        "weight_bits": sum(bits),
        "packed_weight_bytes": sum(-(-count // 8) for count in bits),
        "model_bytes": model_bytes,
        "multiply_adds": sum(layer.multiply_adds for layer in layers),
    }


def _manifest(
    folder: Path,
    source: Source,
    result: ExportResult,
    form: dict[str, Any],
    lowered: Lowered,
) -> dict[str, Any]:
    names = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file()]
    return {
        "schema": SCHEMA,
        "qmdd": _version("qmdd"),
        "arch": result.arch,
        "bits": result.bits,
        "target": result.target,
        **form,
        "source": source.entry,
        "output": OUTPUT,
        "threshold": THRESHOLD,
        "files": {
            name: {"sha256": sha256_of(folder / name), "bytes": (folder / name).stat().st_size}
            for name in names
        },
        "tools": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("torch", "onnx", "onnxruntime", "numpy")},
        },
        "tables": threshold_provenance(lowered),
        "passes": [{"pass": name, "applied": n} for name, n in lowered.applied],
        "notes": lowered.notes,
        "size": result.size,
        "nodes": result.nodes,
        "parity": [_finite(tier.to_dict()) for tier in result.parity],
    }


def _finite(plain: dict[str, Any]) -> dict[str, Any]:
    """A difference that is no number (such a tier failed) as JSON's null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in plain.items()
    }


def threshold_provenance(lowered: Lowered) -> list[dict[str, Any]]:
    """For each quantizer the shape of its table, and why its chain is not folded if it is not."""
    searched = any(name == "fold_chain" for name, _ in lowered.applied)
    found = []
    for layer, (channels, count) in lowered.tables.items():
        start = f"fold_chain: {layer}: "
        reasons = [note.removeprefix(start) for note in lowered.notes if note.startswith(start)]
        if not searched:
            reasons = ["this target keeps chains explicit"]
        found.append(
            {
                "layer": layer,
                "channels": channels,
                "thresholds": count,
                "folded": not reasons,
                "reason": "; ".join(reasons),
                "origin": "bisection over float32 of the source quantizer",
            }
        )
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package).split("+")[0]
    except metadata.PackageNotFoundError:
        return "unknown"
