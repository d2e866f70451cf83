"""All that differs between the editions and generations of TensorRT, when an engine is built.

| | 8.5, 8.6 | 10.x | 11.x | RTX 1.7 |
|---|---|---|---|---|
| types | flag INT8 permits it | the graph's (flag) | the graph's | the graph's |
| compute capability | this GPU's | this GPU's | this GPU's | named, no GPU needed |
| layer table | inspector | inspector | inspector | builder's log |
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from ...runtime.errors import EngineError
from ...runtime.tensorrt_api import load_tensorrt, version_of
from ..errors import BuildError
from .header import version_in_header
from .layers import HEADING, EngineLayer, layers_from_inspector, layers_from_log

#: From this version on a network can take all types from its graph.
STRONG_TYPING = 10


class Backend:
    """TensorRT proper: builds for the GPU of the machine it runs on.

    Args:
        api: its Python module.
    """

    name = "tensorrt"

    def __init__(self, api: Any) -> None:
        self.api = api
        self.version = str(api.__version__)
        self.major = version_of(self.version)[0]

    @property
    def systems(self) -> tuple[str, ...]:
        """Operating systems that its engines load on."""
        return (platform.system(),)

    def network_flags(self) -> int:
        """What ``create_network`` is given; a generation lacks the flags that are its default."""
        known = self.api.NetworkDefinitionCreationFlag
        wanted = "STRONGLY_TYPED" if self.major >= STRONG_TYPING else "EXPLICIT_BATCH"
        return 1 << int(getattr(known, wanted)) if hasattr(known, wanted) else 0

    def configure(self, config: Any, capabilities: tuple[str, ...]) -> None:
        """Set what this edition needs; never FP16 or TF32, which would round exact sums."""
        flags = self.api.BuilderFlag
        if self.major < STRONG_TYPING:
            config.set_flag(flags.INT8)
        if hasattr(flags, "TF32"):
            config.clear_flag(flags.TF32)

    def capabilities(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        """What the engine will be built for: this GPU, which must be among ``asked`` if any are.

        Raises:
            BuildError: another GPU. EngineError: none.
        """
        from ...runtime.cuda import Cuda

        found = Cuda().compute_capability()
        if asked and found not in asked:
            raise BuildError(
                f"this machine's GPU has compute capability {found}, the target's {asked[0]}; "
                "build on the device itself, or choose its --target"
            )
        return (found,)

    def layers(self, plan: Any, logger: Any, _messages: list[str]) -> list[EngineLayer]:
        """The layer table of the serialised engine ``plan``."""
        engine = self.api.Runtime(logger).deserialize_cuda_engine(plan)
        if engine is None:
            raise BuildError("TensorRT cannot load the engine that it just built")
        inspector = engine.create_engine_inspector()
        as_json = self.api.LayerInformationFormat.JSON
        return layers_from_inspector(str(inspector.get_engine_information(as_json)))

    def check(self, engine: Path) -> None:
        """Raise :class:`BuildError` if the file that was written is not a whole engine."""
        if not engine.stat().st_size:
            raise BuildError(f"{engine}: empty")

    def device(self) -> dict[str, str]:
        """What is known of the machine: GPU's driver, release of the Jetson's software."""
        from ...runtime.cuda import Cuda

        cuda = Cuda()
        known = {"compute_capability": cuda.compute_capability(), "cuda": cuda.driver_version()}
        release = Path("/etc/nv_tegra_release")
        if release.is_file():
            known["l4t"] = release.read_text(encoding="utf-8", errors="replace")[:200].strip()
        return known


class RtxBackend(Backend):
    """TensorRT for RTX: builds ahead of time for GPUs that are named, on any x86-64 or ARM CPU."""

    name = "tensorrt_rtx"

    @property
    def systems(self) -> tuple[str, ...]:
        """One file serves both (NVIDIA: support matrix of TensorRT-RTX)."""
        return ("Linux", "Windows")

    def network_flags(self) -> int:
        """Always strongly typed."""
        return 0

    def configure(self, config: Any, capabilities: tuple[str, ...]) -> None:
        """Name the GPUs."""
        known = self.api.ComputeCapability
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            name = f"SM{capability.replace('.', '')}"
            if not hasattr(known, name):
                raise BuildError(
                    f"TensorRT-RTX {self.version} builds nothing for compute capability "
                    f"{capability}; choose another --target"
                )
            config.set_compute_capability(getattr(known, name), index)

    def capabilities(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        """Those that are asked for."""
        return asked

    def layers(self, _plan: Any, _logger: Any, messages: list[str]) -> list[EngineLayer]:
        """From the builder's log: the engine cannot be opened without a GPU."""
        tables = [text for text in messages if text.startswith(HEADING)]
        if len(tables) != 1:
            raise BuildError(f"TensorRT-RTX logged {len(tables)} layer tables, not one")
        return layers_from_log(tables[0])

    def check(self, engine: Path) -> None:
        """Length and version, from the head of the file."""
        told = version_in_header(engine)
        if told != self.version:
            raise BuildError(f"{engine}: its head says version {told}, not {self.version}")

    def device(self) -> dict[str, str]:
        """No device takes part."""
        return {}


def find_backend(name: str, versions: tuple[str, str]) -> Backend:
    """The backend called ``name``, loaded.

    Args:
        name: ``tensorrt`` or ``tensorrt_rtx``.
        versions: lowest and highest that will do, both included, as far as they are spelt out.

    Raises:
        EngineError: not installed. BuildError: another version.
    """
    known = {kind.name: kind for kind in (Backend, RtxBackend)}
    if name not in known:
        raise EngineError(f"no backend {name!r}; there are {', '.join(known)}")
    backend = known[name](load_tensorrt(name))
    found = version_of(backend.version)
    low, high = (version_of(text) for text in versions)
    if not low <= found[: len(low)] or found[: len(high)] > high:
        span = versions[0] if versions[0] == versions[1] else f"{versions[0]} to {versions[1]}"
        raise BuildError(
            f"{name} here is {backend.version}, the target's is {span}; choose the --target of the "
            "JetPack or release that is installed"
        )
    return backend
