"""What is known about a bundle's engine, and whether this machine may load it.

An engine works with the TensorRT that built it, on the kind of GPU it was built for. TensorRT says
so only by failing to load it; the *sidecar*, a JSON file beside the engine, says it beforehand and
in one line. The engine's own bytes are never touched: they would no longer load.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from pathlib import Path
from typing import Any

from .bundle import Bundle
from .errors import EngineError
from .tensorrt_api import BACKENDS, load_tensorrt

ENGINE = "model.engine"
SIDECAR = "engine.json"
LAYERS = "layers.json"
LOG = "build.log"
#: The sidecar's own version.
SCHEMA = 1
#: A larger sidecar or layer table is refused unread.
MAX_BYTES = 16 << 20

_AGAIN = "run qmdd build again"


@dataclasses.dataclass(frozen=True)
class EngineRecord:
    """The sidecar.

    Attributes:
        label: what may be claimed: ``built, not run``.
        target: the target's name.
        backend: ``tensorrt`` or ``tensorrt_rtx``.
        version: TensorRT's, in full.
        compute_capabilities: GPUs that the engine was built for, such as ``8.7``.
        systems: operating systems that it loads on, as :func:`platform.system` names them.
        machine: processor architecture, as :func:`architecture` names it.
        onnx_sha256: hash of the ONNX file that it was built from.
        engine_sha256: hash of the engine.
        profile: ``min``, ``opt`` and ``max`` shape of the input ``[N, 3, H, W]``.
        options: what the builder was asked for.
        seconds: wall-clock seconds of each stage.
        sizes: in bytes: ``engine``, ``weights``, ``activations`` and the builder's ``peak_memory``.
        device: what is known of the machine that built it: GPU, driver, JetPack.
    """

    label: str
    target: str
    backend: str
    version: str
    compute_capabilities: tuple[str, ...]
    systems: tuple[str, ...]
    machine: str
    onnx_sha256: str
    engine_sha256: str
    profile: dict[str, tuple[int, ...]]
    options: dict[str, Any]
    seconds: dict[str, float]
    sizes: dict[str, int]
    device: dict[str, str]

    def to_json(self) -> bytes:
        """The sidecar's bytes: UTF-8 JSON, keys sorted."""
        plain = {"schema": SCHEMA, **dataclasses.asdict(self)}
        return json.dumps(plain, sort_keys=True, indent=2, allow_nan=False).encode() + b"\n"


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where an engine is about to be loaded.

    ``compute_capability`` is that of its GPU, such as ``8.7``, empty while it is not known.
    """

    backend: str
    version: str
    compute_capability: str
    system: str
    machine: str


def architecture() -> str:
    """Of this machine's processor, by one name on every system: ``x86_64``, ``aarch64``."""
    found = platform.machine()
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(found, found)


def this_machine(backend: str, *, api: Any = None, cuda: Any = None, gpu: bool = True) -> Machine:
    """The machine that runs this.

    Args:
        backend: ``tensorrt`` or ``tensorrt_rtx``.
        api, cuda: its module and the CUDA runtime, where they are loaded already.
        gpu: ask for the GPU, too.

    Raises:
        EngineError: no ``backend``; or no GPU, if it is asked for.
    """
    from .cuda import Cuda

    version = str((api or load_tensorrt(backend)).__version__)
    capability = (cuda or Cuda()).compute_capability() if gpu else ""
    return Machine(backend, version, capability, platform.system(), architecture())


def refusal(record: EngineRecord, machine: Machine) -> str | None:
    """Why ``machine`` must not load the engine, with what to do; ``None`` if it may."""
    pairs = (
        ("for backend", (record.backend,), machine.backend),
        ("by version", (record.version,), machine.version),
        ("for compute capability", record.compute_capabilities, machine.compute_capability),
        ("for system", record.systems, machine.system),
        ("for architecture", (record.machine,), machine.machine),
    )
    for what, built, found in pairs:
        if found and found not in built:
            return (
                f"the engine was built {what} {' or '.join(built)}, and this machine has {found}; "
                f"{_AGAIN} here"
            )
    return None


def engine_folder(bundle: Bundle) -> str | None:
    """Name of the folder inside the bundle that holds its engine, ``None`` if it has none.

    Raises:
        EngineError: the manifest's entry is not one of ours.
    """
    entry = bundle.manifest.get("engine")
    if entry is None:
        return None
    folder = entry.get("folder") if isinstance(entry, dict) else None
    files = bundle.manifest["files"]
    if not isinstance(folder, str) or any(
        f"{folder}/{name}" not in files for name in (ENGINE, SIDECAR, LAYERS, LOG)
    ):
        raise EngineError(f"{bundle.path}: its manifest names no whole engine; {_AGAIN}")
    return folder


def engine_path(bundle: Bundle) -> Path:
    """The engine's file.

    Raises:
        EngineError: the bundle has none.
    """
    folder = engine_folder(bundle)
    if folder is None:
        raise EngineError(f"{bundle.path}: holds no engine; run qmdd build first")
    return bundle.path / folder / ENGINE


def read_record(bundle: Bundle) -> EngineRecord:
    """The sidecar of the bundle's engine, checked against the bundle's own ONNX file and engine.

    Raises:
        EngineError: no engine, a sidecar that is not one of ours, or one of another engine.
    """
    path = engine_path(bundle).with_name(SIDECAR)
    record = _record(path, read_json(path))
    files = bundle.manifest["files"]
    held = files[f"{path.parent.relative_to(bundle.path).as_posix()}/{ENGINE}"]["sha256"]
    for what, said, found in (
        ("ONNX file", record.onnx_sha256, files["model.onnx"]["sha256"]),
        ("engine", record.engine_sha256, held),
    ):
        if said != found:
            raise EngineError(f"{path}: belongs to another {what} than the bundle's; {_AGAIN}")
    return record


def check_engine(bundle: Bundle, machine: Machine | None = None) -> EngineRecord:
    """The sidecar, if this machine may load the engine.

    Args:
        bundle: an opened bundle.
        machine: where it is to be loaded; default: here.

    Raises:
        EngineError: as :func:`read_record`; or the engine is for another TensorRT, GPU or system.
    """
    record = read_record(bundle)
    if machine is None:
        # An engine of another version is one whether there is a GPU or not.
        _refuse(bundle, record, this_machine(record.backend, gpu=False))
        machine = this_machine(record.backend)
    _refuse(bundle, record, machine)
    return record


def _refuse(bundle: Bundle, record: EngineRecord, machine: Machine) -> None:
    reason = refusal(record, machine)
    if reason is not None:
        raise EngineError(f"{engine_path(bundle)}: {reason}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a bundle, bounded.

    Raises:
        EngineError: unreadable, too large, or no JSON object.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise EngineError(f"{path}: larger than {MAX_BYTES >> 20} MiB; {_AGAIN}")
        found = json.loads(data)
    except OSError as error:
        raise EngineError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{path}: not JSON ({error}); {_AGAIN}") from error
    if not isinstance(found, dict):
        raise EngineError(f"{path}: must hold an object; {_AGAIN}")
    return found


def _record(path: Path, plain: dict[str, Any]) -> EngineRecord:
    if plain.get("schema") != SCHEMA:
        raise EngineError(
            f"{path}: schema is {plain.get('schema')!r}, this qmdd reads {SCHEMA}; {_AGAIN}"
        )
    values: dict[str, Any] = {}
    for field in dataclasses.fields(EngineRecord):
        value = plain.get(field.name)
        kind = {"str": str, "tuple[str, ...]": list}.get(str(field.type), dict)
        if not isinstance(value, kind):
            raise EngineError(f"{path}: {field.name} must be {kind.__name__}; {_AGAIN}")
        if kind is list and not (value and all(isinstance(item, str) for item in value)):
            raise EngineError(f"{path}: {field.name} must hold names; {_AGAIN}")
        values[field.name] = tuple(value) if kind is list else value
    if values["backend"] not in BACKENDS:
        raise EngineError(f"{path}: no backend {values['backend']!r}; {_AGAIN}")
    values["profile"] = {name: _shape(path, values["profile"].get(name)) for name in _BOUNDS}
    sizes, seconds = values["sizes"], values["seconds"]
    if any(type(sizes.get(name)) is not int for name in _SIZES) or not all(
        type(value) in (int, float) for value in seconds.values()
    ):
        raise EngineError(f"{path}: sizes and seconds must be numbers; {_AGAIN}")
    return EngineRecord(**values)


_BOUNDS = ("min", "opt", "max")
_SIZES = ("engine", "weights", "activations", "peak_memory")


def _shape(path: Path, shape: object) -> tuple[int, ...]:
    if not isinstance(shape, list) or len(shape) != 4 or any(type(n) is not int for n in shape):
        raise EngineError(f"{path}: profile needs min, opt and max of four numbers; {_AGAIN}")
    return tuple(shape)
