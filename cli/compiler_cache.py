"""A folder of our own for torch's compiler, which comes with torch though nothing compiles."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@contextlib.contextmanager
def private_compiler_cache() -> Iterator[None]:
    """While a command runs, let torch keep what it compiled where nobody else puts anything.

    Else it makes ``torchinductor_USER`` in the folder for temporary files as soon as a network is
    built: a name that anybody can guess and make first, in a place where anybody may write, for
    code that is loaded again; and never removed. Where the user has set a place, that stays.
    """
    if _VARIABLE in os.environ:
        yield
        return
    place = os.environ.get("TMPDIR") or "/tmp"  # nosec B108 # noqa: S108 - a random name
    folder = os.path.join(place, f"qmdd-torch-{os.urandom(16).hex()}")
    os.environ[_VARIABLE] = folder
    try:
        yield
    finally:
        if os.path.isdir(folder):  # torch was used
            import shutil

            shutil.rmtree(folder, ignore_errors=True)
