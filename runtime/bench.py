"""How fast a bundle is on this machine, beside its full-precision twin in the same run.

For every number of threads and every batch, each runtime and the twin get a fresh process
(:mod:`.bench_child`), and the processes run in turn. All figures are measured.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import native
from .bench_inputs import Inputs, stage_seconds
from .bench_times import Ratio, Times, ratio_of, times_of
from .bench_twin import check_twin
from .bench_worker import COMMAND, Tick, Worker, take_turns, workers
from .bundle import Bundle
from .engine import engine_path, read_record
from .errors import SessionError
from .machine import Machine, this_machine, usable_cores
from .sessions import NATIVE, TENSORRT, runtime_of

U8 = npt.NDArray[np.uint8]
Report = Callable[[str, int, int], None]

#: Name of the full-precision twin among the runtimes.
TWIN = "twin"
#: Version of :meth:`BenchResult.to_dict`.
SCHEMA = 1
SECONDS = 30.0
BATCHES = (1, 8)
#: More threads or images than this are a slip of the keyboard.
MOST_THREADS, MOST_BATCH = 1024, 1024


@dataclasses.dataclass(frozen=True)
class Row:
    """One model with one number of threads and one batch.

    Attributes:
        name: the runtime, or :data:`TWIN`.
        times: of its runs.
        ratio: to the twin, by the clock; ``None`` without one, and for the twin itself.
        cpu_ratio: the same by the processor's time.
        import_seconds, load_seconds, first_seconds: importing the runtime, making the session, and
            its first run.
        base_memory, loaded_memory, peak_memory: bytes (resident): before and after the load, and at
            most until the end; 0 where the system does not tell.
    """

    name: str
    times: Times
    ratio: Ratio | None
    cpu_ratio: Ratio | None
    import_seconds: float
    load_seconds: float
    first_seconds: float
    base_memory: int
    loaded_memory: int
    peak_memory: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        ratios = {
            name: None if plain[name] is None else dataclasses.asdict(plain[name])
            for name in ("ratio", "cpu_ratio")
        }
        return {**plain, **ratios, "times": self.times.to_dict()}


@dataclasses.dataclass(frozen=True)
class Configuration:
    """All models with one number of threads and one batch."""

    threads: int
    batch: int
    rows: list[Row]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        rows = [row.to_dict() for row in self.rows]
        return {"threads": self.threads, "batch": self.batch, "rows": rows}


@dataclasses.dataclass(frozen=True)
class BenchResult:
    """What :func:`bench` measured.

    Attributes:
        runtimes: by name: ``version``, ``kernel``, ``why`` it was chosen, ``model_bytes``,
            ``logit_difference`` (the largest from the source's logits, ``None`` if not known).
        no_twin: why there is no twin; empty if there is one.
        stages: seconds an image before and behind the session, see
            :func:`~.bench_inputs.stage_seconds`.
        seconds: that all of it took.
    """

    bundle: Bundle
    machine: Machine
    inputs: Inputs
    runtimes: dict[str, dict[str, Any]]
    no_twin: str
    configurations: list[Configuration]
    stages: dict[str, Any]
    seconds: float

    def load_seconds(self, name: str) -> list[float]:
        """Of each process that loaded that model."""
        rows = [row for c in self.configurations for row in c.rows]
        return [row.load_seconds for row in rows if row.name == name]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "schema": SCHEMA,
            "label": "measured",
            "bundle": str(self.bundle.path),
            "arch": self.bundle.arch,
            "bits": self.bundle.bits,
            "target": self.bundle.target,
            "model_bytes": self.bundle.model_bytes,
            "machine": self.machine.to_dict(),
            "inputs": self.inputs.to_dict(),
            "runtimes": self.runtimes,
            "no_twin": self.no_twin,
            "load_seconds": {
                name: statistics.median(self.load_seconds(name)) for name in self.runtimes
            },
            "configurations": [found.to_dict() for found in self.configurations],
            "stages": self.stages,
            "seconds": self.seconds,
        }


def count_of(threads: int) -> str:
    """That number of threads, in words.

    >>> count_of(1)
    '1 thread'
    """
    return f"{threads} thread{'s' * (threads != 1)}"


def default_threads() -> tuple[int, ...]:
    """One, and all cores that this process may use."""
    return tuple(sorted({1, usable_cores()}))


def default_batches(bundle: Bundle, runtimes: Sequence[str]) -> tuple[int, ...]:
    """:data:`BATCHES`; an engine takes no others than those that it was built for."""
    if TENSORRT not in runtimes:
        return BATCHES
    profile = read_record(bundle).profile
    low, high = profile["min"][0], profile["max"][0]
    return tuple(count for count in BATCHES if low <= count <= high) or (high,)


def chosen_runtimes(bundle: Bundle, asked: Sequence[str]) -> list[str]:
    """Those asked for, each once; or else the one that would be used.

    Raises:
        SessionError: there is none of that name, or none that runs this bundle.
    """
    return list(dict.fromkeys(runtime_of(bundle, name) for name in asked or (None,)))


def bench(
    bundle: Bundle,
    inputs: Inputs,
    *,
    runtimes: Sequence[str] = (),
    threads: Sequence[int] = (),
    batches: Sequence[int] = (),
    seconds: float = SECONDS,
    twin: Path | None = None,
    no_twin: str = "",
    report: Report | None = None,
) -> BenchResult:
    """Measure ``bundle``.

    Args:
        inputs: what it runs on, see :func:`~.bench_inputs.find_inputs`.
        runtimes: of :data:`~.sessions.RUNTIMES`; default: the one that would be used.
        threads: numbers of threads; default: :func:`default_threads`.
        batches: images at a time; default: :func:`default_batches`.
        seconds: that timing may take in all, loading not counted; a few runs are always made.
        twin: an ONNX file of the full-precision twin.
        no_twin: why there is none.
        report: called with what is being done, seconds spent and seconds planned.

    Raises:
        SessionError: a runtime is missing or fails, or ``twin`` is not this bundle's.
        BundleError: the bundle was replaced meanwhile.
    """
    started = time.perf_counter()
    asked = chosen_runtimes(bundle, runtimes)
    # What runs on the GPU alone takes no threads of the CPU's.
    on_gpu = asked == [TENSORRT] and twin is None
    counts = tuple(threads) or ((1,) if on_gpu else default_threads())
    batches = tuple(batches) or default_batches(bundle, asked)
    _check("threads", counts, MOST_THREADS)
    _check("batch", batches, MOST_BATCH)
    requests = _requests(bundle, asked, twin)
    places = [(count, batch) for count in counts for batch in batches]
    found: list[Configuration] = []
    loaded: dict[str, dict[str, Any]] = {}
    say = report or (lambda _what, _done, _total: None)
    with tempfile.TemporaryDirectory() as folder:
        for index, (count, batch) in enumerate(places):
            what, share = f"{count_of(count)}, batch {batch}", seconds / len(places)
            say(f"loading: {what}", round(index * share), round(seconds))
            given = _with_images(requests, inputs.batches(batch), Path(folder), count)
            with workers(given) as running:
                if twin is not None and not found:
                    check_twin(running[TWIN].loaded["about"]["metadata"], bundle, str(twin))
                loaded = loaded or {name: worker.loaded for name, worker in running.items()}
                tick = _tick(say, what, index * share, seconds)
                found.append(Configuration(count, batch, _measured(running, share, batch, tick)))
    about = {name: dict(said["about"]) for name, said in loaded.items()}
    for name, facts in about.items():
        facts["why"] = _why(name, bundle, runtimes)
        facts["model_bytes"] = _model_bytes(name, bundle, twin)
        theirs = None if name == TWIN else inputs.difference(loaded[name]["logits"])
        facts["logit_difference"] = theirs
    bundle.check_unchanged()
    return BenchResult(
        bundle=bundle,
        machine=this_machine(),
        inputs=inputs,
        runtimes=about,
        no_twin="" if twin is not None else no_twin,
        configurations=found,
        stages=stage_seconds(inputs, bundle, loaded[asked[0]]["logits"]),
        seconds=time.perf_counter() - started,
    )


def _check(what: str, numbers: Sequence[int], most: int) -> None:
    for number in numbers:
        if not 1 <= number <= most:
            raise SessionError(f"{what}={number} must be within 1..{most}")


def _requests(bundle: Bundle, runtimes: Sequence[str], twin: Path | None) -> dict[str, Any]:
    """What each process is asked to load."""
    path = str(bundle.path.absolute())
    requests: dict[str, Any] = {name: {"bundle": path, "runtime": name} for name in runtimes}
    if twin is not None:
        requests[TWIN] = {"model": str(twin.absolute())}
    return requests


def _with_images(
    requests: Mapping[str, dict[str, Any]], images: U8, folder: Path, threads: int
) -> dict[str, tuple[dict[str, Any], Sequence[str]]]:
    """The requests of one configuration, and who answers them; ``images`` go through a file."""
    path = folder / "images.npy"
    np.save(path, images)
    more = {"threads": threads, "images": str(path)}
    return {name: ({**request, **more}, COMMAND) for name, request in requests.items()}


def _tick(say: Report, what: str, before: float, total: float) -> Tick:
    """Tells progress in seconds of the whole; never more than this configuration's share."""
    return lambda spent, share: say(what, round(before + min(spent, share)), round(total))


def _measured(running: Mapping[str, Worker], seconds: float, batch: int, tick: Tick) -> list[Row]:
    blocks = take_turns(running, seconds, tick)
    rows = []
    for name, worker in running.items():
        compared = name != TWIN and TWIN in running
        rows.append(
            Row(
                name=name,
                times=times_of(blocks[name], batch),
                ratio=ratio_of(blocks[name], blocks[TWIN]) if compared else None,
                cpu_ratio=ratio_of(blocks[name], blocks[TWIN], cpu=True) if compared else None,
                import_seconds=worker.loaded["import_seconds"],
                load_seconds=worker.loaded["load_seconds"],
                first_seconds=worker.loaded["first_seconds"],
                base_memory=worker.loaded["base_memory"],
                loaded_memory=worker.loaded["loaded_memory"],
                peak_memory=max(worker.close()),
            )
        )
    return rows


def _why(name: str, bundle: Bundle, asked: Sequence[str]) -> str:
    if name == TWIN:
        return "the same topology in full precision, run by ONNX Runtime, to compare with"
    if name in asked:
        return "asked for"
    if name == TENSORRT:
        return "the bundle holds an engine for this machine"
    if name == NATIVE:
        return "the bundle has a model for our native operators, and they are built here"
    if bundle.native_path is not None:
        return f"{native.why_absent()}; so the bundle's portable model is run"
    return "what the bundle was exported for"


def _model_bytes(name: str, bundle: Bundle, twin: Path | None) -> int:
    if name == TWIN and twin is not None:
        return twin.stat().st_size
    if name == TENSORRT:
        return engine_path(bundle).stat().st_size
    if name == NATIVE and bundle.native_path is not None:
        return bundle.native_path.stat().st_size
    return bundle.model_bytes
