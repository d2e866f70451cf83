"""What the commands leave: no way out, no names of people or places, the user's umask, no links."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hardening.supply import lock, offline

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "exporter" / "samples_data"
#: Words that stand in every place and name that a command could give away.
PERSON, PLACE, SECRET = "jane.roe-somebody", "a-private-place", "s3cr3t-t0k3n"
#: A quick run of each command that works offline, in a folder with ``bundle`` and ``images``.
COMMANDS = {
    "export": "export --bits 2 -o exported --images images",
    "export for Triton": "export --bits 2 --serve triton -o repository --images images",
    "export for an engine": "export --bits 2 --no-verify --target rtx -o for-rtx",
    "export for OpenVINO": "export --bits 2 --target openvino -o for-openvino --images images",
    "verify": "verify bundle --golden --json",
    "detect": "detect bundle images --json",
    "scan": "scan bundle images -o scanned",
    "watch": "watch bundle images -o watched.jsonl --once",
    "report": "report bundle --golden -o report.html",
    "inspect": "inspect bundle --json",
    "estimate": "estimate bundle --target orin-nano --plot estimate.svg",
    "compare": "compare bundle bundle --json",
    "bench": "bench bundle --seconds 0.2 --no-twin --json",
    "stats": "stats --bits 2",
    "targets": "targets orin-nano",
    "zoo": "zoo",
    "doctor": "doctor",
}
#: Matplotlib keeps its list of fonts there: its own way, and of no harm.
OWN_PLACES = (".cache/matplotlib", ".config/matplotlib")
#: What names the inputs of a scan, so that it can go on: no part of what is passed on.
RECORDS = ("scanned/",)
#: They exit with 1 where something is not as it should be, which is no fault here.
MAY_FAIL = {"doctor"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of somebody's, with a bundle and images in it."""
    folder = tmp_path_factory.mktemp("trust") / PLACE
    (folder / "images").mkdir(parents=True)
    for path in sorted(SAMPLES.glob("*.webp"))[:2]:
        shutil.copy(path, folder / "images")
    (folder / PERSON).mkdir()
    _run(folder, "export --bits 2 --no-verify -o bundle")
    return folder


def _run(
    folder: Path, command: str, *, before: tuple[str, ...] = (), umask: int = 0o022
) -> subprocess.CompletedProcess[str]:
    """Run ``qmdd`` there, as somebody with a name, a home, a host and a secret."""
    environment = {
        **os.environ,
        "HOME": str(folder / PERSON),
        "USER": PERSON,
        "LOGNAME": PERSON,
        "TMPDIR": str(folder / PERSON),
        "API_TOKEN": SECRET,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [*before, sys.executable, "-m", "qmdd.cli.main", *command.split()],
        cwd=folder,
        env=environment,
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not offline.available(), reason="needs Linux's seccomp on x86-64 or aarch64")
def test_the_way_out_is_closed() -> None:
    """The trap that the next test relies on shuts, and lets through what stays on this machine."""
    trap = [sys.executable, "-m", "hardening.supply.offline", sys.executable, "-c"]
    for family, ends in (("AF_UNIX", 0), ("AF_INET", -31), ("AF_INET6", -31)):
        done = subprocess.run(
            [*trap, f"import socket; socket.socket(socket.{family})"], cwd=ROOT, check=False
        )
        assert done.returncode == ends, family


@pytest.mark.skipif(not offline.available(), reason="needs Linux's seccomp on x86-64 or aarch64")
@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_opens_a_way_out_or_names_a_person(place: Path, name: str) -> None:
    """One run for both, each takes seconds: what it leaves and says is looked through."""
    before = set(place.rglob("*"))
    trap = (sys.executable, "-m", "hardening.supply.offline")
    done = _run(place, COMMANDS[name], before=trap)
    assert done.returncode in ((0, 1) if name in MAY_FAIL else (0,)), done.stderr
    host = socket.gethostname()
    words = [PERSON, SECRET, *([host] if len(host) > 4 else [])]
    # What doctor says is about this very machine, for the person who sits at it.
    if name not in MAY_FAIL:
        words.append(PLACE)
        assert not [word for word in words if word in done.stdout + done.stderr]
    assert SECRET not in done.stdout + done.stderr
    left = [path for path in place.rglob("*") if path.is_file() and path not in before]
    for path in left:
        data, where = path.read_bytes(), str(path.relative_to(place))
        if not where.startswith((*RECORDS, *(f"{PERSON}/{own}" for own in OWN_PLACES))):
            assert not [word for word in words if word.encode() in data], path
    home = place / PERSON
    others = [path for path in home.rglob("*") if path.is_file()]
    assert not [path for path in others if not str(path.relative_to(home)).startswith(OWN_PLACES)]
    assert not [path for path in home.iterdir() if path.name not in (".cache", ".config")]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_are_written_with_the_users_umask(place: Path, tmp_path: Path, umask: int) -> None:
    for command in (
        f"export --bits 2 --no-verify -o {tmp_path}/new/bundle",
        f"report bundle --golden -o {tmp_path}/report.html",
        f"scan bundle images -o {tmp_path}/scanned",
        f"watch bundle images -o {tmp_path}/watched.jsonl --once",
        f"estimate bundle --target orin-nano --plot {tmp_path}/estimate.png",
    ):
        done = _run(place, command, umask=umask)
        assert done.returncode == 0, done.stderr
    found = list(tmp_path.rglob("*"))
    assert len(found) > 10
    for path in found:
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_what_others_have_put_there_is_not_followed(place: Path, tmp_path: Path) -> None:
    """Links under the names that are written replace nothing elsewhere: neither file nor folder."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("precious")
    shared = tmp_path / "shared"
    shared.mkdir()
    for name in ("report.html", "watched.jsonl", "estimate.svg"):
        (shared / name).symlink_to(victim / "file")
    for name in ("bundle", "scanned"):
        (shared / name).symlink_to(victim)
    for command in (
        f"export --bits 2 --no-verify --force -o {shared}/bundle",
        f"report bundle --golden --force -o {shared}/report.html",
        f"scan bundle images --force -o {shared}/scanned",
        f"watch bundle images -o {shared}/watched.jsonl --once",
        f"estimate bundle --target orin-nano --plot {shared}/estimate.svg",
    ):
        done = _run(place, command)
        assert len(done.stderr.splitlines()) <= 4, done.stderr
        assert "Traceback" not in done.stderr
        assert sorted(os.listdir(victim)) == ["file"], command
        assert (victim / "file").read_text() == "precious", command


def test_no_path_of_the_makers_is_in_what_is_shipped() -> None:
    """Nothing in the tree names a home folder of somebody's."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    ).stdout
    names = [ROOT / os.fsdecode(name) for name in listed.split(b"\0") if name]
    if not names:
        pytest.skip("not a git checkout")
    home = re.compile(rb"/(?:home|Users)/(?!ours\b|theirs\b|qmdd\b|edge\b|user\b|you\b)[a-z]\w+/")
    found = {
        str(path.relative_to(ROOT)): home.search(data)[0]  # type: ignore[index]
        for path in names
        if path.is_file()
        and "tests" not in path.relative_to(ROOT).parts  # people who are made up
        and home.search(data := path.read_bytes())
    }
    assert found == {}


def test_every_pin_is_in_a_lock_with_its_hashes() -> None:
    """What was changed in ``constraints.txt`` alone would be installed as it was."""
    pinned = {pin.requirement for pin in lock.pins(lock.CONSTRAINTS.read_text(encoding="utf-8"))}
    entries = lock.LOCK.read_text() + lock.TORCH_LOCK.read_text()
    held = re.findall(r"^([^#\s].*?) \\\n    --hash=sha256:[0-9a-f]{64}", entries, re.MULTILINE)
    assert set(held) == pinned
    (torch,) = (name for name in held if name.startswith("torch=="))
    assert lock.CPU_LOCK.read_text().splitlines()[2] == f"{torch}+cpu \\"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_cpu_build_is_tried_first_unless_another_is_asked_for() -> None:
    """Of two files in one lock pip takes the one whose hash an index states: the CUDA build."""

    def installed(*more: str) -> str:
        command = ["make", "-n", "-B", "env", "VENV=nowhere", *more]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    asked = installed()
    first, second = (asked.index(f"requirement {name}.lock") for name in ("torch-cpu", "torch"))
    assert "||" in asked[first:second]
    other = installed("TORCH=torch==2.13.0")
    assert "--no-deps torch==2.13.0" in other
    assert "torch.lock" not in other
