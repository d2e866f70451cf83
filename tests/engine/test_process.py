"""The builder's process: how it may end, and that nothing of it reaches us."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from qmdd.exporter.engine import process
from qmdd.exporter.engine.build import build_engine
from qmdd.exporter.errors import BuildError

#: Stands in for the builder: tells its process id, then does what a test wants.
STAND_IN = """
import json, os, signal, sys, time
events = os.fdopen(int(sys.argv[1]), "w", buffering=1)
request = json.loads(sys.stdin.readline())
with open(os.path.join(request["folder"], "verbose.log"), "w") as log:
    log.write("VERBOSE: what it did last\\n")
events.write("no JSON\\n" + json.dumps({{"what": str(os.getpid()), "done": 1}}) + "\\n")
{then}
"""


@pytest.fixture
def builder(tmp_path: Path, monkeypatch):
    """``builder(code)`` makes ``code`` the builder."""

    def stand_in(then: str) -> None:
        script = tmp_path / "builder.py"
        script.write_text(STAND_IN.format(then=then), encoding="utf-8")
        monkeypatch.setattr(process, "COMMAND", (sys.executable, str(script)))

    return stand_in


@pytest.fixture
def failed(make_bundle, contents):
    """Build, which must fail and leave the bundle as it was; what was said, and the log."""

    def run(**options: object) -> tuple[str, str]:
        folder = make_bundle()
        before = contents(folder)
        with pytest.raises(BuildError) as caught:
            build_engine(folder, **options)
        assert contents(folder) == before
        said, _, log = str(caught.value).partition("; log: ")
        assert "\n" not in said
        text = Path(log).read_text(encoding="utf-8") if log else ""
        if log:
            Path(log).unlink()
        return said, text

    return run


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "TensorRT crashed (SIGSEGV) in the builder's"),
        ("print('terminate called', flush=True); os.abort()", "(SIGABRT) in the builder's process"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed, most likely by the system for want"),
        ("sys.exit(3)", "ended with exit code 3 and no engine"),
        ("raise ValueError('odd')", "no engine; its last words: ValueError: odd"),
        ("events.write(json.dumps({'error': 'refused: x'}) + '\\n'); sys.exit(1)", "refused: x"),
    ],
)
def test_builder_that_fails_is_one_line_and_a_log(builder, failed, code: str, said: str) -> None:
    builder(code)
    told, log = failed()
    assert said in told
    assert log.startswith("VERBOSE: what it did last\n")


def test_last_words_of_a_crash_are_told(builder, failed) -> None:
    builder("print('first'); print('terminate called', flush=True); os.abort()")
    told, log = failed()
    assert told.endswith("; its last words: terminate called")
    assert log.endswith("first\nterminate called\n")


def test_builder_that_hangs_ends_with_its_time(builder, failed) -> None:
    builder("time.sleep(60)")
    started = time.monotonic()
    told, _ = failed(timeout=1.0)
    assert "took longer than --timeout allows" in told
    assert time.monotonic() - started < 30


def test_builder_that_closes_its_events_and_hangs(builder, failed) -> None:
    builder("events.close(); time.sleep(60)")
    told, _ = failed(timeout=1.0)
    assert "longer than --timeout allows" in told


def test_builder_that_takes_too_much_memory(builder, failed) -> None:
    builder("held = bytearray(200 << 20); time.sleep(60)")
    told, _ = failed(memory_limit_mib=100)
    assert "more than its memory limit of 100 MiB; raise --memory-limit" in told


def test_real_builder_over_its_limits(rtx, failed) -> None:
    """The libraries alone take more than this."""
    told, _ = failed(memory_limit_mib=20)
    assert "memory limit of 20 MiB" in told


def test_real_builder_out_of_time(rtx, failed) -> None:
    told, _ = failed(timeout=0.05)
    assert "--timeout" in told


def test_interruption_ends_the_builder(builder, make_bundle, contents) -> None:
    builder("time.sleep(60)")
    folder = make_bundle()
    before = contents(folder)
    found: list[int] = []

    def interrupt(what: str, _done: int, _total: int) -> None:
        if what.startswith("building: "):
            found.append(int(what.removeprefix("building: ")))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(folder, report=interrupt)
    assert _is_gone(found[0])
    assert contents(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.onnx"]


def test_what_the_builder_started_ends_with_it(builder, failed, tmp_path: Path) -> None:
    note = tmp_path / "helper"
    builder(
        "import subprocess\n"
        "helper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(note)!r}, 'w').write(str(helper.pid))\n"
        "time.sleep(60)"
    )
    failed(timeout=2.0)
    helper = int(note.read_text(encoding="utf-8"))
    deadline = time.monotonic() + 10
    while not _is_gone(helper) and time.monotonic() < deadline:
        if _state(helper) == "Z":  # dead; this test's parent has not asked for it yet
            return
        time.sleep(0.05)
    assert _is_gone(helper)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return ""


@pytest.mark.skipif(sys.platform != "linux", reason="the system ends orphans on Linux only")
def test_builder_ends_with_the_process_that_started_it(make_bundle, tmp_path) -> None:
    """``kill -9`` of ``qmdd build`` leaves no builder behind."""
    import subprocess

    script = (
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from qmdd.exporter.engine import process, child\n"
        "from qmdd.exporter.engine.build import build_engine\n"
        "code = ('from qmdd.runtime.process import die_with_parent as d; d();'\n"
        "        'import os, sys, json, time\\n'\n"
        "        'e = os.fdopen(int(sys.argv[1]), \"w\", buffering=1);'\n"
        "        'e.write(json.dumps(dict(what=str(os.getpid()), done=1)) + chr(10));'\n"
        "        'time.sleep(60)')\n"
        "process.COMMAND = (sys.executable, '-c', code)\n"
        "def report(what, done, total):\n"
        "    if what.startswith('building: '):\n"
        "        print(what.split()[1], flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "build_engine(Path(sys.argv[1]), report=report)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(make_bundle())],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while not _is_gone(pid) and _state(pid) != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _is_gone(pid) or _state(pid) == "Z"
