"""Write the model cards and the generated parts of the documentation anew.

python docs/make_tables.py

In a document, a part begins with ``<!-- generated: NAME -->`` and ends with ``<!-- end -->``; what
stands between is replaced. A test compares the files with what the code computes.
"""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qmdd.models.efficiency import NetworkCost

DOCS = Path(__file__).parent
_PART = re.compile(r"(<!-- generated: ([a-z0-9-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def table4_parts() -> dict[str, str]:
    """Table 4 beside ours, and the widths of every built-in network."""
    from qmdd.models.config import ARCHITECTURES, FULL_PRECISION, QUANTIZED_BITS
    from qmdd.models.efficiency import costs_by_width
    from qmdd.models.efficiency_report import summary_table
    from qmdd.models.table4_report import table4

    widths = (*QUANTIZED_BITS, FULL_PRECISION)
    costs = [cost for arch in ARCHITECTURES for cost in costs_by_width(arch, widths)]
    networks = summary_table(costs)
    networks.notes[:] = [_outside(cost) for cost in costs if cost.bits == 2]
    operations, storage, conventions = table4()
    return {
        "operations": operations.markdown(),
        "storage": storage.markdown(),
        "conventions": conventions.markdown(),
        "networks": networks.markdown(),
    }


def _outside(cost: NetworkCost) -> str:
    """In place of the explanations, which stand below Table 4."""
    return (
        f"{cost.name}: {cost.elementwise / 1e9:.3f} G operations on single floats outside "
        f"convolutions (at every width), which OPs leave out; OPs at 2 bits are "
        f"{cost.ops / 1e9:.3f} G."
    )


def zoo_parts() -> dict[str, str]:
    """The list of built-in checkpoints."""
    from qmdd.models.zoo import entries
    from qmdd.models.zoo_card import zoo_table

    return {"zoo": zoo_table(entries()).markdown()}


def estimate_parts() -> dict[str, str]:
    """The devices, ResNet-23 on each of them, and the method against the clock on a CPU."""
    from qmdd.exporter.devices import DEVICES
    from qmdd.exporter.estimate_report import device_table

    return {
        "devices": device_table(DEVICES.values()).markdown(),
        "resnet23": _resnet23_estimates(),
        **_roofline_check(),
    }


def _resnet23_estimates() -> str:
    """The built-in 2-bit ResNet-23, lowered as for an Orin Nano, on every device and mode."""
    from qmdd.exporter.devices import DEVICES, PRECISIONS
    from qmdd.exporter.lower import onnx_for_target
    from qmdd.exporter.roofline import estimate, roofs_of
    from qmdd.exporter.source import source_from_checkpoint
    from qmdd.exporter.targets import find_target
    from qmdd.exporter.trace import canonical_from_detector
    from qmdd.exporter.workload import layers_of
    from qmdd.models.checkpoint import freeze
    from qmdd.models.tables import Table
    from qmdd.models.zoo import builtin_checkpoint

    network = source_from_checkpoint(builtin_checkpoint("resnet23", 2)).network
    target = find_target("orin-nano")
    canonical = canonical_from_detector(freeze(network))
    layers = layers_of(onnx_for_target(canonical, target, "int8", target.opset).model)
    rows = []
    for device in DEVICES.values():
        for mode in device.modes:
            roofs = roofs_of(device, mode)
            found = {p: estimate(layers, roofs, p) for p in device.precisions}
            first = next(iter(found.values()))
            shares = {limit: ms / first.ms for limit, ms in first.by_limit().items()}
            times = (f"{found[p].ms:.2g}" if p in found else "-" for p in PRECISIONS)
            rest = (f"{shares.get(limit, 0.0):.0%}" for limit in ("compute", "memory"))
            rows.append((device.name, mode.name, *times, *rest))
    columns = ("target", "power mode", *(f"{p} ms, estimated" for p in PRECISIONS))
    limits = ("limited by multiply-adds", "by memory")
    return Table("", (*columns, *limits), rows).markdown()


def _roofline_check() -> dict[str, str]:
    """What ``benchmarks/roofline.py`` recorded."""
    from qmdd.models.tables import Table

    found = _recorded("roofline")
    totals, kinds = [], []
    for name, case in found["cases"].items():
        times = (case["bound_ms"], case["estimated_ms"], case["measured_ms"])
        ratios = (case["measured_over_bound"], case["measured_over_estimated"])
        totals.append((name, *(f"{ms:.1f}" for ms in times), *(f"{r:.2f}" for r in ratios)))
        for kind, part in case["kinds"].items():
            ratio = part["measured_over_estimated"]
            cells = (part["bound_ms"], part["estimated_ms"], part["measured_ms"])
            kinds.append((name, kind, *(f"{ms:.2f}" for ms in cells), f"{ratio or '-'}"))
    columns = ("bound ms", "estimated ms", "measured ms")
    total = ("case", *columns, "measured / bound", "measured / estimated")
    where = (
        f"Measured {found['measured']}: {found['processor']}; one thread, {found['side']} pixels."
    )
    return {
        "check": Table("", total, totals, [where]).markdown(),
        "check-kinds": Table("", ("case", "kind", *columns, "ratio"), kinds).markdown(),
    }


def target_parts() -> dict[str, str]:
    """All targets, the forms of thresholds, and what the engines' benchmarks recorded."""
    from qmdd.exporter.target_report import all_targets, target_table

    return {
        "targets": target_table(all_targets()).markdown(),
        "threshold-forms": _threshold_forms(),
        "engine-matrix": _engine_matrix(),
    }


def _recorded(name: str) -> dict[str, Any]:
    path = DOCS.parent / "benchmarks" / "results" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _threshold_forms() -> str:
    from qmdd.models.tables import Table

    forms = ("chain", "four dimensions", "five dimensions")
    rows = [
        (
            f"{row['thresholds']}",
            "a channel" if row["per_channel"] else "one",
            *(
                f"{row[form]['kernels']}, {row[form]['seconds']} s, {row[form]['bytes']:,}"
                for form in forms
            ),
        )
        for row in _recorded("threshold_forms")["rows"]
    ]
    return Table("", ("thresholds", "table", *forms), rows).markdown()


def _engine_matrix() -> str:
    from qmdd.models.tables import Table

    rows = [
        (
            row["arch"],
            f"{row['bits']}",
            f"{row['int8_built']} of {row['int8_planned']}",
            f"{row['unlisted']}",
            f"{row['engine_bytes']:,}",
            f"{row['seconds']}",
            f"{row['peak_mib']}",
        )
        for row in _recorded("engine_matrix")["rows"]
    ]
    columns = ("network", "bits", "INT8 built", "unlisted warnings", "bytes", "s", "peak MiB")
    return Table("", columns, rows).markdown()


def benchmark_parts() -> dict[str, str]:
    """The peers beside us, and how everything grows."""
    return runpy.run_path(str(DOCS / "benchmark_tables.py"))["benchmark_parts"](_recorded)


def cpu_parts() -> dict[str, str]:
    """The portable form beside its twin, and the forms that it was chosen from."""
    from qmdd.models.tables import Table

    ratios, forms = _recorded("portable"), _recorded("portable_forms")
    rows = [
        (
            f"{row['bits']}",
            row["form"],
            f"{row['ratio']:.3f}",
            f"{ratios['bars'][str(row['bits'])]}" if row["form"] == "cpu" else "",
            f"{row['ms']:.1f}",
            f"{row['twin_ms']:.1f}",
            f"{row['wrong_codes']} of {row['codes_compared']:,}",
            f"{row['bytes']:,}",
            f"{row['load_s']:.2f}",
        )
        for row in ratios["rows"]
    ]
    columns = ("bits", "target", "ratio", "bar", "ms", "twin, ms")
    rest = ("wrong codes", "bytes", "load, s")
    notes = [f"Measured {ratios['measured']}: {ratios['processor']}; {ratios['clock']}."]
    pairs = [
        (row["what"], *(f"{way}: {us:,.0f}" for way, us in row["forms"].items()))
        for row in forms["pairs"]
    ]
    return {
        "portable": Table("", (*columns, *rest), rows, notes).markdown(),
        "portable-forms": _plain_table(forms["thresholds"]),
        "portable-columns": _plain_table(forms["columns"]),
        "portable-pairs": Table("", ("what", "one form", "the other"), pairs).markdown(),
    }


def _plain_table(rows: list[dict[str, Any]]) -> str:
    """Rows of numbers under their own names."""
    from qmdd.models.tables import Table

    cells = [tuple(f"{value}" for value in row.values()) for row in rows]
    return Table("", tuple(rows[0]), cells).markdown()


#: What fills the generated parts of each document.
def detect_parts() -> dict[str, str]:
    """The pipeline's measured figures."""
    from qmdd.models.tables import Table

    path = DOCS.parent / "benchmarks" / "results" / "pipeline.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    rates = {
        (case["threads"], case["batch"]): f"{case['images_a_second']:.0f}"
        for case in run["by_batch"]
    }
    batches = sorted({batch for _, batch in rates})
    rows = [
        (f"{threads}", *(rates[threads, batch] for batch in batches))
        for threads in sorted({threads for threads, _ in rates})
    ]
    columns = ("threads", *(f"batch {batch}" for batch in batches))
    figures = Table("", ("what", "measured", "bar"), _pipeline_rows(run))
    return {"batches": Table("", columns, rows).markdown(), "pipeline": figures.markdown()}


def _pipeline_rows(run: dict[str, Any]) -> list[tuple[str, ...]]:
    speed, memory, bars = run["speed"], run["memory"], run["bars"]

    def ratio(way: str) -> str:
        median, low, high = speed["pipeline_over"][way]
        return f"{median:.2f} (quartiles {low:.2f}, {high:.2f})"

    def rate(way: str) -> str:
        return f"{speed['images_a_second'][way]:.0f}; {speed['cpu_ms_an_image'][way]:.1f} ms"

    counts = " and at ".join(f"{one['images']:,}" for one in memory["runs"])
    peaks = ", ".join(f"{one['peak_mib']:.0f}" for one in memory["runs"])
    varied = run["memory_varied_sizes"]["runs"]
    start = run["start"]
    return [
        (
            f"{speed['images']:,} JPEG files of 256x256: images a second; CPU time an image",
            rate("pipeline"),
            "",
        ),
        ("the bare session with two threads", rate("session"), ""),
        ("two bare runs side by side, a thread each", rate("side_by_side"), ""),
        ("images a second over the bare session's", ratio("session"), f">= {bars['speed']:.2f}"),
        ("over those of two bare runs side by side", ratio("side_by_side"), ""),
        (f"peak memory at {counts} images, MiB", peaks, f"<= {bars['memory_mib']}"),
        (
            "the larger over the smaller",
            f"{memory['largest_over_smallest']:.3f}",
            f"<= {bars['memory_growth']:.2f}",
        ),
        (
            "peak memory, images of many sizes up to 512x512, MiB",
            ", ".join(f"{one['peak_mib']:.0f}" for one in varied),
            "",
        ),
        (
            "start of the command to where the session loads, s",
            f"{start['seconds']:.2f}",
            f"<= {bars['start_seconds']:.2f}",
        ),
    ]


#: What fills the generated parts of each document.
DOCUMENTS: Mapping[str, Callable[[], dict[str, str]]] = {
    "benchmarks.md": benchmark_parts,
    "cpu.md": cpu_parts,
    "detect.md": detect_parts,
    "efficiency.md": table4_parts,
    "estimate.md": estimate_parts,
    "targets.md": target_parts,
    "zoo.md": zoo_parts,
}


def filled(text: str, parts: Mapping[str, str]) -> str:
    """``text`` with its generated parts replaced; a part that ``parts`` lacks is a KeyError."""
    return _PART.sub(lambda match: f"{match[1]}{parts[match[2]]}\n{match[4]}", text)


def main() -> None:
    """Rewrite every document, and every model card."""
    from qmdd.models.zoo_card import cards

    for path, text in cards().items():
        path.write_text(text, encoding="utf-8")
    for name, parts in DOCUMENTS.items():
        path = DOCS / name
        path.write_text(filled(path.read_text(encoding="utf-8"), parts()), encoding="utf-8")


if __name__ == "__main__":
    main()
