"""How long two bundles take on this machine, measured in turn, a process each."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ..bench import Report
from ..bench_inputs import SIDE, Inputs, find_inputs, size_fault
from ..bench_times import ratio_of, times_of
from ..bench_worker import COMMAND, take_turns, workers
from ..bundle import Bundle
from ..errors import SessionError
from ..machine import this_machine
from ..sessions import runtime_of

#: Names of the two in what is found.
A, B = "a", "b"
SECONDS = 10.0


def time_in_turn(
    a: Bundle,
    b: Bundle,
    *,
    threads: int = 1,
    seconds: float = SECONDS,
    report: Report | None = None,
) -> dict[str, Any]:
    """Latency of one image of 256 pixels a side, the same images for both; plain data.

    Args:
        threads: that each computes with.
        seconds: to measure for.
        report: called with what is being done, seconds spent and seconds planned.

    Returns:
        ``a`` and ``b``: ``runtime``, ``times`` and memory; ``ratio`` of b to a (clock, median of
        the turns, with its 10th and 90th percentile) and ``cpu_ratio``; ``machine``.

    Raises:
        SessionError: one cannot run here, or takes no such images.
    """
    inputs = _inputs(a, b)
    say = report or (lambda _what, _done, _total: None)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npy"
        np.save(images, inputs.batches(1))
        requests = {}
        for name, bundle in ((A, a), (B, b)):
            request = {
                "bundle": str(bundle.path.absolute()),
                "runtime": runtime_of(bundle),
                "threads": threads,
                "images": str(images),
            }
            requests[name] = (request, COMMAND)
        say("loading", 0, round(seconds))
        with workers(requests) as running:
            blocks = take_turns(
                running,
                seconds,
                lambda spent, planned: say("measuring", round(spent), round(planned)),
            )
            found: dict[str, Any] = {
                name: {
                    "runtime": requests[name][0]["runtime"],
                    "times": times_of(blocks[name], 1).to_dict(),
                    "load_seconds": worker.loaded["load_seconds"],
                    "peak_memory": max(worker.close()),
                }
                for name, worker in running.items()
            }
    return {
        "label": "measured",
        **found,
        "ratio": dataclasses.asdict(ratio_of(blocks[B], blocks[A])),
        "cpu_ratio": dataclasses.asdict(ratio_of(blocks[B], blocks[A], cpu=True)),
        "threads": threads,
        "inputs": inputs.to_dict(),
        "machine": this_machine().to_dict(),
    }


def _inputs(a: Bundle, b: Bundle) -> Inputs:
    for bundle in (a, b):
        fault = size_fault(bundle, SIDE)
        if fault:
            raise SessionError(f"{fault}; time it with qmdd bench --size")
    return find_inputs(a, side=SIDE)
