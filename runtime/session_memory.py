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

#: What any session may hold. MobileNetV2 takes 291 MiB for images of several sizes up to 512 x 512,
#: in standard operators; in its most expensive form 171 MiB for one of 256 x 256.
LEAST_BYTES = 384 << 20
#: For each further image that is computed at a time, its size unknown; with it, four take 547 MiB.
BYTES_AN_IMAGE = 128 << 20
#: For each pixel that is computed at a time: what the most expensive form takes (MobileNetV2 made
#: for TensorRT, its codes shown: 683 MiB for 512 x 512 pixels).
BYTES_A_PIXEL = 2816
#: Pixels of an image that count: those of the largest one, unless a checkpoint says otherwise.
MOST_PIXELS = 512 * 512
#: Environment variable with another bound for each image, in MiB.
VARIABLE = "QMDD_MODEL_MEMORY"

_registering = threading.Lock()
#: What ONNX Runtime gives to new sessions now: whose it is, and how much.
_registered: list[tuple[Pool, int]] = []


class Pool:
    """Memory that several sessions share: what one does not hold, another may.

    Args:
        most: bytes, in all.
    """

    def __init__(self, most: int) -> None:
        self.most = most

    def allow(self, most: int) -> None:
        """Let sessions that are opened from now on share ``most`` bytes, if that is more."""
        self.most = max(self.most, most)


def default_bound() -> int:
    """Half of the machine's memory in bytes, 0 (no bound) where the system does not tell it."""
    return memory_bytes() // 2


def bytes_for(images: int = 1, pixels: int = 0) -> int:
    """The bound in bytes for a session that computes ``images`` at a time.

    Args:
        pixels: of each; 0 if it is not known, and then some images may be larger than others.

    Raises:
        SessionError: the environment names another bound, which is no whole number of MiB.
    """
    asked = asked_bytes()
    if asked:
        return images * asked
    if pixels:
        return max(LEAST_BYTES, images * min(pixels, MOST_PIXELS) * BYTES_A_PIXEL)
    return LEAST_BYTES + (images - 1) * BYTES_AN_IMAGE


def asked_bytes() -> int:
    """What the environment allows for each image, in bytes; 0 if it does not say.

    Raises:
        SessionError: it is no whole number of MiB.
    """
    asked = os.environ.get(VARIABLE)
    if not asked:
        return 0
    if not (asked.isascii() and asked.isdigit() and int(asked[:9]) >= 1 and len(asked) < 9):
        raise SessionError(f"{VARIABLE}={asked!r} must be a whole number of MiB, such as 768")
    return int(asked) << 20


@contextmanager
def bounded(ort: Any, options: Any, memory: int | Pool) -> Iterator[None]:
    """Let the session that is made inside, with ``options``, hold so many bytes of values.

    Weights that stay as they are in the file are not counted. Each session or pool has its own
    arena: ONNX Runtime has one place where a new session's is looked up, so sessions are made one
    at a time.

    Args:
        ort: the module ``onnxruntime``.
        options: ``SessionOptions``, changed.
        memory: 0 for no bound.
    """
    pool = memory if isinstance(memory, Pool) else Pool(memory)
    if not pool.most:
        yield
        return
    with _registering:
        if _registered != [(pool, pool.most)]:
            _register(ort, pool.most)
            _registered[:] = [(pool, pool.most)]
        options.add_session_config_entry("session.use_env_allocators", "1")
        yield


def _register(ort: Any, most: int) -> None:
    info = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(info, ort.OrtArenaCfg({"max_mem": most}))


def was_exceeded(error: BaseException) -> bool:
    """Whether ``error``, one of ONNX Runtime's, is about the bound."""
    return "bfc_arena" in str(error) and "smaller than requested" in str(error)
