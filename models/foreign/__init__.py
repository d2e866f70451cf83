"""Checkpoints of other people's code: read without running any of it, every tensor accounted for.

:mod:`.read` opens the file, :mod:`.npr` and :mod:`.n2uq` know the two published formats,
:mod:`.account` maps tensor by tensor, :mod:`.importing` puts it together.
"""

from __future__ import annotations

from .account import Row
from .importing import FORMATS, Imported, import_checkpoint

__all__ = ["FORMATS", "Imported", "Row", "import_checkpoint"]
