"""Commands that read a bundle while it keeps being replaced: of one bundle, or refused.

The bundle is replaced by two others in turn, in the way in which ``qmdd export --force`` does it.
What a command prints or writes must be what it would have of one of the two alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .child import run
from .device import ENVIRONMENT, OPTIONS, make_programs, runs
from .kills import said

#: What a refusal says; with it nothing was done.
_REFUSED = re.compile(
    "replaced meanwhile|missing;|differs from the manifest|changed|bytes where|arrived damaged|"
    "is not the bundle that the scan began with"
)


@dataclasses.dataclass(frozen=True)
class Reader:
    """A command that reads ``bundle`` in its place.

    Attributes:
        arguments: of the command line.
        result: what it printed or wrote, without what is another at each run.
        fresh: names that are removed before each run.
        environment: variables that are set.
    """

    arguments: tuple[str, ...]
    result: Callable[[Path], object]
    fresh: tuple[str, ...] = ()
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Swapped:
    """What one command did.

    Attributes:
        command: its name.
        runs: how many.
        first, second: runs of which all is of that bundle.
        refused: runs that ended with a line that says so.
        mixed: others; ``notes`` has a line for each.
        swaps: times that the bundle was replaced meanwhile.
    """

    command: str
    runs: int = 0
    first: int = 0
    second: int = 0
    refused: int = 0
    mixed: int = 0
    swaps: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)


def _printed(place: Path) -> str:
    return (place.parent / "printed").read_text(encoding="utf-8")


def _json_of(*keys: str) -> Callable[[Path], object]:
    """These keys of what was printed as JSON."""

    def result(place: Path) -> object:
        held = json.loads(_printed(place))
        return [held.get(key) for key in keys]

    return result


def _rows(place: Path) -> object:
    import pyarrow.parquet as pq

    record = json.loads((place / "results" / "scan.json").read_bytes())["scan"]
    parts = sorted((place / "results" / "parts").glob("*.parquet"))
    rows = [row for part in parts for row in pq.read_table(part)["score"].to_pylist()]
    return rows, record["manifest_sha256"], record["model_sha256"]


def _verdicts(place: Path) -> object:
    lines = (place / "verdicts.jsonl").read_bytes().splitlines()
    told = [json.loads(line) for line in lines]
    return sorted((line["path"], line["score"], line["model"]) for line in told)


def _passed(place: Path) -> object:
    held = json.loads(_printed(place))
    return held["passed"], [tier["max_abs_logit_diff"] for tier in held["parity"]]


def _release(place: Path) -> object:
    """Which of the two the device runs, whole."""
    for number in (0, 1):
        if runs(f"source-{number}")(place / "device" / "qmdd"):
            return number
    return None


READERS = (
    Reader(("detect", "bundle", "images", "--threads", "1", "--jsonl"), _printed),
    Reader(("verify", "bundle", "--golden", "--json"), _passed),
    Reader(("eval", "bundle", "--data", "images", "--threads", "1", "--json"), _json_of("means")),
    Reader(
        ("scan", "bundle", "images", "-o", "results", "--part", "2", "--threads", "1"),
        _rows,
        ("results",),
    ),
    Reader(
        (
            *("watch", "bundle", "images", "-o", "verdicts.jsonl", "--once", "--settle", "0"),
            *("--threads", "1"),
        ),
        _verdicts,
        ("verdicts.jsonl",),
    ),
    Reader(("compare", "bundle", "bundle", "--json"), _json_of("facts", "golden")),
    Reader(("inspect", "bundle", "--json"), _json_of("audit")),
    Reader(("deploy", "bundle", *OPTIONS), _release, ("device/qmdd/current",), dict(ENVIRONMENT)),
)


@contextlib.contextmanager
def replaced(place: Path, seed: int) -> Iterator[Path]:
    """While the block runs, ``bundle`` is replaced by copies of ``source-0`` and ``source-1``.

    Yields:
        The file that takes a byte for each time.
    """
    told = place.parent / "swaps"
    told.write_bytes(b"")
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            _replace(place, told, random.Random(seed))  # noqa: S311 - pauses
        finally:
            os._exit(0)
    try:
        yield told
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _replace(place: Path, told: Path, draw: random.Random) -> None:
    from qmdd.runtime.files import folder_in_place

    number = 0
    while True:
        number = 1 - number
        source = place / f"source-{number}"
        with folder_in_place(place / "bundle", replace=True, marker="manifest.json") as folder:
            for path in source.rglob("*"):
                target = folder / path.relative_to(source)
                if path.is_dir():
                    target.mkdir(exist_ok=True)
                else:
                    target.parent.mkdir(exist_ok=True)
                    os.link(path, target)
        with told.open("ab") as stream:
            stream.write(b".")
        time.sleep(draw.choice((0, 0.001, 0.01, 0.05, 0.2)))


def swap(reader: Reader, place: Path, count: int, seed: int = 0) -> Swapped:
    """Run ``reader`` ``count`` times in ``place``, which holds the two sources and images."""
    found = Swapped(reader.arguments[0])
    alone = []
    for number in (0, 1):
        _clear(reader, place)
        _copy(place, number)
        ended = run(reader.arguments, place, environment=reader.environment)
        if ended.code:
            raise RuntimeError(f"{reader.arguments[0]}: {' / '.join(said(place))}")
        alone.append(reader.result(place))
    if reader.arguments[0] not in ("compare", "inspect") and alone[0] == alone[1]:
        raise RuntimeError(f"{reader.arguments[0]}: both bundles give the same")
    with replaced(place, seed) as told:
        for _ in range(count):
            _clear(reader, place)
            ended = run(reader.arguments, place, environment=reader.environment, adopted=True)
            _judge(reader, place, ended.code, alone, found)
        found.swaps = told.stat().st_size
    return found


def _judge(reader: Reader, place: Path, code: int, alone: list[object], found: Swapped) -> None:
    found.runs += 1
    words = " / ".join(said(place)[-2:])
    if code:
        if _REFUSED.search(words) and code == 1:
            found.refused += 1
        else:
            found.mixed += 1
            found.notes.append(f"exit code {code}: {words}")
        return
    result = reader.result(place)
    if result == alone[0]:
        found.first += 1
    elif result == alone[1]:
        found.second += 1
    else:
        found.mixed += 1
        found.notes.append(f"neither: {str(result)[:300]}")


def _clear(reader: Reader, place: Path) -> None:
    import shutil

    for name in reader.fresh:
        path = place / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _copy(place: Path, number: int) -> None:
    import shutil

    shutil.rmtree(place / "bundle", ignore_errors=True)
    shutil.copytree(place / f"source-{number}", place / "bundle")


def lay_out(world: Path, place: Path) -> None:
    """``images``, two bundles of different networks, and a device, in ``place``."""
    import shutil

    from qmdd.calibration.train import save_detector
    from qmdd.exporter.export import export_bundle

    from .world import make_detector

    place.mkdir(parents=True)
    shutil.copytree(world / "images", place / "images")
    shutil.copytree(world / "bundle", place / "source-0")
    save_detector(make_detector(seed=9), place / "second.safetensors", {"recipe": "{}"})
    images = sorted((world / "images").rglob("*.png"))[:2]
    export_bundle(place / "second.safetensors", place / "source-1", images=images)
    make_programs(place)
