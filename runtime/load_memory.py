"""A bound on the memory that a library may take while it loads a model.

Before it runs anything, ONNX Runtime computes what depends on constants alone: a model of half a
megabyte can be 2 GB once it is loaded, and the bound of :mod:`.session_memory` does not count that.
While a model is loaded the system is therefore asked to give this process no more than so much.
ONNX Runtime then leaves such values for later, where the other bound holds, or refuses the model.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

from .process import data_memory

#: Beside what grows with the model.
LOAD_BYTES = 352 << 20
#: For each byte of the model. Weights of 3 bits in standard operators are widened in many steps,
#: all of which are kept: a ResNet-50 of 9 MiB takes 821 MiB. (Floats take five times their size.)
LOAD_FACTOR = 64
#: With the model itself, more than that only if the environment allows it.
MOST_LOAD_BYTES = 896 << 20
#: Address space of a thread that is started: its stack, of which it uses next to nothing.
_THREAD = 16 << 20

_limiting = threading.Lock()


def bytes_to_load(model: int, allowed: int = 0) -> int:
    """What loading may take for a ``model`` of so many bytes; ``allowed`` if that is more."""
    return max(min(LOAD_BYTES + LOAD_FACTOR * model, MOST_LOAD_BYTES - model), allowed)


@contextlib.contextmanager
def limited(most: int, threads: int) -> Iterator[None]:
    """Inside, this process gets no more than ``most`` bytes beyond what it has (Linux only).

    The limit is the whole process's: it is to be held for short, and a process that is started
    meanwhile keeps it. Threads take turns.

    Args:
        threads: that are started inside. Too little room for these is no error that ends: ONNX
            Runtime waits for them for ever.
    """
    held = data_memory()
    if sys.platform != "linux" or not held:
        yield
        return
    import resource

    with _limiting:
        before, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = held + most + (threads + 1) * _THREAD
        if before != resource.RLIM_INFINITY:
            limit = min(limit, before)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def was_refused(error: BaseException) -> bool:
    """Whether ``error`` says that there was no memory."""
    return isinstance(error, MemoryError) or "bad_alloc" in str(error)
