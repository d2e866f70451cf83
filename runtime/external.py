"""Whether an ONNX file keeps weights in other files: no hash vouches for those, so none is read.

In the file's protocol buffer such a tensor says where, as an entry whose key is ``location``. The
key stands in plain bytes, whatever surrounds it, so that a search finds it without the onnx
package.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path

_KEY = b"location"
#: What stands before it: the field's tag and its length, a number of one byte or of several.
_BEFORE = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)\Z")
#: No number takes more than ten bytes.
_LONGEST = 20


def keeps_data_elsewhere(model: bytes | Path) -> bool:
    """Whether ``model``, a file or its bytes, names another file that holds data of it.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(model, bytes):
        return _found(model)
    with open(model, "rb") as stream:
        if not stream.seek(0, 2):
            return False
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _found(data)


def _found(data: bytes | mmap.mmap) -> bool:
    at = data.find(_KEY)
    while at >= 0:
        if _BEFORE.search(data[max(0, at - _LONGEST) : at]):
            return True
        at = data.find(_KEY, at + 1)
    return False
