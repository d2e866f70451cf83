"""Files of widths by layer: ``qmdd sensitivity`` writes, ``calibrate`` and ``train`` read them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from .errors import CalibrationError

#: Key under which ``qmdd sensitivity`` puts a mixture, in its JSON and in a file of widths.
LAYER_BITS = "layer_bits"
#: Larger files of widths are refused unread.
_MAX_BYTES = 1 << 20


def load_layer_bits(path: str | os.PathLike[str]) -> tuple[tuple[str, int], ...]:
    """Widths by layer from a JSON file: an object, or the output of ``qmdd sensitivity --json``.

    Raises:
        CalibrationError: not such a file.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            raise CalibrationError(f"{path}: not a file of widths, which are at most 1 MiB")
        held = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CalibrationError(f"{path}: cannot read the widths: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"{path}: not JSON ({error})") from error
    if isinstance(held, dict) and LAYER_BITS in held:
        held = held[LAYER_BITS]
        if held is None:
            raise CalibrationError(
                f"{path}: qmdd sensitivity suggested no widths here; run it with --budget"
            )
    if not isinstance(held, dict) or not all(type(bits) is int for bits in held.values()):
        raise CalibrationError(
            f'{path}: must be a JSON object of widths by layer, such as {{"stages.0.0.conv1": 4}}, '
            f"by itself or under {LAYER_BITS!r}"
        )
    return tuple(sorted(held.items()))


def layer_bits_bytes(widths: Mapping[str, int]) -> bytes:
    """A file of widths, as :func:`load_layer_bits` reads it."""
    return (json.dumps({LAYER_BITS: dict(widths)}, indent=2) + "\n").encode()


__all__ = ["LAYER_BITS", "layer_bits_bytes", "load_layer_bits"]
