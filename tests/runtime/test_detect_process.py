"""``qmdd detect`` as a process of its own, on the tiny bundle: streams, signals, closed pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

COMMAND = [sys.executable, "-m", "qmdd.cli.main", "detect"]


@pytest.fixture
def bundle(make_bundle: Callable[..., Path]) -> Path:
    return make_bundle()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.new("RGB", (40, 40), (255, 255, 255)).save(path)
    return path


@contextmanager
def _running(*args: object) -> Iterator[subprocess.Popen[bytes]]:
    command = [*COMMAND, *map(str, args), "--threads=2"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def _finish(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Its exit code and the rest of what it prints; its standard input stays open."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.read().decode(), process.stderr.read().decode()
    return process.wait(30), out, err


@pytest.mark.parametrize(
    ("form", "number", "code", "word"),
    [
        ("--jsonl", signal.SIGINT, 130, "interrupted"),
        ("--json", signal.SIGTERM, 143, "terminated"),
        ("--csv", signal.SIGTERM, 143, "terminated"),
    ],
)
def test_what_is_done_is_kept(
    bundle: Path, image: Path, form: str, number: int, code: int, word: str
) -> None:
    """The list waits for its next path: every result is there already."""
    with _running(bundle, "-", form) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{image}\n".encode() * 20)
        process.stdin.flush()
        lines = {"--jsonl": 20, "--csv": 21, "--json": 20 * 5}[form]
        head = b"".join(process.stdout.readline() for _ in range(lines)).decode()
        time.sleep(0.2)  # the last is printed, and now counted
        process.send_signal(number)
        returned, rest, err = _finish(process)
    assert returned == code
    assert err.strip() == f"qmdd: {word}; done and printed: 20 files"
    text = head + rest
    assert text.endswith("\n")
    if form == "--json":
        assert [row["verdict"] for row in json.loads(text)] == ["fake"] * 20
    elif form == "--jsonl":
        assert [json.loads(row)["verdict"] for row in text.splitlines()] == ["fake"] * 20


def test_interrupted_at_work(bundle: Path, image: Path) -> None:
    """Wherever it strikes: whole lines, a closed array, and their number."""
    for _ in range(2):
        with _running(bundle, "-", "--json") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            feed = threading.Thread(target=_feed, args=(process.stdin.fileno(), image))
            feed.start()
            head = process.stdout.read(2000).decode()
            process.send_signal(signal.SIGINT)
            code, rest, err = _finish(process)
            feed.join()
        assert code == 130
        rows = json.loads(head + rest)
        assert all(set(row) == {"path", "score", "verdict"} for row in rows)
        told = int(err.split(": ")[-1].split()[0].replace(",", ""))
        assert told in (len(rows), len(rows) - 1)  # it may strike between printing and counting


def _feed(number: int, image: Path) -> None:
    """Paths without end, until nobody reads them."""
    line = f"{image}\n".encode() * 50
    try:
        while True:
            os.write(number, line)
    except OSError:
        return


@pytest.mark.parametrize("form", ["--json", "--threshold=0.5"])
def test_a_closed_output_pipe_ends_it_quietly(bundle: Path, image: Path, form: str) -> None:
    with _running(bundle, "-", form) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        feed = threading.Thread(target=_feed, args=(process.stdin.fileno(), image))
        feed.start()
        assert process.stdout.read(100)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1
        feed.join()


def test_an_idle_list_does_not_hold_the_end_up(bundle: Path, image: Path) -> None:
    with _running(bundle, "-") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{image}\n".encode())
        process.stdin.flush()
        assert b"fake" in process.stdout.readline()
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert _finish(process)[0] == 130
        assert time.monotonic() - started < 10


def _peak_kib(*args: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr, whose last line is the peak of the process."""
    script = (
        "import atexit, sys\n"
        "def peak():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    print(next(line for line in lines if 'VmHWM' in line).split()[1], file=sys.stderr)\n"
        "atexit.register(peak)\n"
        "from qmdd.cli.main import main; main()"
    )
    command = [sys.executable, "-c", script, "detect", *map(str, args), "--threads=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_thousands_of_unreadable_files_among_good_ones(
    bundle: Path, image: Path, tmp_path: Path
) -> None:
    """Each is named, the others are scored, and memory does not grow."""
    bad = tmp_path / "bad"
    bad.touch()
    peaks = []
    for count in (20, 4000):
        folder = tmp_path / f"folder{count}"
        folder.mkdir()
        for index in range(count):
            os.link(image if index % 100 == 7 else bad, folder / f"{index:05}.png")
        code, out, err = _peak_kib(bundle, folder)
        *errors, peak = err.splitlines()
        peaks.append(int(peak))
        good = len(range(7, count, 100))
        assert code == 1
        assert len(out.splitlines()) == good
        assert len(errors) == count - good
        assert errors[0] == (
            f"qmdd: error: {folder}/00000.png: not an image in a supported format "
            "(JPEG, PNG, WEBP, BMP, GIF, TIFF, PPM, AVIF)"
        )
        assert errors[-1].startswith(f"qmdd: error: {folder}/{count - 1:05}.png: ")
    assert peaks[1] - peaks[0] < 8192


def test_named_pipes(bundle: Path, image: Path, tmp_path: Path) -> None:
    """Refused as an image, as good as any as a list."""
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    done = subprocess.run(
        [*COMMAND, str(bundle), str(pipe)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"qmdd: error: {pipe}: not a regular file")
    writer = threading.Thread(target=lambda: pipe.write_text(f"{image}\n"))
    writer.start()
    with open(pipe, "rb") as stream:
        done = subprocess.run(
            [*COMMAND, str(bundle), "-"],
            stdin=stream,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    writer.join()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"0.9815  fake  {image}\n"


def test_standard_input_that_is_closed(bundle: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *COMMAND, str(bundle), "-"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "qmdd: error: standard input is closed; give a list of paths there\n"


def test_images_load_neither_pyav_nor_rich(bundle: Path, image: Path) -> None:
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*({'av', 'rich', 'torch', 'onnx'} & set(sys.modules))))\n"
        "from qmdd.cli.main import main; main()"
    )
    command = [sys.executable, "-c", script, "detect", str(bundle), str(image), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-1] == ""
