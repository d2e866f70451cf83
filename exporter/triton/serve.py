"""``qmdd export --serve triton``: from bundles, or from a checkpoint that is exported first."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.bundle import Bundle
from ..errors import ExportError
from .repository import add_version
from .served import served
from .settings import Asked, Settings, check_name

if TYPE_CHECKING:
    from ..export import ExportResult

#: Exports to the folder that it is given, with parity.
Export = Callable[[Path], "ExportResult"]


@dataclasses.dataclass(frozen=True)
class ServeResult:
    """What became a part of the repository.

    Attributes:
        repository: its folder.
        folder: the new version's.
        version: its number.
        settings: what the model's configuration was made from.
        config_kept: it had been changed by hand, and stays as it was.
        export: of a checkpoint that was exported for this.
    """

    repository: Path
    folder: Path
    version: int
    settings: Settings
    config_kept: bool
    export: ExportResult | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "repository": str(self.repository),
            "model": self.settings.name,
            "version": self.version,
            "folder": str(self.folder),
            "settings": self.settings.to_dict(),
            "config_kept": self.config_kept,
            "export": self.export.to_dict() if self.export else None,
        }


def serve_bundles(
    paths: Sequence[Path], repository: Path, *, name: str | None = None, asked: Asked | None = None
) -> ServeResult:
    """Add the bundle in folder ``paths[0]`` to ``repository`` as a new model or version.

    Args:
        paths: one bundle; or several whose engines are of the same model for several GPUs.
        repository: the model repository, made if it is missing.
        name: the model's; default: ``ARCH-wBITSaBITS``.
        asked: what the configuration is to say; default: nothing in particular.

    Raises:
        BundleError: not a bundle. ExportError: it cannot be served exactly, or not there.
        EngineError: an engine that is not whole. OSError: the repository cannot be written.
    """
    wanted = asked or Asked()
    if name is not None:
        check_name(name)
    what = served([Bundle.open(path) for path in paths], name, wanted)
    check_name(what.settings.name)
    added = add_version(repository, what, tuned=wanted != Asked())
    return ServeResult(repository, added.folder, added.version, added.settings, added.config_kept)


def serve_export(
    export: Export, repository: Path, *, name: str | None = None, asked: Asked | None = None
) -> ServeResult:
    """The same of what ``export`` writes; nothing is written to ``repository`` if parity misses.

    Raises:
        ExportError: as :func:`serve_bundles`; what ``export`` raises comes through.
    """
    if name is not None:
        check_name(name)
    with tempfile.TemporaryDirectory(prefix="qmdd-serve-") as work:
        result = export(Path(work) / "bundle")
        if not result.passed:
            raise ExportError(
                f"{repository}: nothing was written: parity was missed, and only what is proven "
                "exact is served; run qmdd export without --serve to see the codes"
            )
        added = serve_bundles([result.bundle], repository, name=name, asked=asked)
    kept = dataclasses.replace(result, bundle=added.folder)
    return dataclasses.replace(added, export=kept)
