"""``qmdd scan`` as a user runs it: killed in the middle, and on Ray with a worker killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pytest
from PIL import Image

COMMAND = [sys.executable, "-m", "qmdd.cli.main", "scan"]


@pytest.fixture
def collection(tmp_path: Path) -> Callable[[int], Path]:
    """``collection(n)``: a folder of ``n`` images by name, 64x64, of a few different contents."""

    def make(count: int) -> Path:
        rng = np.random.default_rng(2)
        kinds = tmp_path / "kinds"
        kinds.mkdir()
        for level in range(16):
            pixels = rng.integers(16 * level, 16 * level + 16, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(kinds / f"{level}.png")
        folder = tmp_path / "collection"
        folder.mkdir()
        for number in range(count):
            os.link(kinds / f"{number % 16}.png", folder / f"{number:05d}.png")
        return folder

    return make


def _rows(results: Path) -> list[dict[str, Any]]:
    return pyarrow.dataset.dataset(results / "parts", format="parquet").to_table().to_pylist()


def _check(results: Path, folder: Path) -> None:
    """Every image is there exactly once, with the score of its content."""
    rows = _rows(results)
    names = [Path(row["path"]).name for row in rows]
    assert sorted(names) == sorted(os.listdir(folder))
    assert sorted(row["input"] for row in rows) == list(range(len(names)))
    by_content: dict[int, set[float]] = {}
    for name, row in zip(names, rows, strict=True):
        assert row["error"] is None
        by_content.setdefault(int(name[:5]) % 16, set()).add(row["score"])
    assert len(by_content) == 16
    assert all(len(scores) == 1 for scores in by_content.values())
    assert len(set.union(*by_content.values())) == 16


@contextlib.contextmanager
def _running(*args: object) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    command = [*COMMAND, *map(str, args)]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _wait_for_parts(results: Path, count: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError):
            if len(list((results / "parts").glob("part-*.parquet"))) >= count:
                return
        if process.poll() is not None:
            raise AssertionError(f"ended: {process.communicate()}")
        time.sleep(0.01)
    raise AssertionError(f"no {count} parts after two minutes")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_killed_and_run_again(
    make_bundle: Callable[..., Path], collection, tmp_path: Path, number: int, code: int
) -> None:
    folder, results = collection(1500), tmp_path / "results"
    args = [make_bundle(), folder, "--output", results, "--part=20", "--threads=1"]
    with _running(*args) as process:
        _wait_for_parts(results, 5, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    done = len(list((results / "parts").glob("part-*.parquet")))
    assert 5 <= done < 75
    if number != signal.SIGKILL:
        kept = f"finished parts are kept in {results}; the same command goes on"
        assert err.strip() == f"qmdd: interrupted; {kept}"
    with _running(*args, "--json") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    summary = json.loads(out)
    assert (summary["files"], summary["kept"], summary["damaged"]) == (1500, done, 0)
    _check(results, folder)


def _scorers(driver: int) -> list[int]:
    """Processes of Ray's actors that score, below the process ``driver``."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(status[1])
                names[int(entry.name)] = (entry / "cmdline").read_bytes()

    def below(number: int) -> bool:
        while number in parents:
            number = parents[number]
            if number == driver:
                return True
        return False

    return [n for n, name in names.items() if b"Scorer" in name and below(n)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds Ray's workers by /proc")
def test_on_ray_with_a_worker_killed(
    make_bundle: Callable[..., Path], collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5,000 images, a worker killed in the middle: every image exactly once. (About half a minute:
    Ray takes ten seconds to start and to end.)
    """
    pytest.importorskip("ray", reason="needs Ray: pip install 'qmdd[ray]'")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # where Ray keeps its token
    folder, results = collection(5000), tmp_path / "results"
    args = [make_bundle(), folder, "--output", results, "--part=25", "--ray", "--workers=2"]
    with _running(*args, "--json") as process:
        _wait_for_parts(results, 40, process)
        workers = _scorers(process.pid)
        os.kill(workers[0], signal.SIGKILL)
        done = len(list((results / "parts").glob("part-*.parquet")))
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert len(workers) == 2
    assert done < 200  # it was killed before the end
    summary = json.loads(out)
    assert (summary["files"], summary["failed"], summary["parts"]) == (5000, 0, 200)
    _check(results, folder)


def test_a_cluster_that_is_not_there(
    make_bundle: Callable[..., Path], collection, tmp_path: Path
) -> None:
    """Said at once, in one line; Ray alone would try for minutes."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'qmdd[ray]'")
    args = [make_bundle(), collection(1), "--output", tmp_path / "results"]
    with _running(*args, "--address=127.0.0.1:1") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("qmdd: error: no Ray cluster at 127.0.0.1:1: ")
    assert err.count("\n") == 1
