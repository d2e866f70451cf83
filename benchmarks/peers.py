"""The same network, ResNet-23 at 256x256, by every peer that is here: one thread, one run, in turn.

    chrt -r 1 taskset -c 1 python benchmarks/peers.py --brevitas FOLDER
    python docs/make_tables.py      # docs/benchmarks.md anew

(``chrt`` and ``taskset`` keep the rest of the machine out of the figures; both can be left out.)
Every peer is a process with one thread; blocks of runs take turns, and ratios are medians over the
turns, of the processor's time: where others use the machine, too, it is steadier than the clock's.

Ours are compared with their source code by code. Peers quantise the full-precision twin, and are
compared with it by logits and verdicts. The twin's weights are random unless ``--twin`` gives a
trained one: then its verdicts mean something, its time is the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _peak import MATMUL, peaks
from _peers import STATIC, TWIN, AbsentError, Peer, Workshop
from _peers_plot import plot_bytes
from _record import record

from qmdd.exporter.samples import sample_images
from qmdd.runtime.bench_times import ratio_of, times_of
from qmdd.runtime.bench_worker import Blocks, Worker, take_turns, workers
from qmdd.runtime.files import write_atomically
from qmdd.runtime.images import find_images, load_rgb
from qmdd.runtime.machine import this_machine, version_of
from qmdd.runtime.openvino_session import require_openvino
from qmdd.runtime.preprocess import prepare

SIDE = 256
#: Multiply-adds of the network at this size, as every manifest states them.
MULTIPLY_ADDS = 2_670_723_584
#: Ratio to the twin that ours must stay below, by row.
BARS = {
    "qmdd cpu, 2 bits": 0.46,
    "qmdd cpu, 3 bits": 0.58,
    "qmdd cpu, 4 bits": 0.75,
    "qmdd native, 2 bits": 0.26,
    "qmdd native, 3 bits": 0.28,
    "qmdd native, 4 bits": 0.30,
}
#: Native's ratio to quantize_static, and to the limit of the instructions that it uses.
STATIC_BAR, LIMIT_BAR = 0.55, 1.20
NATIVE = "qmdd native, 2 bits"
FIGURE = Path(__file__).parents[1] / "docs" / "peers.svg"


def load_images(files: list[Path]) -> np.ndarray:
    """uint8 ``[k, 1, 3, SIDE, SIDE]``, cropped like any image; smaller ones are an error."""
    found = [prepare(load_rgb(p), min_side=SIDE, multiple=2, max_side=SIDE) for p in files]
    return np.stack(found)[:, None]


def make(workshop: Workshop, only: str) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that are here, and why the others are not."""
    here: dict[str, Peer] = {}
    absent: dict[str, str] = {}
    for name, maker in workshop.makers():
        if only and name not in (TWIN, STATIC) and only not in name:
            continue
        print(f"making: {name}", flush=True)
        try:
            here[name] = maker()
        except AbsentError as error:
            absent[name] = str(error)
    return here, absent


def row(name: str, peer: Peer, worker: Worker, blocks: dict[str, Blocks]) -> dict[str, Any]:
    """What was measured of one peer."""
    times = times_of(blocks[name], 1)
    compiled = peer.request.get("torch") == "compile"
    pairs = {"ratio": TWIN, "ratio_to_static": STATIC}
    ratios = {
        key: dataclasses.asdict(ratio_of(blocks[name], blocks[other], cpu=True))
        for key, other in pairs.items()
        if other in blocks and other != name
    }
    return {
        "name": name,
        "times": times.to_dict(),
        **ratios,
        "bytes": peer.size,
        "export_seconds": worker.loaded["first_seconds"] if compiled else peer.export_seconds,
        "load_seconds": worker.loaded["load_seconds"],
        "load_cpu_seconds": worker.loaded["load_cpu_seconds"],
        "first_seconds": worker.loaded["first_seconds"],
        "loaded_memory": worker.loaded["loaded_memory"],
        "about": worker.loaded["about"],
        "exact": peer.exact,
        "notes": peer.notes,
    }


def compared(peer: Peer, worker: Worker, reference: Worker) -> dict[str, Any] | None:
    """Logits of a peer against those of what it was made of."""
    if peer.against != TWIN or worker is reference:
        return None
    theirs, ours = (np.array(w.loaded["logits"]) for w in (worker, reference))
    return {
        "images": len(ours),
        "flipped": int(((theirs > 0) != (ours > 0)).sum()),
        "largest": float(np.abs(theirs - ours).max()),
        "spread": float(ours.std()),
    }


def judged(rows: list[dict[str, Any]], peak: dict[str, float]) -> list[dict[str, Any]]:
    """The bars, each with what was measured; ``None`` where its row is absent."""
    by_name = {found["name"]: found for found in rows}
    bars = []
    for name, bar in BARS.items():
        found = by_name.get(name)
        value = found["ratio"]["median"] if found else None
        wrong = found["exact"]["wrong"] if found else None
        passed = None if value is None else value <= bar and wrong == 0
        bars.append({"what": name, "bar": bar, "measured": value, "passed": passed})
    native = by_name.get(NATIVE)
    if native is None:
        return bars
    static = native["ratio_to_static"]["median"]
    what = f"{NATIVE}, over quantize_static"
    bars.append(
        {"what": what, "bar": STATIC_BAR, "measured": static, "passed": static <= STATIC_BAR}
    )
    for found in rows:  # a limit of each kernel's own
        kernel = found["about"].get("kernel", "")
        if found["name"].startswith(NATIVE) and kernel in peak:
            distance = found["times"]["cpu_ms"] / (MULTIPLY_ADDS / peak[kernel] / 1e6)
            what = f"{NATIVE}, over the limit of {kernel}"
            passed = distance <= LIMIT_BAR
            bars.append({"what": what, "bar": LIMIT_BAR, "measured": distance, "passed": passed})
    return bars


def main() -> None:
    """Make the peers, let them take turns, compare, record, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120, help="to take turns for")
    parser.add_argument("--images", type=Path, nargs="+", default=[], help="default: the samples")
    parser.add_argument("--twin", type=Path, help="checkpoint of a trained full-precision twin")
    parser.add_argument("--brevitas", type=Path, help="folder that Brevitas is installed in")
    parser.add_argument("--only", default="", help="peers with this in their name; nothing is kept")
    given = parser.parse_args()
    require_openvino()  # first of all: it reports nothing then
    files = list(find_images(given.images)) or sample_images()
    with tempfile.TemporaryDirectory() as folder:
        images = load_images(files)
        workshop = Workshop(Path(folder), images, files, given.twin, given.brevitas)
        here, absent = make(workshop, given.only)
        before = peaks()
        more = {"threads": 1, "images": str(workshop.images_path)}
        asked = {name: ({**peer.request, **more}, peer.command) for name, peer in here.items()}
        print(f"taking turns: {len(here)} peers", flush=True)
        with workers(asked) as running:
            blocks = take_turns(running, given.seconds)
            rows = []
            for name, peer in here.items():
                found = row(name, peer, running[name], blocks)
                found["logits"] = compared(peer, running[name], running[TWIN])
                found["peak_memory"] = max(running[name].close())
                rows.append(found)
        peak = {name: max(rate, before[name]) for name, rate in peaks().items()}
    versions = {name: version_of(name) for name in ("openvino",)}
    result = {
        "versions_more": versions,
        "machine": this_machine().to_dict(),
        "side": SIDE,
        "threads": 1,
        "multiply_adds": MULTIPLY_ADDS,
        "twin_trained": given.twin is not None,
        "turns": rows[0]["times"]["turns"],
        "peak_gmacs": {name: round(rate, 1) for name, rate in peak.items()},
        "limit_ms": {name: MULTIPLY_ADDS / rate / 1e6 for name, rate in peak.items()},
        "rows": [_rounded(found) for found in rows],
        "absent": absent,
        "bars": [_rounded(bar) for bar in judged(rows, peak)],
    }
    if given.only:
        for found in result["rows"]:
            print(found["name"], found["times"]["cpu_ms"], found.get("ratio"), found["logits"])
        print(absent, result["bars"], result["peak_gmacs"], MATMUL)
        return
    record("peers", result)
    write_atomically(FIGURE, plot_bytes(result, FIGURE))
    if any(bar["passed"] is False for bar in result["bars"]):
        raise SystemExit(1)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value


if __name__ == "__main__":
    main()
