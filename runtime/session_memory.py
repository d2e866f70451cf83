"""A bound on the memory that ONNX Runtime may take for a model's values.

A model of a few kilobytes can multiply two vectors into gigabytes; without a bound the system ends
the process, or another one. ONNX Runtime's own arena refuses cleanly instead, and costs nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import SessionError
from .machine import memory_bytes

#: For each image that is computed at a time: four times what ResNet-23 takes for 512 x 512 pixels,
#: twice what MobileNetV2 takes. Forms that are made for other runtimes take more.
BYTES_AN_IMAGE = 384 << 20
#: Environment variable with another bound for each image, in MiB.
VARIABLE = "QMDD_MODEL_MEMORY"

_registering = threading.Lock()


def default_bound() -> int:
    """Half of the machine's memory in bytes, 0 (no bound) where the system does not tell it."""
    return memory_bytes() // 2


def bytes_an_image() -> int:
    """The bound in bytes for each image that is computed at a time.

    Raises:
        SessionError: the environment names another bound, which is no whole number of MiB.
    """
    asked = os.environ.get(VARIABLE)
    if not asked:
        return BYTES_AN_IMAGE
    if not (asked.isascii() and asked.isdigit() and int(asked[:9]) >= 1 and len(asked) < 9):
        raise SessionError(f"{VARIABLE}={asked!r} must be a whole number of MiB, such as 768")
    return int(asked) << 20


@contextmanager
def bounded(ort: Any, options: Any, most: int) -> Iterator[None]:
    """Let the session that is made inside, with ``options``, hold ``most`` bytes of values.

    Weights that stay as they are in the file are not counted. Each session has its own arena: ONNX
    Runtime has one place where a new session's is looked up, so sessions are made one at a time.

    Args:
        ort: the module ``onnxruntime``.
        options: ``SessionOptions``, changed.
        most: 0 for no bound.
    """
    if not most:
        yield
        return
    with _registering:
        info = ort.OrtMemoryInfo(
            "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
        )
        ort.create_and_register_allocator(info, ort.OrtArenaCfg({"max_mem": most}))
        options.add_session_config_entry("session.use_env_allocators", "1")
        yield


def was_exceeded(error: BaseException) -> bool:
    """Whether ``error``, one of ONNX Runtime's, is about the bound."""
    return "bfc_arena" in str(error) and "smaller than requested" in str(error)
