"""The parts of the matrix: which model, runtime, level, threads, batch and size go together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from qmdd.runtime import native

from .environments import OLDEST_RUNTIME, ONNXRUNTIMES
from .matrix_worker import LEVELS

_ALL_LEVELS = tuple(LEVELS)
_ENDS = ("none", "all")
_BATCHES = (1, 7, 14)
#: Two of the sizes, where all would take long.
_FEW = ("97x161", "256x256")


@dataclasses.dataclass(frozen=True)
class Job:
    """Cells that one process computes.

    Attributes:
        target: whose model it is.
        runtime: what runs it.
        levels: of ONNX Runtime; ``("",)`` where there are none.
        threads, batches: all are tried with all.
        sizes: names of the sets; none for all.
        packages: versions in place of the installed ones.
        kernels: of the native operators.
        images: of each size; by default as many as the batch, and three at least.
        claims: least side that the model takes.
    """

    target: str
    runtime: str
    levels: Sequence[str] = _ALL_LEVELS
    threads: Sequence[int] = (1, 2)
    batches: Sequence[int] = _BATCHES
    sizes: Sequence[str] = ()
    packages: tuple[tuple[str, str], ...] = ()
    kernels: str = ""
    images: int | None = None
    claims: int = 32

    @property
    def name(self) -> str:
        """Such as ``cpu in native (avx2)``, with the versions if they are others."""
        kernels = f" ({self.kernels})" if self.kernels else ""
        versions = ", ".join(f"{package} {version}" for package, version in self.packages)
        return f"{self.target} in {self.runtime}{kernels}{f', {versions}' if versions else ''}"


def jobs() -> Iterator[Job]:
    """All jobs, those of the tested versions first."""
    yield Job("onnx", "onnxruntime")
    yield Job("cpu", "onnxruntime")
    for kernels in native.kernels() if native.library_path() else ():
        slow = kernels == "scalar"
        yield Job("cpu", "native", _ENDS, batches=(7,) if slow else _BATCHES, kernels=kernels)
    yield Job("openvino", "openvino", ("",), claims=64)
    yield Job("openvino", "onnxruntime", _ENDS, batches=(7,))
    yield Job("canonical", "onnxruntime", _ENDS, batches=(7,), sizes=_FEW)
    yield Job("rtx", "onnxruntime", _ENDS, batches=(7,), sizes=_FEW)
    yield Job("orin-nano", "onnxruntime", _ENDS, batches=(7,), sizes=_FEW)
    yield Job("qonnx", "qonnx", ("",), (1,), (1,), ("32x32", "97x161"), images=2)
    for version in ONNXRUNTIMES:
        yield from _older((("onnxruntime", version),))
    yield from _older(tuple(OLDEST_RUNTIME.items()))
    yield Job("openvino", "openvino", ("",), (1,), (7,), _FEW, (("openvino", "2026.4.0"),),
              images=7, claims=64)  # fmt: skip


def _older(packages: tuple[tuple[str, str], ...]) -> Iterator[Job]:
    for target, runtime in (("onnx", "onnxruntime"), ("cpu", "onnxruntime"), ("cpu", "native")):
        if runtime == "native" and not native.library_path():
            continue
        yield Job(target, runtime, _ENDS, (1,), (7,), _FEW, packages, images=7)


#: What no cell of this machine can show, and why.
NOT_HERE = {
    "TensorRT, tiers engine and codes": "needs an NVIDIA GPU; engines are built and audited "
    "without one (docs/engines.md), their models run in ONNX Runtime here",
    "TensorRT, the stand-in of the tests": "it computes nothing: it stands for the builder and the "
    "audit, not for arithmetic",
    "numpy": "there is no runtime in numpy; tables are compared in it by all_floats",
    "native operators, neon-dotprod": "an ARM processor's; tests/aarch64 runs them emulated",
    "Python 3.10, 3.12, 3.13": "not on this machine",
    "torch 2.9 to 2.12": "the source stays the tested one: only what runs bundles, and onnx, vary",
}
