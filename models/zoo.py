"""The checkpoints that travel with the project (what they are: ``zoo_data/MODEL_CARD.md``)."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "zoo_data"


def builtin_checkpoints() -> list[Path]:
    """All built-in checkpoint files, in name order."""
    return sorted(_FOLDER.glob("*.safetensors"))


def builtin_checkpoint(arch: str, bits: int) -> Path | None:
    """The built-in checkpoint of ``arch`` at ``bits``, or ``None``."""
    path = _FOLDER / f"{arch}-w{bits}a{bits}.safetensors"
    return path if path.is_file() else None
