"""How ``qmdd build`` and ``qmdd inspect`` show an engine's audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .output import print_line, print_table

if TYPE_CHECKING:
    from ..exporter.engine.audit import Audit
    from ..runtime.engine import EngineRecord

_MIB = 1 << 20


def print_record(record: EngineRecord) -> None:
    """The engine in three lines: for what, how large, at what cost."""
    capabilities = ", ".join(record.compute_capabilities)
    print_line(
        f"{record.label}: target {record.target}, {record.backend} {record.version}, "
        f"compute capability {capabilities}"
    )
    sizes = record.sizes
    print_line(
        f"engine {sizes['engine']:,} bytes; on the device weights {_bytes(sizes['weights'])}, "
        f"activations {_bytes(sizes['activations'])}"
    )
    least, best, most = ("x".join(map(str, record.profile[name])) for name in ("min", "opt", "max"))
    print_line(
        f"images {least} to {most}, best at {best}; built in {sum(record.seconds.values()):.1f} s "
        f"with {sizes['peak_memory'] / _MIB:,.0f} MiB"
    )


def _bytes(count: int) -> str:
    """0 where this TensorRT does not log it."""
    return f"{count:,} bytes" if count else "unknown"


def print_audit(audit: Audit, *, engine: bool = True) -> None:
    """One row a planned layer, then what TensorRT inserted and said (if it is its engine's)."""
    if not audit.layers:
        print_line("no layers are planned: how they run is left to the flow that takes the model")
        return
    columns = ("layer", "op", "planned", "built", "weights", "weight bytes", "input bytes", "")
    rows = [
        (
            layer.name,
            layer.op,
            layer.planned,
            layer.built or "-",
            layer.built_storage or layer.planned_storage,
            f"{layer.weight_bytes:,}",
            f"{layer.input_bytes:,}",
            "NOT AS PLANNED" if layer.fell_back else "",
        )
        for layer in audit.layers
    ]
    print_table(columns, rows)
    print_line("")
    print_findings(audit, engine=engine)


def print_findings(audit: Audit, *, engine: bool = True) -> None:
    """The counts, and a line for everything that is not simply as planned.

    Without ``engine`` the layers are a runtime's own, and there is no engine to count layers of.
    """
    planned = audit.count("int8", built=False)
    if not audit.engine_layers:
        print_line(f"INT8 x INT8 layers planned: {planned} of {len(audit.layers)}; no engine yet")
        return
    built = sum(layer.built == layer.planned == "int8" for layer in audit.layers)
    more = (
        f"; the engine has {audit.engine_layers} layers, {len(audit.inserted)} inserted by TensorRT"
    )
    unpacking = f", {len(audit.unpacking)} unpack weights" if audit.unpacking else ""
    print_line(
        f"INT8 x INT8 layers: {built} of {planned} planned{more if engine else ''}{unpacking}"
    )
    for name in audit.inserted:
        print_line(f"  inserted: {name}")
    for fault in audit.faults:
        print_line(f"  FAULT: {fault}")
    for warning in audit.warnings:
        if warning.verdict != "fault":
            why = f" ({warning.name}: {warning.reason})" if warning.reason else ""
            print_line(f"  {warning.verdict} warning, {warning.count} times: {warning.text}{why}")


def faults_in_words(audit: Audit) -> str:
    """For the one line that ends a command whose audit failed."""
    first, *others = audit.faults
    return first + (f"; and {len(others)} more" if others else "")


__all__ = ["faults_in_words", "print_audit", "print_findings", "print_record"]
