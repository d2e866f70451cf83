"""A quantizer's table in every runtime, on all 2^32 float32 bit patterns.

    python -m hardening.edges.runtime_floats --record hardening/results/runtime_floats.json

The tables are those of a built-in checkpoint's first quantizer, and of N2UQ with a step just above
zero, whose threshold is subnormal. What each runtime counts is compared with the thresholds that a
float reaches; NaN reaches none. OpenVINO gives NaN the largest code; how many such there are is
counted apart (the export sees to it that none comes to a quantizer). The exit code is 1 if anything
else differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from qmdd.cli.output import Report, progress
from qmdd.models.float_order import F32

from ..records import record_result
from .bit_patterns import BLOCKS, block_of, table_codes
from .rows import PACKAGES, Rows
from .runtimes import CodesOf, runtimes
from .subjects import Subject

#: Blocks that a runtime is given at once.
TOGETHER = 16
SUBJECTS = (Subject("n2uq", True, 2, "zoo"), Subject("n2uq", False, 2, "tiny"))


def counted(
    codes_of: CodesOf,
    table: F32,
    starts: Iterable[int] = range(0, BLOCKS, TOGETHER),
    report: Report | None = None,
    name: str = "",
) -> dict[str, int]:
    """Floats compared, codes wrong among the numbers, and NaNs that have another code than 0.

    Args:
        codes_of: the runtime's codes.
        table: thresholds float32 ``[n]``.
        starts: the first of each :data:`TOGETHER` blocks; default: all floats.
        report: told of progress.
        name: of the runtime, for ``report``.
    """
    compared = wrong = nans = 0
    for start in starts:
        blocks = [block_of(index) for index in range(start, start + TOGETHER)]
        want = np.concatenate([table_codes(block, table) for block in blocks])
        x = np.concatenate(blocks)
        differs = np.asarray(codes_of(x)) != want
        if differs.any():
            none = np.isnan(x)
            nans += int((differs & none).sum())
            wrong += int((differs & ~none).sum())
        compared += x.size
        if report is not None:
            report(name, start, BLOCKS)
    return {"floats": compared, "wrong": wrong, "nan": nans}


def main(argv: list[str] | None = None) -> int:
    """Compare; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hardening.edges.runtime_floats",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=Path, default=Path("runs/runtime_floats.jsonl"),
                        help="what is done already (%(default)s)")  # fmt: skip
    parser.add_argument("--only", default="", help="runtimes whose name holds this")
    parser.add_argument("--record", type=Path, help="write the result to this file")
    arguments = parser.parse_args(argv)
    rows = Rows(arguments.rows)
    with progress() as report:
        for subject in SUBJECTS:
            table = subject.quantizer().table()
            for name, codes_of in runtimes(table).items():
                key = {"quantizer": subject.name, "runtime": name}
                if arguments.only not in name or rows.find(**key) is not None:
                    continue
                started = time.perf_counter()
                found = counted(codes_of, table, report=report, name=name)
                rows.add({**key, **found, "seconds": round(time.perf_counter() - started)})
                sys.stdout.write(f"{subject.name}, {name}: {found}\n")
                sys.stdout.flush()
    bad = sum(
        row["wrong"] + (0 if row["runtime"] == "OpenVINO" else row["nan"]) for row in rows.rows
    )
    result = {"floats": sum(row["floats"] for row in rows.rows), "wrong": bad, "rows": rows.rows}
    if arguments.record is not None:
        record_result(arguments.record, result, (*PACKAGES, "openvino", "qonnx"))
    sys.stdout.write(f"{bad} wrong of {result['floats']} codes\n")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
