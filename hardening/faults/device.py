"""A device in a folder: what takes the place of ssh, and of the device's Python.

The agent is the real one, in a process of its own; only the line between is left out, and the
minutes that an environment takes. What ssh itself does stands in tests/deploy.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .child import run

#: The moment at which the agent is killed, or the seconds after which; the file that takes the
#: number of its moments.
KILL_AT, KILL_AFTER, COUNT = "QMDD_FAULT_AT", "QMDD_FAULT_AFTER", "QMDD_FAULT_COUNT"
HOME, PYTHON = "device", "device-python"
#: Commands find these programs first.
ENVIRONMENT = {"PATH": f"bin:{os.environ.get('PATH', os.defpath)}"}
OPTIONS = ("device", "--python", PYTHON, "--bench-seconds", "0")

_SSH = """\
#!/bin/sh
for last; do :; done
PATH="$PWD/bin:$PATH"; HOME="$PWD/{home}"; export PATH HOME
cd "$HOME" && exec sh -c "$last"
"""

#: ``venv`` makes a link to this script, ``pip`` does nothing: qmdd is there already.
_PYTHON = """\
#!/bin/sh
case "$*" in
*"-m venv "*)
  for last; do :; done
  mkdir -p "$last/bin" && exec ln -s ../../../../../bin/{python} "$last/bin/python" ;;
*"-m pip "*) exit 0 ;;
*qmdd-agent*) exec {here} {prelude} "$@" ;;
esac
exec {here} "$@"
"""

_PRELUDE = """\
import atexit, os, signal, sys, threading
sys.path.insert(0, {root!r})
from hardening.faults.moments import Moments
at, count = os.environ.get({kill_at!r}), os.environ.get({count!r})
after = os.environ.get({kill_after!r})
moments = Moments(os.path.expanduser("~"), int(at) if at else None)
if after:
    timer = threading.Timer(float(after), os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()
if count:
    atexit.register(lambda: open(count, "w").write(str(moments.count)))
exec(compile(sys.argv[-1], "start", "exec"), {{"__name__": "__main__"}})
"""


def make_programs(place: Path) -> None:
    """Put ``ssh`` and the device's Python into ``bin`` of ``place``, and make the device's home."""
    root = Path(__file__).resolve().parents[2]
    (place / "bin").mkdir()
    (place / HOME).mkdir()
    prelude = place / "bin" / "prelude.py"
    text = _PRELUDE.format(
        root=os.fspath(root), kill_at=KILL_AT, kill_after=KILL_AFTER, count=COUNT
    )
    prelude.write_text(text, encoding="utf-8")
    for name, script in (
        ("ssh", _SSH.format(home=HOME)),
        (PYTHON, _PYTHON.format(here=sys.executable, python=PYTHON, prelude=prelude)),
    ):
        path = place / "bin" / name
        path.write_text(script, encoding="utf-8")
        path.chmod(0o755)


def make_device(world: Path) -> None:
    """Deploy to a device twice: ``device-1`` has one release, ``device-2`` another one, too."""
    place = world.parent / "made" / "place"
    place.mkdir(parents=True)
    make_programs(place)
    for number, name in ((1, "other"), (2, "bundle")):
        copy(world / name, place / name)
        ended = run(("deploy", name, *OPTIONS), place, environment=ENVIRONMENT)
        if ended.code:
            said = (place.parent / "said").read_text(encoding="utf-8")
            raise RuntimeError(f"deploying {name}: {said}")
        copy(place / HOME, world / f"device-{number}")


def with_device(number: int) -> Callable[[Path, Path], None]:
    """What lays out a device with so many releases."""

    def prepare(world: Path, place: Path) -> None:
        make_programs(place)
        (place / HOME).rmdir()
        copy(world / f"device-{number}", place / HOME)

    return prepare


def copy(source: Path, target: Path) -> None:
    """Copy a folder; links stay links, and files that are one stay one."""
    subprocess.run(["cp", "-a", "--", source, target], check=True)


def runs(*bundles: str) -> Callable[[Path], bool]:
    """Whether a device's folder runs one of these bundles, which lie beside it, whole."""

    def check(folder: Path) -> bool:
        from qmdd.runtime.bundle import MANIFEST, Bundle
        from qmdd.runtime.errors import BundleError

        current = folder / "current"
        try:
            found = Bundle.open(current / "bundle")
        except BundleError:
            return False
        known = [(folder.parents[1] / name / MANIFEST).read_bytes() for name in bundles]
        complete = (current / "env" / "complete.json").is_file()
        noted = (current / "deployed.json").is_file()
        return complete and noted and (found.path / MANIFEST).read_bytes() in known

    return check
