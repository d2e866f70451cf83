"""Targets as data: what a model is lowered for, the passes that this takes, who builds its engine.

A target is called by its name, ``orin-nano``; a Jetson by its name and JetPack, ``orin-nano@5.1``,
because the TensorRT on it belongs to the JetPack. Without one, the first that is listed is meant.

What is claimed for a target is one of :data:`CLAIMS`. That the *lowered model* gives the source's
codes is measured for every one, in ONNX Runtime or its own runtime; the claim is about what then
runs on the device.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ..runtime.contract import SIDES
from .errors import ExportError

if TYPE_CHECKING:
    from .passes.base import Pass

#: What a claim rests on, the strongest first.
CLAIMS = {
    "measured": "ran here, codes compared with the source",
    "built, not run": "the engine is built and audited in CI, on no GPU",
    "documented": "as its vendor documents it; neither built nor run here",
    "refused": "cannot be done; the reason is given",
}


@dataclasses.dataclass(frozen=True)
class EngineSpec:
    """How an engine is built for a target.

    Attributes:
        backend: ``tensorrt`` (on the device itself) or ``tensorrt_rtx`` (anywhere, ahead of time).
        versions: lowest and highest TensorRT, both included, such as ``("10.3", "10.7")``.
        compute_capabilities: of the GPUs, such as ``("8.7",)``; empty for any.
        weak_typing: INT8 must be switched on by a flag (before TensorRT 10) and is a permission;
            otherwise types are those of the graph.
        workspace_mib: default of the builder's scratch memory.
        storages: how its engines can hold weights; what is missing is widened to ``int8``.
        precisions: what ``--precision`` may ask for.
    """

    backend: str
    versions: tuple[str, str]
    compute_capabilities: tuple[str, ...]
    weak_typing: bool
    workspace_mib: int
    storages: tuple[str, ...] = ("int8",)
    precisions: tuple[str, ...] = ("int8",)


@dataclasses.dataclass(frozen=True)
class Target:
    """A consumer of exported models.

    Attributes:
        name: as given to ``--target``.
        summary: one line for people.
        form: ``onnx``, ``canonical``, ``tensorrt``, ...: the family of graphs it reads.
        passes: names of the passes, in order; see :func:`passes_of`.
        opsets: lowest and highest opset that the passes can write.
        opset: the one that is written unless the weights' storage needs a higher one.
        claim: one of :data:`CLAIMS`.
        runtime: what runs the model on this machine: ``onnxruntime``, ``openvino``, ``qonnx``.
        engine: how its engine is built; ``None`` where the model itself is run.
        device: its entry in :mod:`.devices`, ``None`` for a family of devices.
        jetpack: NVIDIA's release of the Jetson's software.
        memory_gib: of the device; 0 if that varies.
        refused: why nothing can be made for it.
        min_side: of images, pixels, where its runtime needs more than our models do.
        native: the passes of a second model, for our native operators, where it has one.
    """

    name: str
    summary: str
    form: str
    passes: tuple[str, ...]
    opsets: tuple[int, int]
    opset: int
    claim: str
    runtime: str = "onnxruntime"
    engine: EngineSpec | None = None
    device: str | None = None
    jetpack: str | None = None
    memory_gib: int = 0
    refused: str = ""
    min_side: int = SIDES["min_side"]
    native: tuple[str, ...] = ()


class _JetPack(NamedTuple):
    """A release of the Jetsons' software: its TensorRT and what that can do."""

    versions: tuple[str, str]
    weak_typing: bool

    @property
    def precisions(self) -> tuple[str, ...]:
        """INT4 came with TensorRT 10 (only matrix products have it there)."""
        return ("int8",) if self.weak_typing else ("int8", "int4")


_JETPACKS = {
    "5.1": _JetPack(("8.5", "8.5"), True),
    "6.0": _JetPack(("8.6", "8.6"), True),
    "6.1": _JetPack(("10.3", "10.3"), False),
    "6.2": _JetPack(("10.3", "10.7"), False),
    "7.1": _JetPack(("10.13", "10.13"), False),
    "7.2": _JetPack(("10.13", "11.4"), False),
}


class _Jetson(NamedTuple):
    """A module: compute capability, memory in GiB, its JetPacks, the usual one first."""

    title: str
    capability: str
    memory_gib: int
    jetpacks: tuple[str, ...]

    @property
    def workspace_mib(self) -> int:
        """A tactic that asks for more than is free is skipped; CPU and GPU share the memory."""
        return {4: 256, 8: 512}.get(self.memory_gib, 1024)


_ORIN = ("6.2", "6.1", "6.0", "5.1", "7.2")
_JETSONS = {
    "orin-nano": _Jetson("Jetson Orin Nano 8 GB", "8.7", 8, _ORIN),
    "orin-nano-4gb": _Jetson("Jetson Orin Nano 4 GB", "8.7", 4, _ORIN),
    "orin-nx": _Jetson("Jetson Orin NX 16 GB", "8.7", 16, _ORIN),
    "orin-nx-8gb": _Jetson("Jetson Orin NX 8 GB", "8.7", 8, _ORIN),
    "agx-orin": _Jetson("Jetson AGX Orin 64 GB", "8.7", 64, _ORIN),
    "agx-orin-32gb": _Jetson("Jetson AGX Orin 32 GB", "8.7", 32, _ORIN),
    "thor": _Jetson("Jetson Thor T5000", "11.0", 128, ("7.1", "7.2")),
    "thor-t4000": _Jetson("Jetson Thor T4000", "11.0", 64, ("7.1", "7.2")),
    "xavier-nx": _Jetson("Jetson Xavier NX", "7.2", 8, ("5.1",)),
    "agx-xavier": _Jetson("Jetson AGX Xavier", "7.2", 32, ("5.1",)),
}
_CARDS = {
    "rtx-ampere": ("RTX cards of the Ampere generation", ("8.6",)),
    "rtx-ada": ("RTX cards of the Ada generation", ("8.9",)),
    "rtx-blackwell": ("RTX cards of the Blackwell generation", ("12.0",)),
    "rtx": ("all three RTX generations in one engine", ("8.6", "8.9", "12.0")),
}

_FOLDS = ("fold_stem", "pool_head", "fold_chain")
_ENGINE_PASSES = (
    *_FOLDS,
    "pool_first",
    "engine_stem",
    "engine_weights",
    "engine_lookup",
    "engine_thresholds",
)


def _engine_target(name: str, summary: str, claim: str, engine: EngineSpec) -> Target:
    return Target(
        name=name,
        summary=summary,
        form="tensorrt",
        passes=_ENGINE_PASSES,
        opsets=(17, 17) if engine.weak_typing else (17, 21),
        opset=17,
        claim=claim,
        engine=engine,
    )


def _jetsons() -> Iterator[Target]:
    for name, module in _JETSONS.items():
        for number in module.jetpacks:
            jetpack = _JETPACKS[number]
            engine = EngineSpec(
                backend="tensorrt",
                versions=jetpack.versions,
                compute_capabilities=(module.capability,),
                weak_typing=jetpack.weak_typing,
                workspace_mib=module.workspace_mib,
                precisions=jetpack.precisions,
            )
            summary = f"{module.title}, JetPack {number}"
            yield dataclasses.replace(
                _engine_target(f"{name}@{number}", summary, "documented", engine),
                device=name,
                jetpack=number,
                memory_gib=module.memory_gib,
            )


def _cards() -> Iterator[Target]:
    for name, (title, capabilities) in _CARDS.items():
        engine = EngineSpec(
            backend="tensorrt_rtx",
            versions=("1.7", "1.7"),
            compute_capabilities=capabilities,
            weak_typing=False,
            workspace_mib=1024,
            storages=("int8", "int4", "int2"),
            precisions=("int8", "int4"),
        )
        target = _engine_target(name, f"TensorRT for RTX: {title}", "built, not run", engine)
        yield dataclasses.replace(target, device=name if len(capabilities) == 1 else None)


_WORKSTATION = _engine_target(
    "tensorrt",
    "a workstation with an NVIDIA GPU and TensorRT, built on that machine",
    "documented",
    EngineSpec(
        backend="tensorrt",
        versions=("10.0", "11.4"),
        compute_capabilities=(),
        weak_typing=False,
        workspace_mib=2048,
        precisions=("int8", "int4"),
    ),
)
_NANO = Target(
    name="jetson-nano",
    summary="the original Jetson Nano, JetPack 4",
    form="tensorrt",
    passes=(),
    opsets=(17, 17),
    opset=17,
    claim="refused",
    device="jetson-nano",
    jetpack="4.6",
    memory_gib=4,
    refused="its GPU (compute capability 5.3) has no INT8 arithmetic, and its last TensorRT, 8.2, "
    "does not read opset 17; export with --target onnx and run ONNX Runtime on its CPU",
)
_MODELS = (
    Target(
        name="onnx",
        summary="interchange, and any CPU by ONNX Runtime: standard operators, Q/DQ on codes",
        form="onnx",
        passes=(*_FOLDS, "pack_weights", "lower_thresholds"),
        opsets=(17, 25),
        opset=21,
        claim="measured",
    ),
    Target(
        name="cpu",
        summary="any CPU by ONNX Runtime, fast: channels-last integer products, standard operators",
        form="cpu",
        passes=(
            "pool_head",
            "fold_chain",
            "pool_first",
            "constant_stem",
            "channels_last",
            "matmul_conv",
            "slice_pools",
            "max_prelu",
            "byte_thresholds",
            "transpose_rest",
            "row_constants",
            "row_strips",
        ),
        native=(
            *_FOLDS,
            "channels_last",
            "cell_stem",
            "native_conv",
            "native_pool",
            "matmul_conv",
            "slice_pools",
            "max_prelu",
            "byte_thresholds",
            "transpose_rest",
            "row_constants",
        ),
        opsets=(21, 25),
        opset=21,
        claim="measured",
    ),
    Target(
        name="openvino",
        summary="x86 CPUs by OpenVINO: every convolution of codes an INT8 kernel",
        form="openvino",
        passes=(
            *_FOLDS,
            "pool_first",
            "byte_stem",
            "pad_codes",
            "pack_weights",
            "lower_thresholds",
            "hold_fusions",
            "block_head",
        ),
        opsets=(17, 21),
        opset=21,
        claim="measured",
        runtime="openvino",
        # Its INT8 kernel for AMX is wrong where a 3x3 convolution of stride 2 has outputs one pixel
        # wide (docs/openvino.md): below 34 pixels at the last stage of a ResNet.
        min_side=64,
    ),
    Target(
        name="qonnx",
        summary="FPGA flows (FINN) by QONNX: MultiThreshold and Quant; the same as --dialect qonnx",
        form="qonnx",
        passes=(*_FOLDS, "qonnx_image", "qonnx_concat", "qonnx_weights", "qonnx_thresholds"),
        opsets=(17, 21),
        opset=17,
        claim="measured",
        runtime="qonnx",
    ),
    Target(
        name="canonical",
        summary="as traced: qmdd::MultiThreshold with a body in standard operators",
        form="canonical",
        passes=("fold_stem", "pool_head"),
        opsets=(21, 25),
        opset=21,
        claim="measured",
    ),
)

#: All targets by their full names, in the order in which they are shown.
TARGETS: dict[str, Target] = {
    target.name: target for target in (*_MODELS, *_jetsons(), _NANO, *_cards(), _WORKSTATION)
}


def find_target(name: str) -> Target:
    """The target called ``name``; a Jetson's name alone means its usual JetPack.

    Raises:
        ExportError: no such target (near names or its JetPacks are given), or a refused one.

    >>> find_target("orin-nano").name
    'orin-nano@6.2'
    """
    full = name
    if name in _JETSONS:
        full = f"{name}@{_JETSONS[name].jetpacks[0]}"
    if full not in TARGETS:
        raise ExportError(f"no target {name!r}; {_nearest(name)}")
    target = TARGETS[full]
    if target.refused:
        raise ExportError(f"target {name}: {target.refused}")
    return target


def _nearest(name: str) -> str:
    module, _, jetpack = name.partition("@")
    if jetpack and module in _JETSONS:
        return f"{module} runs JetPack {', '.join(_JETSONS[module].jetpacks)}"
    names = list(dict.fromkeys(full.partition("@")[0] for full in TARGETS))
    near = difflib.get_close_matches(module, names, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"


def passes_of(
    target: Target,
    storage: str,
    opset: int,
    precision: str,
    *,
    microsoft: bool = False,
    native: bool = False,
) -> list[tuple[str, Pass]]:
    """The target's passes, ready to call, with their names.

    Args:
        storage: how weights are held, one of :data:`.passes.pack_weights.STORAGES`.
        opset: of the result.
        precision: ``int8`` or ``int4``, of an engine.
        microsoft: with those that write ONNX Runtime's own operators, where the form has such.
        native: those of the model for our native operators.
    """
    from .passes.block_head import block_head
    from .passes.byte_stem import byte_stem
    from .passes.byte_thresholds import byte_thresholds
    from .passes.cell_stem import cell_stem
    from .passes.channels_last import channels_last
    from .passes.constant_stem import constant_stem
    from .passes.engine_lookup import engine_lookup
    from .passes.engine_stem import engine_stem
    from .passes.engine_thresholds import engine_thresholds
    from .passes.engine_weights import engine_weights
    from .passes.fold_chain import fold_chain
    from .passes.fold_stem import fold_stem
    from .passes.hold_fusions import hold_fusions
    from .passes.lower_thresholds import lower_thresholds
    from .passes.matmul_conv import matmul_conv
    from .passes.max_prelu import max_prelu
    from .passes.native_conv import native_conv
    from .passes.native_pool import native_pool
    from .passes.pack_weights import pack_weights
    from .passes.pad_codes import pad_codes
    from .passes.pool_first import pool_first
    from .passes.pool_head import pool_head
    from .passes.qonnx_operators import (
        qonnx_concat,
        qonnx_image,
        qonnx_thresholds,
        qonnx_weights,
    )
    from .passes.row_constants import row_constants
    from .passes.row_strips import row_strips
    from .passes.scaled_products import scaled_products
    from .passes.slice_pools import slice_pools
    from .passes.transpose_rest import transpose_rest

    x86 = target.form == "openvino"
    known: dict[str, Pass] = {
        "fold_stem": fold_stem,
        "pool_head": pool_head,
        "fold_chain": fold_chain,
        "qonnx_image": qonnx_image,
        "qonnx_concat": qonnx_concat,
        "qonnx_weights": qonnx_weights,
        "qonnx_thresholds": qonnx_thresholds,
        "block_head": block_head,
        "pad_codes": pad_codes,
        "pool_first": pool_first,
        "byte_stem": byte_stem,
        "pack_weights": pack_weights(storage, opset, int16_pairs=x86),
        "lower_thresholds": functools.partial(lower_thresholds, in_bytes=x86),
        "hold_fusions": hold_fusions,
        "constant_stem": constant_stem,
        "channels_last": channels_last,
        "cell_stem": cell_stem,
        "native_conv": native_conv,
        "native_pool": native_pool,
        "matmul_conv": matmul_conv(storage, opset),
        "slice_pools": slice_pools,
        "max_prelu": max_prelu,
        "byte_thresholds": byte_thresholds,
        "transpose_rest": transpose_rest,
        "scaled_products": scaled_products,
        "row_constants": row_constants,
        "row_strips": row_strips,
        "engine_stem": engine_stem,
        "engine_weights": engine_weights(storage, precision, target.engine),
        "engine_lookup": engine_lookup,
        "engine_thresholds": engine_thresholds,
    }
    names = list(target.native if native else target.passes)
    if microsoft and target.form == "cpu":
        names.insert(names.index("row_constants"), "scaled_products")
    return [(name, known[name]) for name in names]
