"""``BUILD.md``: how the engine of a bundle is built where it will run, in so many commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...runtime.tensorrt_api import version_of
from ..errors import ExportError
from ..targets import EngineSpec, Target
from .build import SIDE

#: The recipe's name in a bundle.
RECIPE = "BUILD.md"

#: JetPacks whose Python, the only one that their TensorRT knows, is older than ours.
OLD_PYTHON = {"5.1": "3.8"}

#: Generations of TensorRT, by the first number of their versions: what they are called, and what
#: ``trtexec`` is told about types. Never ``--fp16``, and ``--noTF32``: both would round exact sums.
GENERATIONS: dict[int, tuple[str, tuple[str, ...]]] = {
    8: ("TensorRT 8.5, 8.6", ("--int8", "--noTF32")),
    10: ("TensorRT 10", ("--stronglyTyped", "--noTF32")),
    11: ("TensorRT 11", ("--noTF32",)),
}


def recipe(target: Target, contract: Mapping[str, Any]) -> str:
    """The text of :data:`RECIPE` for a bundle that is exported for ``target``.

    Args:
        target: one with an engine.
        contract: the manifest's ``input``; of it, ``min_side`` and ``max_side``.

    Raises:
        ExportError: ``target`` has no engine.
    """
    if target.engine is None:
        raise ExportError(f"target {target.name} has no engine, so there is nothing to build")
    if target.engine.backend == "tensorrt_rtx":
        return _of_rtx(target, target.engine)
    lines = [trtexec(target.engine, major, contract) for major in _majors(target.engine)]
    titles = [GENERATIONS[major][0] for major in _majors(target.engine)]
    commands = "\n\n".join(
        f"{title}:\n\n```sh\n{line}\n```" for title, line in zip(titles, lines, strict=True)
    )
    return f"""# Build the engine

For **{target.summary}**
(target `{target.name}`, TensorRT {_span(target.engine)}).

An engine works only with the TensorRT that built it, on the kind of GPU that built it: build it on
the device.

{_ours(target)}
## With NVIDIA's own tool

`trtexec` (on a Jetson `/usr/src/tensorrt/bin/trtexec`) builds the engine, too. Nobody audits it
then: in `layers.json`, inputs and weights of every convolution must be Int8.

{commands}

What is claimed for this target: {target.claim}.
"""


def trtexec(engine: EngineSpec, major: int, contract: Mapping[str, Any]) -> str:
    """The ``trtexec`` line of one generation of TensorRT; run it in the bundle's folder."""
    side = min(max(SIDE, int(contract["min_side"])), int(contract["max_side"]))
    options = [
        "--onnx=model.onnx",
        *GENERATIONS[major][1],
        f"--optShapes=image:1x3x{side}x{side}",
        f"--memPoolSize=workspace:{engine.workspace_mib}",
        "--profilingVerbosity=detailed",
        "--exportLayerInfo=layers.json",
        "--saveEngine=model.engine",
    ]
    return " \\\n  ".join(["trtexec", *options])


def _of_rtx(target: Target, engine: EngineSpec) -> str:
    capabilities = ", ".join(engine.compute_capabilities)
    return f"""# Build the engine

For **{target.summary}**
(target `{target.name}`, TensorRT-RTX {_span(engine)}, compute capability {capabilities}).

No GPU is needed to build it; it loads on Linux and on Windows, with the very
version of TensorRT-RTX that built it.

```sh
pip install 'qmdd[rtx]'   # NVIDIA's own licence applies to the three wheels that this brings along
qmdd build .              # in this folder; builds, audits layer by layer, and adds the engine
qmdd inspect .            # shows what runs in which precision
```

What is claimed for this target: {target.claim}.
"""


def _ours(target: Target) -> str:
    if target.jetpack in OLD_PYTHON:
        return f"""JetPack {target.jetpack}'s TensorRT belongs to its own Python,
{OLD_PYTHON[target.jetpack]}, and `qmdd build` needs 3.10: here NVIDIA's own tool builds.
"""
    return f"""```sh
{_environment(target)}
qmdd build .        # in this folder; builds, audits layer by layer, and adds the engine
qmdd inspect .      # shows what runs in which precision
```

`qmdd build` needs neither PyTorch nor the onnx package. It fails, and adds nothing, if a layer that
was planned in INT8 runs in anything else.
"""


def _environment(target: Target) -> str:
    if target.jetpack is None:
        return (
            "python3 -m venv --system-site-packages env && . env/bin/activate && pip install qmdd"
        )
    return (
        "sudo apt install python3-libnvinfer python3-venv   # JetPack's TensorRT for its Python\n"
        "python3 -m venv --system-site-packages env && . env/bin/activate\n"
        "pip install qmdd"
    )


def _majors(engine: EngineSpec) -> list[int]:
    low, high = (version_of(text)[0] for text in engine.versions)
    return [major for major in GENERATIONS if low <= major <= high]


def _span(engine: EngineSpec) -> str:
    low, high = engine.versions
    return low if low == high else f"{low} to {high}"
