"""Errors of the runtime room; each message says what, where, and what to do."""

from __future__ import annotations


class RuntimeFailure(Exception):
    """Base of everything that the runtime reports to its user."""


class ImageError(RuntimeFailure):
    """An image that cannot be read or is not usable."""


class BundleError(RuntimeFailure):
    """A bundle that is missing, damaged or not ours."""


class DataError(RuntimeFailure):
    """An image folder that is not what training, calibration or evaluation needs."""


class SessionError(RuntimeFailure):
    """An inference session that cannot be made or run."""


class EngineError(RuntimeFailure):
    """TensorRT, or an engine made by it, that cannot be used on this machine."""


class ScanError(RuntimeFailure):
    """A scan that cannot begin, or cannot go on; what is done of it is kept."""


class DeployError(RuntimeFailure):
    """A device that cannot be reached or used, or a deployment to it that failed."""


def not_installed(package: str, extra: str = "runtime", error: ImportError | None = None) -> str:
    """What to say where an optional package is missing, or is there and ``error`` came of it."""
    if error is None or isinstance(error, ModuleNotFoundError):
        return f"{package} is not installed; run: pip install 'qmdd[{extra}]'"
    said = " ".join(str(error).split())[:300]
    return (
        f"{package} cannot be loaded: {said}; close other programs if memory is short, or install "
        f"it again: pip install --force-reinstall 'qmdd[{extra}]'"
    )
