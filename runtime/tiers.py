"""The tiers of a comparison: which of them a bundle has, and the session of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .bundle import Bundle
from .native import library_path, require_library
from .session import OnnxSession, Session
from .session_memory import Pool
from .sessions import NATIVE, OPENVINO


def native_model(bundle: Bundle, tiers: Sequence[str], asked: str | None) -> Path | None:
    """The model for the native operators, where they are asked for, or built and nothing else is.

    It is what runs on such a machine, so it belongs to what is deployed.

    Raises:
        SessionError: it is asked for, and the operators are not built.
    """
    if asked == NATIVE:
        require_library()
        return bundle.native_path
    if asked is not None or "deployed" not in tiers or library_path() is None:
        return None
    return bundle.native_path


def tier_session(
    model: bytes | Path,
    tier: str,
    runtime: str,
    threads: int | None,
    outputs: list[str] | None,
    *,
    memory: int | Pool,
    shrink: bool = False,
) -> Session:
    """The session that runs ``model`` in ``tier``, fetching ``outputs`` (default: all).

    Args:
        memory, shrink: see :class:`~.session.OnnxSession`; OpenVINO takes what it needs.

    Raises:
        SessionError: the runtime is missing or refuses the model.
    """
    if runtime == OPENVINO:
        from .openvino_session import OpenvinoSession

        return OpenvinoSession(model, threads=threads, outputs=outputs)
    library = require_library() if runtime == NATIVE else None
    return OnnxSession(
        model,
        optimize=tier != "strict",
        threads=threads,
        outputs=outputs,
        library=library,
        memory=memory,
        shrink=shrink,
    )


def unplanned(
    model: Path, runtime: str, plan: Sequence[Mapping[str, Any]], threads: int | None
) -> list[str]:
    """What ``model`` as shipped, without probes, runs in another precision than planned.

    A line for each such layer; none where ``runtime`` cannot say what it runs.
    """
    if runtime != OPENVINO or not plan:
        return []
    from .openvino_audit import audit, fallbacks
    from .openvino_session import OpenvinoSession

    return fallbacks(audit(OpenvinoSession(model, threads=threads), plan))
