"""Other people's checkpoints: files of ``torch.save``, read and converted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..kind import Kind, NotRight, Reader
from ..mutators.archives import mutate_archive
from ..workshop import Workshop


def _read_foreign(_workshop: Workshop, scratch: Path) -> Reader:
    import torch

    from qmdd.models.foreign.read import read_foreign

    path = scratch / "foreign.pth"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for key, tensor in read_foreign(path).tensors.items():
            if not bool(torch.isfinite(tensor).all()) or not tensor.is_contiguous():
                raise NotRight(f"{key} is not what was promised")

    return read


def _read_import(_workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.models.foreign.importing import import_checkpoint

    path = scratch / "foreign.pth"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        import_checkpoint(path, ignore_unknown=len(data) % 2 == 0).checkpoint_bytes()

    return read


def _seeds(*forms: str) -> Callable[[Workshop], list[bytes]]:
    return lambda workshop: [workshop.foreign(form).read_bytes() for form in forms]


KINDS = (
    Kind(
        "foreign",
        "files of torch.save (zip and legacy), to plain tensors",
        _seeds("plain", "plain-legacy"),
        _read_foreign,
        (mutate_archive,),
        guided=("qmdd.models.foreign",),
        cases=40_000,
    ),
    Kind(
        "import",
        "the published NPR detector's file, to a checkpoint of ours",
        _seeds("npr", "npr-legacy"),
        _read_import,
        (mutate_archive,),
        seconds=60,
        cases=10_000,
    ),
)
