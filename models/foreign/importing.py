"""A foreign checkpoint to a detector of ours, with the account of every tensor."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import checkpoint_bytes
from ..detector import Detector
from ..errors import CheckpointError, ModelError
from ..registry import detector_from_config
from .account import DROPPED, INITIALISED, MAPPED, UNKNOWN, Row, account
from .format import Format
from .n2uq import N2uqFormat
from .npr import NprFormat
from .read import ForeignFile, read_foreign

#: Names of the formats, as ``--format`` takes them.
FORMATS = ("npr", "n2uq")
#: Seed of what is drawn anew, so that importing twice gives the same bytes.
SEED = 0
#: Side of the image on which an imported network must give a finite logit.
TRIAL_SIDE = 64
_CONVOLUTION = re.compile(r"(?:.+\.)?(?:conv\d|downsample\.[01])\.weight")


@dataclasses.dataclass
class Imported:
    """What :func:`import_checkpoint` made.

    Attributes:
        detector: in evaluation mode, latent.
        source: the file.
        sha256: of the file.
        format: one of :data:`FORMATS`.
        rows: the account, see :mod:`.account`.
        notes: what is unusual, and what differs from the published network, a line each.
    """

    detector: Detector
    source: Path
    sha256: str
    format: str
    rows: list[Row]
    notes: list[str]

    @property
    def counts(self) -> dict[str, int]:
        """Number of tensors by what happened to them."""
        found = Counter(row.status for row in self.rows)
        return {status: found[status] for status in (MAPPED, DROPPED, UNKNOWN, INITIALISED)}

    def checkpoint_bytes(self) -> bytes:
        """A latent checkpoint that says in its metadata what it was imported from."""
        origin = {"file": self.source.name, "sha256": self.sha256, "format": self.format}
        notes = {"imported": json.dumps({**origin, "notes": self.notes}, sort_keys=True)}
        return checkpoint_bytes(self.detector, notes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        config = self.detector.config
        return {
            "source": str(self.source),
            "sha256": self.sha256,
            "format": self.format,
            "arch": config.arch,
            "bits": config.bits,
            "width": config.width,
            "counts": self.counts,
            "notes": self.notes,
            "tensors": [row.to_dict() for row in self.rows],
        }


def import_checkpoint(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the option's name
    bits: int | None = None,
    ignore_unknown: bool = False,
    quantize_downsample: bool = False,
) -> Imported:
    """Read a foreign checkpoint; every tensor of it and of the detector is accounted for.

    Args:
        path: a file of ``torch.save``; no code in it is run.
        format: one of :data:`FORMATS`; by default told by the tensors' names.
        bits: what the file must be; by default what it is.
        ignore_unknown: leave out tensors that the format does not know.
        quantize_downsample: quantise N2UQ's downsampling convolutions where they are in full
            precision.

    Raises:
        CheckpointError: not readable, not of the format, not whole, or not a working network.
    """
    path = Path(path)
    file = read_foreign(path)
    known: dict[str, Format] = {"npr": NprFormat(), "n2uq": N2uqFormat(quantize_downsample)}
    try:
        kind = known[format] if format else _recognised(known, file.tensors)
        return _import(path, file, kind, bits, ignore_unknown)
    except CheckpointError:
        raise
    except ModelError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _recognised(known: Mapping[str, Format], tensors: Mapping[str, Tensor]) -> Format:
    for kind in known.values():
        if not kind.lacks(tensors):
            return kind
    npr, n2uq = (", ".join(known[name].lacks(tensors)) for name in FORMATS)
    raise ModelError(
        f"neither the published NPR detector (missing: {npr}) nor one of N2UQ's networks (missing: "
        f"{n2uq}); its {len(tensors)} tensors begin with {', '.join(list(tensors)[:3])}"
    )


def _import(
    path: Path,
    file: ForeignFile,
    kind: Format,
    bits: int | None,
    ignore_unknown: bool,
) -> Imported:
    tensors = file.tensors
    config = kind.config(tensors, bits)
    rules = kind.rules(config, tensors)
    with torch.device("meta"):  # shapes first: a wrong file costs no memory
        shapes = detector_from_config(config).state_dict()
    rows = account(
        tensors,
        rules,
        shapes,
        kind.drop_reason,
        kind.initial_reason,
        ignore_unknown=ignore_unknown,
    )
    _check_variances(tensors)
    notes = [*kind.notes(tensors), *_common_notes(kind.name, file)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        detector = detector_from_config(config)
    state = detector.state_dict()
    with torch.no_grad():
        for row in rows:
            if row.source is not None and row.ours is not None:
                state[row.ours].copy_(
                    rules[row.source].convert(tensors[row.source]).reshape(state[row.ours].shape)
                )
        kind.fill(state, [str(row.ours) for row in rows if row.status == INITIALISED])
    detector.eval()
    _check_runs(detector, tensors)
    return Imported(detector, path, file.sha256, kind.name, rows, notes)


def _check_variances(tensors: Mapping[str, Tensor]) -> None:
    for key, tensor in tensors.items():
        if key.endswith(".running_var") and bool((tensor < 0).any()):
            raise ModelError(f"{key} holds negative variances; the file was altered")


def _check_runs(detector: Detector, tensors: Mapping[str, Tensor]) -> None:
    """A finite logit on one image of noise, or the largest value is named."""
    generator = torch.Generator().manual_seed(SEED)
    image = torch.randint(0, 256, (1, 3, TRIAL_SIDE, TRIAL_SIDE), generator=generator)
    with torch.no_grad():
        logit = float(detector(image.to(torch.uint8)))
    if logit - logit != 0.0:
        peaks = {key: float(t.abs().max()) for key, t in tensors.items() if t.numel()}
        largest = max(peaks, key=lambda key: peaks[key])
        raise ModelError(
            f"gives {logit} on an image of noise: some value is too large for float32 "
            f"(largest: {peaks[largest]:.1e} in {largest}); take another checkpoint"
        )


def _common_notes(name: str, file: ForeignFile) -> list[str]:
    """Dead channels, negative slopes, and what else lay in the file."""
    lines = []
    dead, slopes = {}, {}
    for key, tensor in file.tensors.items():
        if _CONVOLUTION.fullmatch(key) and tensor.dim() == 4:
            dead[key] = int((tensor.abs().flatten(1).amax(dim=1) == 0).sum())
        elif ".prelu" in key:
            slopes[key] = int((tensor < 0).sum())
    what = "give what their batch-norm adds"
    if name == "n2uq":
        what += " (the published quantizer divides by zero there; here each weight counts as 1e-8)"
    lines += _count_line(dead, f"output channels hold nothing but zeros: they {what}")
    lines += _count_line(
        slopes, "PReLU slopes are negative: exported as they are, outside the threshold tables"
    )
    if file.converted:
        lines.append(f"{file.converted} tensors of another floating-point width, as float32")
    if file.beside:
        lines.append(f"left out beside the weights: {', '.join(file.beside[:8])}")
    return lines


def _count_line(found: Mapping[str, int], what: str) -> list[str]:
    where = [key for key, count in found.items() if count]
    if not where:
        return []
    names = ", ".join(where[:3]) + (f" and {len(where) - 3} more" if len(where) > 3 else "")
    return [f"{sum(found.values())} {what} ({names})"]
