"""``config.pbtxt``: Triton's ModelConfig as text, written here and read back by its first line.

The first line is a comment that holds the settings as JSON, with the hash of all that follows. So a
later export knows what the file says without a reader of Triton's text format, and knows whether
somebody has changed it since.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ExportError
from .settings import ONNXRUNTIME, Settings

CONFIG = "config.pbtxt"
#: A larger file is none of ours.
MAX_BYTES = 1 << 20
_MARK = "# qmdd "
_SCHEMA = 1


class Held(NamedTuple):
    """A configuration that is there: what we wrote, and whether it was changed since."""

    settings: Settings
    edited: bool


def config_bytes(settings: Settings) -> bytes:
    """The file for ``settings``: the same bytes for the same settings."""
    text = "\n".join(_lines(settings)) + "\n"
    head = {
        "schema": _SCHEMA,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "settings": settings.to_dict(),
    }
    return f"{_MARK}{json.dumps(head, sort_keys=True)}\n{text}".encode()


def read_config(path: Path) -> Held:
    """What :func:`config_bytes` wrote to ``path``.

    Raises:
        ExportError: a file that is not ours, or of a later qmdd.
        OSError: it cannot be read.
    """
    with open(path, "rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    first, _, rest = data.partition(b"\n")
    foreign = ExportError(
        f"{path}: not written by qmdd, so nothing is added to this model; choose another --name"
    )
    if len(data) > MAX_BYTES or not first.startswith(_MARK.encode()):
        raise foreign
    try:
        head = json.loads(first[len(_MARK) :])
        schema, sha256 = head["schema"], head["sha256"]
        settings = _settings(head["settings"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise foreign from error
    if schema != _SCHEMA:
        raise ExportError(f"{path}: written by another qmdd (schema {schema}); use that one")
    return Held(settings, hashlib.sha256(rest).hexdigest() != sha256)


_KINDS: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float)}


def _settings(plain: dict[str, Any]) -> Settings:
    """``ValueError``, ``KeyError`` or ``TypeError`` for what no :class:`Settings` said."""
    settings = Settings(**plain)
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        if not isinstance(value, _KINDS.get(str(field.type), dict)):
            raise TypeError(f"{field.name} is {type(value).__name__}")
    if any(not name.isdecimal() for name in settings.versions):
        raise ValueError("a version that is no number")
    if not all(isinstance(facts, dict) for facts in settings.versions.values()):
        raise TypeError("a version without facts")
    texts = [settings.plans, *settings.versions.values()]
    if not all(isinstance(text, str) for held in texts for text in held.values()):
        raise TypeError("facts that are no texts")
    json.dumps(plain, ensure_ascii=False).encode()  # no half characters: it is written again
    if any(type(settings.sides[name]) is not int for name in ("min_side", "multiple", "max_side")):
        raise ValueError("sides that are no numbers")
    return settings


def _lines(s: Settings) -> Iterator[str]:
    yield f"name: {_text(s.name)}"
    yield f"backend: {_text(s.backend)}"
    yield f"max_batch_size: {s.max_batch}"
    yield f'input [ {{ name: "image" data_type: TYPE_UINT8 dims: {_list(s.dims)} }} ]'
    # The model's own output is [N]; Triton wants a dimension beside that of the batch.
    yield ('output [ { name: "logit" data_type: TYPE_FP32 dims: [ 1 ] reshape: { shape: [ ] } } ]')
    if s.max_batch > 1:
        # Only images of equal size share a batch: Triton sees to that.
        best = f"preferred_batch_size: [ {s.best_batch} ] " if s.best_batch > 1 else ""
        yield f"dynamic_batching {{ {best}max_queue_delay_microseconds: {s.queue_delay_us} }}"
    yield f"instance_group [ {{ count: 1 kind: KIND_{s.device.upper()} }} ]"
    yield "version_policy { latest { num_versions: 1 } }"
    yield from _onnxruntime(s) if s.backend == ONNXRUNTIME else _tensorrt(s)
    yield from _parameters(s)


def _onnxruntime(s: Settings) -> Iterator[str]:
    # All optimisations: that they change no code is what parity shows.
    accelerators = ""
    if s.device == "gpu":
        # TF32 would round what the last, unquantised layer multiplies.
        accelerators = (
            ' execution_accelerators { gpu_execution_accelerator [ { name: "cuda" '
            'parameters { key: "use_tf32" value: "0" } } ] }'
        )
    yield f"optimization {{ graph {{ level: 0 }}{accelerators} }}"
    yield _parameter("intra_op_thread_count", str(s.threads))
    yield _parameter("inter_op_thread_count", "1")
    yield _parameter("execution_mode", "0")


def _tensorrt(s: Settings) -> Iterator[str]:
    for capability, file in sorted(s.plans.items()):
        yield f"cc_model_filenames [ {{ key: {_text(capability)} value: {_text(file)} }} ]"


def _parameters(s: Settings) -> Iterator[str]:
    """What a client needs to know, and what each version was proven to be."""
    known = {"arch": s.arch, "bits": s.bits, "threshold": s.threshold, **s.sides}
    for key, value in known.items():
        yield _parameter(f"qmdd.{key}", str(value))
    for number, facts in sorted(s.versions.items(), key=lambda item: int(item[0])):
        for key, fact in sorted(facts.items()):
            yield _parameter(f"qmdd.version.{number}.{key}", fact)


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {_text(key)} value {{ string_value: {_text(value)} }} }}"


def _list(numbers: list[int]) -> str:
    return f"[ {', '.join(map(str, numbers))} ]"


def _text(value: str) -> str:
    """A quoted string; JSON's escapes are among those that the text format knows."""
    return json.dumps(value, ensure_ascii=False)
