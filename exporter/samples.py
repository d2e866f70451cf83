"""The sample images that travel with the project (credits: ``samples_data/CREDITS.md``)."""

from __future__ import annotations

from pathlib import Path


def sample_images() -> list[Path]:
    """The sample images' files, real ones and fakes, in name order."""
    return sorted((Path(__file__).parent / "samples_data").glob("*.webp"))
