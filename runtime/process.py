"""What a process of ours knows of itself: its memory, and who started it. Linux tells; others not.

The kernel's own ``ru_maxrss`` is not used: it still counts the process that this one was started
by.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
#: Linux's number for "send me this signal when my parent dies".
_PR_SET_PDEATHSIG = 1


def peak_memory() -> int:
    """Most bytes that this process held at once (resident), 0 where the system does not tell."""
    return _kilobytes("VmHWM:") << 10


def resident_memory() -> int:
    """Bytes that this process holds now (resident), 0 where the system does not tell."""
    return _kilobytes("VmRSS:") << 10


def data_memory() -> int:
    """Bytes that this process may write to, used or not; 0 where the system does not tell."""
    return _kilobytes("VmData:") << 10


def reset_peak() -> None:
    """Let :func:`peak_memory` count from now on; without effect where the system cannot."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5", encoding="ascii")


def die_with_parent() -> None:
    """Let the system end this process if the one that started it is killed (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _kilobytes(field: str) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith(field):
                return int(line.split()[1])
    return 0
