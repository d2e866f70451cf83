"""How time, memory and export grow with image size, batch, width and depth of the network.

    chrt -r 1 taskset -c 1 python benchmarks/scaling.py
    python docs/make_tables.py      # docs/benchmarks.md anew

One thread. Along each axis everything else stays: 256 pixels, one image, the width of ResNet-23,
two blocks a stage. At each point the forms and the full-precision twin take turns, and medians of
the processor's time are kept; networks have random weights, which time does not depend on. Memory
is the most that a process holds from when its model is loaded, beyond the bare runtime. The
exponent is the slope of a straight line through the logarithms: 2 for what grows with the square.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _record import record
from _scaling_plot import plot_bytes

from qmdd.exporter.errors import ExportError
from qmdd.exporter.export import export_bundle
from qmdd.exporter.source import Source
from qmdd.exporter.twin import twin_onnx
from qmdd.models import Detector, DetectorConfig
from qmdd.models.detector import Head
from qmdd.models.resnet import WIDTHS, BasicBlock, residual_stages
from qmdd.models.stem import Stem
from qmdd.runtime.bench_inputs import synthetic
from qmdd.runtime.bench_times import times_of
from qmdd.runtime.bench_worker import COMMAND, take_turns, workers
from qmdd.runtime.files import write_atomically
from qmdd.runtime.machine import this_machine
from qmdd.runtime.native import why_absent

FIGURE = Path(__file__).parents[1] / "docs" / "scaling.svg"
TWIN = "FP32 twin"
#: Form: the target it is exported for, and what runs it.
FORMS = {
    "onnx": ("onnx", "onnxruntime"),
    "cpu": ("cpu", "onnxruntime"),
    "native": ("cpu", "native"),
}


@dataclasses.dataclass(frozen=True)
class Point:
    """One network on one input.

    Attributes:
        side, batch: of the input.
        width: factor of all channels.
        depth: blocks in each of the four stages.
    """

    side: int = 256
    batch: int = 1
    width: float = 1.0
    depth: int = 2


#: What is varied, by the name of :class:`Point`'s field.
AXES: dict[str, tuple[float, ...]] = {
    "side": (96, 128, 192, 256, 384),
    "batch": (1, 2, 4, 8, 16),
    "width": (0.25, 0.5, 0.75, 1.0, 1.5),
    "depth": (1, 2, 3, 4),
}
#: Exports of which the median counts.
EXPORTS = 3
#: What is measured: ms, bytes, bytes, seconds.
MEASURES = ("cpu_ms", "memory", "bytes", "export_seconds")
#: Axes that the file, and so its export, does not depend on.
_RUN_ONLY = ("side", "batch")


class DeepResNet(Detector):
    """A ResNet of basic blocks, ``depth`` in each stage."""

    def __init__(self, config: DetectorConfig, depth: int) -> None:
        super().__init__(config)
        self.stem = Stem(config.channels(WIDTHS[0]), quantized=config.quantized)
        self.stages, channels = residual_stages(config, BasicBlock, (depth,) * 4, WIDTHS)
        self.head = Head(channels, quantized=config.quantized)


def network(point: Point, bits: int) -> Detector:
    """In evaluation mode; batch-norm and running ranges have seen one batch."""
    torch.manual_seed(0)
    built = DeepResNet(DetectorConfig(bits=bits, width=point.width), point.depth)
    with torch.no_grad():
        built(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    return built.eval()


class Shelf:
    """Exports, each made once; a point's size and batch need no new one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._made: dict[tuple[float, int, str], tuple[Path, float]] = {}
        #: Forms that cannot be made, and why.
        self.absent: dict[str, str] = {}

    def get(self, point: Point, target: str) -> tuple[Path, float] | None:
        """The bundle (or the twin's file) and the seconds of its export."""
        key = (point.width, point.depth, target)
        if key not in self._made and target not in self.absent:
            path = self._folder / f"{point.width}-{point.depth}-{target}"
            try:
                spent = [self._export(point, target, path) for _ in range(EXPORTS)]
                self._made[key] = (path, statistics.median(spent))
            except ExportError as error:
                self.absent[target] = str(error).partition(";")[0]
        return self._made.get(key)

    def _export(self, point: Point, target: str, path: Path) -> float:
        if target == TWIN:
            twin = network(point, 32)
            started = time.perf_counter()
            path.write_bytes(twin_onnx(twin))
            return time.perf_counter() - started
        source = Source(network(point, 2), "resnet", 2, {"sha256": "0" * 64})
        return export_bundle(source, path, target=target, verify=False, force=True).seconds


def measured(point: Point, shelf: Shelf, seconds: float) -> dict[str, dict[str, float]]:
    """By form, what :data:`MEASURES` names (memory in bytes)."""
    found: dict[str, dict[str, float]] = {}
    asked: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npy"
        image = synthetic(point.side)
        np.save(images, np.stack([image] * point.batch)[None])
        more = {"threads": 1, "images": str(images)}
        for form, (target, runtime) in {TWIN: (TWIN, "onnxruntime"), **FORMS}.items():
            if runtime == "native" and why_absent():
                shelf.absent[form] = why_absent()
                continue
            made = shelf.get(point, target)
            if made is None:
                continue
            path, export = made
            what = {"model": str(path)} if form == TWIN else {"bundle": str(path)}
            asked[form] = ({**what, "runtime": runtime, **more}, COMMAND)
            model = path if form == TWIN else path / "model.onnx"
            found[form] = {"bytes": model.stat().st_size, "export_seconds": export}
        with workers(asked) as running:
            blocks = take_turns(running, seconds)
            for form, worker in running.items():
                found[form]["cpu_ms"] = times_of(blocks[form], point.batch).cpu_ms
                base = worker.loaded["base_memory"]
                found[form]["memory"] = worker.close().run - base
    return found


def exponent(at: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the line through the logarithms."""
    return float(np.polyfit(np.log(at), np.log(values), 1)[0])


def fitted(axis: str, points: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By form and measure, the exponent along one axis."""
    forms, values = points[0]["forms"], AXES[axis]
    measures = MEASURES[:2] if axis in _RUN_ONLY else MEASURES
    return {
        form: {
            measure: round(exponent(values, [p["forms"][form][measure] for p in points]), 2)
            for measure in measures
        }
        for form in forms
    }


def main() -> None:
    """Every axis, every point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4, help="to take turns for, a point")
    parser.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES))
    given = parser.parse_args()
    axes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        shelf = Shelf(Path(folder))
        for target in (TWIN, "onnx", "cpu"):  # the first export of a process imports and warms up
            Shelf(Path(folder) / "warm").get(Point(width=0.25, depth=1), target)
        for axis in given.axes:
            points = []
            for value in AXES[axis]:
                point = dataclasses.replace(Point(), **{axis: value})
                forms = measured(point, shelf, given.seconds)
                print(axis, value, {n: round(f["cpu_ms"], 1) for n, f in forms.items()}, flush=True)
                points.append({"at": value, "forms": _rounded(forms)})
            axes[axis] = {"points": points, "exponents": fitted(axis, points)}
    result = {
        "machine": this_machine().to_dict(),
        "threads": 1,
        "base": dataclasses.asdict(Point()),
        "seconds_a_point": given.seconds,
        "axes": axes,
        "absent": shelf.absent,
    }
    if given.axes == list(AXES):
        record("scaling", result)
        write_atomically(FIGURE, plot_bytes(result, FIGURE))


def _rounded(forms: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        form: {name: float(f"{value:.4g}") for name, value in measures.items()}
        for form, measures in forms.items()
    }


if __name__ == "__main__":
    main()
