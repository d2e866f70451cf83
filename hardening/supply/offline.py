"""``python -m hardening.supply.offline PROGRAM ...``: run it where opening a way out kills it.

A filter in the kernel (seccomp) ends any process that makes a socket of the internet's families,
whatever library does it, and every process that it starts. What it cannot be argued out of, a
test can rely on: a program that ends well has not tried.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

#: ``socket(2)`` by machine, and the kernel's number of that machine's calls.
_CALLS = {"x86_64": (41, 0xC000003E), "aarch64": (198, 0xC00000B7)}
_INET, _INET6 = 2, 10
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
# Of classic BPF: load a word, jump if equal, return.
_LOAD, _JUMP, _RETURN = 0x20, 0x15, 0x06
#: Where the call's number, its machine and its first argument lie.
_NUMBER, _MACHINE, _FIRST = 0, 4, 16


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


def available() -> bool:
    """Whether this machine's kernel can be asked so, as far as is known here."""
    return sys.platform == "linux" and platform.machine() in _CALLS


def close_the_way_out() -> None:
    """From here on, a socket of the internet's families kills this process or its children.

    Raises:
        OSError: the kernel has no such filters.
    """
    call, machine = _CALLS[platform.machine()]
    steps = (
        (_LOAD, 0, 0, _MACHINE),
        (_JUMP, 0, 6, machine),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP, 0, 4, call),
        (_LOAD, 0, 0, _FIRST),
        (_JUMP, 1, 0, _INET),
        (_JUMP, 0, 1, _INET6),
        (_RETURN, 0, 0, _KILL),
        (_RETURN, 0, 0, _ALLOW),
    )
    packed = b"".join(struct.pack("HBBI", *step) for step in steps)
    held = ctypes.create_string_buffer(packed, len(packed))
    program = _Program(len(steps), ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(
        _SECCOMP, _FILTER, ctypes.byref(program), 0, 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    close_the_way_out()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the caller's own program
