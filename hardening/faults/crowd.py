"""Thousands of images at once: through the page, and through the Python interface.

Every answer must be the one that the image gets alone, and memory must not grow with their number.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import http.client
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

_MAIN = "from qmdd.cli.main import main; main()"
#: Times that a request is sent again after the server was busy.
_TRIES = 500
PAGE, THREADS = "page", "one detector, threads"
RUNS, PROCESSES = "one detector, runs of detect", "processes"


@dataclasses.dataclass
class Crowd:
    """What came of it.

    Attributes:
        way: how they were asked.
        asked: images.
        at_once: threads, connections or processes.
        right: answers that were the image's own.
        wrong: others.
        turned_away: times that the server was busy; such a request was sent again.
        lost: requests without an answer.
        memory_first: bytes that the server held at most during the first tenth, 0 where not seen.
        memory: the same, over all.
        seconds: that it took.
    """

    way: str
    asked: int
    at_once: int
    right: int = 0
    wrong: int = 0
    turned_away: int = 0
    lost: int = 0
    memory_first: int = 0
    memory: int = 0
    seconds: float = 0.0


def scores_alone(bundle: Path, images: Sequence[Path]) -> list[float]:
    """The score of each image, one after the other."""
    from qmdd.runtime.detector import Detector

    detector = Detector.open(bundle, threads=1)
    return [detector.score(image) for image in images]


@contextlib.contextmanager
def page(bundle: Path, *options: str) -> Iterator[tuple[str, int]]:
    """``qmdd demo`` of ``bundle`` in a process of its own: its address and number."""
    line = [sys.executable, "-c", _MAIN, "demo", str(bundle), "--port", "0", *options]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        yield urlsplit(process.stdout.readline().strip()).netloc, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def through_the_page(bundle: Path, images: Sequence[Path], count: int, connections: int) -> Crowd:
    """Send ``count`` images over ``connections`` connections that stay open."""
    right = scores_alone(bundle, images)
    bodies = [image.read_bytes() for image in images]
    found = Crowd(PAGE, count, connections)
    numbers, guard = iter(range(count)), threading.Lock()
    started = time.perf_counter()

    def client(where: str) -> None:
        connection = http.client.HTTPConnection(where, timeout=120)
        while True:
            with guard:
                number = next(numbers, None)
            if number is None:
                break
            which = number % len(bodies)
            kind = _send(connection, bodies[which], right[which], found, guard)
            with guard:
                setattr(found, kind, getattr(found, kind) + 1)
        connection.close()

    with page(bundle, "--threads", "1") as (where, process):
        threads = [threading.Thread(target=client, args=(where,)) for _ in range(connections)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            threads[0].join(0.05)
            found.memory = max(found.memory, _peak(process))
            if found.right < count // 10:
                found.memory_first = found.memory
            time.sleep(0.05)
    found.seconds = round(time.perf_counter() - started, 1)
    return found


def _send(
    connection: http.client.HTTPConnection,
    body: bytes,
    score: float,
    found: Crowd,
    guard: threading.Lock,
) -> str:
    """Ask until there is an answer; ``right``, ``wrong`` or ``lost``."""
    for _ in range(_TRIES):
        try:
            connection.request("POST", "/api/score", body=body)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return "lost"
        if answer.status != 503:
            held = json.loads(data).get("score") if answer.status == 200 else None
            return "right" if held == score else "wrong"
        with guard:
            found.turned_away += 1
        time.sleep(0.05)
    return "lost"


def _peak(process: int) -> int:
    """The most bytes that a process has held (resident)."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    line = next((line for line in text.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0")
    return int(line.split()[1]) << 10


def through_threads(bundle: Path, images: Sequence[Path], count: int, threads: int) -> Crowd:
    """Score ``count`` images with one detector, from ``threads`` threads of this process."""
    from qmdd.runtime.detector import Detector

    right = scores_alone(bundle, images)
    detector = Detector.open(bundle, threads=2)
    found = Crowd(THREADS, count, threads)
    started = time.perf_counter()

    def score(number: int) -> bool:
        which = number % len(images)
        return detector.score(images[which]) == right[which]

    with ThreadPoolExecutor(threads) as pool:
        told = collections.Counter(pool.map(score, range(count)))
    found.right, found.wrong = told[True], told[False]
    found.seconds = round(time.perf_counter() - started, 1)
    return found


def through_runs(bundle: Path, images: Sequence[Path], count: int, runs: int) -> Crowd:
    """Let ``runs`` calls of ``detect`` of one detector run at once."""
    from qmdd.runtime.detector import Detector

    right = {
        str(image): score for image, score in zip(images, scores_alone(bundle, images), strict=True)
    }
    detector = Detector.open(bundle, threads=2)
    found = Crowd(RUNS, count, runs)
    started = time.perf_counter()
    each = count // runs

    def detect(_number: int) -> list[bool]:
        listed = itertools.islice(itertools.cycle(images), each)
        return [v.score == right[str(v.path)] for v in detector.detect(listed)]

    with ThreadPoolExecutor(runs) as pool:
        told = collections.Counter(itertools.chain(*pool.map(detect, range(runs))))
    found.right, found.wrong, found.asked = told[True], told[False], each * runs
    found.seconds = round(time.perf_counter() - started, 1)
    return found


def _scores(job: tuple[str, list[str]]) -> list[float]:
    from qmdd.runtime.detector import Detector

    detector = Detector.open(job[0], threads=1)
    return list(detector.score(job[1]))


def through_processes(bundle: Path, images: Sequence[Path], count: int, processes: int) -> Crowd:
    """Score ``count`` images in ``processes`` processes, a detector each."""
    import multiprocessing

    right = scores_alone(bundle, images)
    found = Crowd(PROCESSES, count, processes)
    started = time.perf_counter()
    each = count // processes
    listed = [str(images[number % len(images)]) for number in range(each)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for scores in pool.map(_scores, [(str(bundle), listed)] * processes):
            good = sum(s == right[n % len(images)] for n, s in enumerate(scores))
            found.right += good
            found.wrong += each - good
    found.asked = each * processes
    found.seconds = round(time.perf_counter() - started, 1)
    return found


#: How images are asked for, and how many at once.
WAYS: dict[str, tuple[Callable[[Path, Sequence[Path], int, int], Crowd], int]] = {
    PAGE: (through_the_page, 64),
    THREADS: (through_threads, 64),
    RUNS: (through_runs, 32),
    PROCESSES: (through_processes, 4),
}
