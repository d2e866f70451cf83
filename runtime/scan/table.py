"""A part's verdicts as one Parquet file, and whether such a file is what it should be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ScanError, not_installed
from ..files import write_atomically
from ..inputs import Input
from ..verdicts import Verdict
from .listing import Part

if TYPE_CHECKING:
    import pyarrow

#: A larger file is not one of ours: a part has at most :data:`MAX_PART` rows.
MAX_BYTES = 1 << 30
#: Most inputs of a part.
MAX_PART = 100_000
_SCAN, _PART = b"qmdd.scan", b"qmdd.part"


class Counts(NamedTuple):
    """What a part holds."""

    files: int
    failed: int
    fake: int

    def plus(self, other: Counts) -> Counts:
        """The sum of both."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


def require_pyarrow() -> None:
    """Raise :class:`ScanError` if Parquet cannot be written here."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ScanError(not_installed("pyarrow", "scan", error=error)) from error


def part_path(folder: Path, number: int) -> Path:
    """Where a part lies in the folder of parts."""
    return folder / f"part-{number:07d}.parquet"


def schema(scan: str, number: int) -> pyarrow.Schema:
    """Columns and their types (docs/scan.md), with what the file is a part of."""
    import pyarrow as pa

    columns = [
        pa.field("input", pa.int64(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("path_bytes", pa.binary(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("verdict", pa.string()),
        pa.field("error", pa.string()),
        pa.field("frames", pa.int64()),
        pa.field("fake_frames", pa.int64()),
        pa.field("decoded", pa.int64()),
        pa.field("broken", pa.int64()),
        pa.field("first_broken", pa.string()),
        pa.field("bundle", pa.string(), nullable=False),
    ]
    return pa.schema(columns, metadata={_SCAN: scan.encode(), _PART: str(number).encode()})


def write_part(
    folder: Path, part: Part, verdicts: Sequence[Verdict], *, scan: str, bundle: str
) -> Counts:
    """Write the verdicts on the inputs of ``part``, whole or not at all.

    Args:
        folder: of the parts.
        part: which one.
        verdicts: one for each of its inputs, in order.
        scan: what it is a part of.
        bundle: hash of the bundle's manifest.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [_row(part.first + place, verdict, bundle) for place, verdict in enumerate(verdicts)]
    table = pa.Table.from_pylist(rows, schema=schema(scan, part.number))
    sink = pa.BufferOutputStream()
    # Checksums, so that a damaged part is found when the scan goes on, and not by its reader.
    pq.write_table(table, sink, write_page_checksum=True)
    write_atomically(part_path(folder, part.number), sink.getvalue().to_pybytes())
    return _counts(verdict.verdict for verdict in verdicts)


def _row(number: int, verdict: Verdict, bundle: str) -> dict[str, Any]:
    clip = verdict.clip
    raw = os.fsencode(verdict.path)
    found: dict[str, Any] = {
        "input": number,
        "path": _readable(raw),
        "path_bytes": raw,
        "score": verdict.score,
        "verdict": verdict.verdict,
        "error": None if verdict.error is None else _readable(os.fsencode(verdict.error)),
        "bundle": bundle,
    }
    if clip is not None:
        found |= {"frames": clip.frames, "fake_frames": clip.fakes, "decoded": clip.decoded}
        found["broken"] = clip.broken
        if clip.first_broken is not None:
            found["first_broken"] = _readable(os.fsencode(clip.first_broken))
    return found


def _readable(raw: bytes) -> str:
    """Text for people; bytes that are none become U+FFFD, the exact ones stand beside it."""
    return raw.decode("utf-8", "replace")


def _counts(words: Any) -> Counts:
    listed = list(words)
    return Counts(len(listed), listed.count(None), listed.count("fake"))


def _is_of(file: Any, wanted: pyarrow.Schema, rows: int) -> bool:
    """Whether a file's head speaks of these columns and rows, in no more bytes than they take."""
    about = file.metadata
    size = sum(about.row_group(index).total_byte_size for index in range(about.num_row_groups))
    same = file.schema_arrow.equals(wanted, check_metadata=True)
    return bool(same and about.num_rows == rows and 0 <= size <= MAX_BYTES)


def check_part(folder: Path, part: Part, inputs: Sequence[Input], *, scan: str) -> Counts | None:
    """What the file of ``part`` holds; ``None`` if it is missing, damaged or of something else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = part_path(folder, part.number)
    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        with open(path, "rb") as stream:
            file = pq.ParquetFile(stream, page_checksum_verification=True)
            # A small file may hold more rows than fit into memory: its own word comes first.
            if not _is_of(file, schema(scan, part.number), part.files):
                return None
            table = file.read()
        numbers, paths = table["input"].to_pylist(), table["path_bytes"].to_pylist()
        if numbers != list(range(part.first, part.first + part.files)):
            return None
        if paths != [os.fsencode(item.path) for item in inputs]:
            return None
        return _counts(table["verdict"].to_pylist())
    except (OSError, ValueError, pa.ArrowException):
        return None
