"""The head of a TensorRT-RTX engine, which may be read anywhere; the rest is not looked at.

64 bytes: ``vtrt``, the file's length as a 64-bit number at 16, the version at 24 to 27 (measured
on engines of TensorRT-RTX 1.7; NVIDIA documents none of it).
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import BuildError

_SIZE = 64
_MAGIC = b"vtrt"


def version_in_header(engine: Path) -> str:
    """The version of TensorRT-RTX that built ``engine``, such as ``1.7.1.116``.

    Raises:
        BuildError: no such engine, or not a whole one.
    """
    with open(engine, "rb") as stream:
        head = stream.read(_SIZE)
    size = os.path.getsize(engine)
    if len(head) < _SIZE or head[:4] != _MAGIC:
        raise BuildError(f"{engine}: not an engine of TensorRT-RTX")
    told = int.from_bytes(head[16:24], "little")
    if told != size:
        raise BuildError(f"{engine}: {size} bytes where its head says {told}; it is not whole")
    return ".".join(str(number) for number in head[24:28])
