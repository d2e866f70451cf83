"""Every quantizer kind and width against its threshold table, on all 2^32 float32 bit patterns.

    python -m hardening.edges.all_floats --record hardening/results/all_floats.json

The formula is the quantizer's own: what the model computes in evaluation, in PyTorch. The table is
the one that bisection finds and that is exported. NaN and the infinities are among the floats. A
run that is interrupted goes on where it was (``--rows``). The exit code is 1 if a code is wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from qmdd.cli.output import Report, progress
from qmdd.models.quantizers import ACTIVATIONS, QUANTIZED_BITS, ActivationQuantizer

from .bit_patterns import BLOCK, BLOCKS, wrong_codes
from .record import Rows, write_record
from .subjects import SORTS, Subject, subjects

#: Blocks between two reports of progress.
_REPORTED = 256


def wrong_of(
    quantizer: ActivationQuantizer,
    blocks: Iterable[int] = range(BLOCKS),
    report: Report | None = None,
    name: str = "",
) -> tuple[int, int]:
    """Floats compared, and codes of ``quantizer`` that its table does not give.

    Args:
        quantizer: in evaluation mode.
        blocks: numbers of the blocks to compare; default: all 2^32 floats.
        report: told of every few blocks.
        name: of the quantizer, for ``report``.
    """
    table = quantizer.table()
    compared = wrong = 0

    def codes(x: np.ndarray) -> np.ndarray:
        found: np.ndarray = quantizer.codes(torch.from_numpy(x)).numpy()
        return found

    for index in blocks:
        wrong += wrong_codes(codes, table, index)
        compared += BLOCK
        if report is not None and index % _REPORTED == 0:
            report(name, index, BLOCKS)
    return compared, wrong


def _chosen(arguments: argparse.Namespace) -> list[Subject]:
    return [
        subject
        for subject in subjects()
        if arguments.kind in (None, subject.kind)
        and arguments.bits in (None, subject.bits)
        and arguments.sort in (None, subject.sort)
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hardening.edges.all_floats",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kind", choices=ACTIVATIONS, help="default: all")
    parser.add_argument("--bits", type=int, choices=QUANTIZED_BITS, help="default: all")
    parser.add_argument("--sort", choices=[*SORTS, "zoo"], help="of parameters; default: all")
    parser.add_argument("--rows", type=Path, default=Path("runs/all_floats.jsonl"),
                        help="what is done already (%(default)s)")  # fmt: skip
    parser.add_argument("--record", type=Path, help="write the result to this file")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (%(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Compare; the exit code."""
    arguments = _parser().parse_args(argv)
    torch.set_num_threads(arguments.threads)
    rows = Rows(arguments.rows)
    chosen = _chosen(arguments)
    with progress() as report:
        for subject in chosen:
            if rows.find(**subject._asdict()) is not None:
                continue
            started = time.perf_counter()
            compared, wrong = wrong_of(subject.quantizer(), report=report, name=subject.name)
            seconds = round(time.perf_counter() - started)
            rows.add({**subject._asdict(), "floats": compared, "wrong": wrong, "seconds": seconds})
            sys.stdout.write(f"{subject.name}: {wrong} wrong of {compared}, {seconds} s\n")
            sys.stdout.flush()
    done = [row for s in chosen if (row := rows.find(**s._asdict())) is not None]
    wrong = sum(row["wrong"] for row in done)
    result = {
        "quantizers": len(done),
        "floats": sum(row["floats"] for row in done),
        "wrong": wrong,
        "seconds": sum(row["seconds"] for row in done),
        "rows": done,
    }
    if arguments.record is not None:
        write_record(arguments.record, result, ("torch", "numpy"))
    sys.stdout.write(f"{wrong} wrong of {result['floats']} codes, {len(done)} quantizers\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
