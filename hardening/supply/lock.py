"""``python -m hardening.supply.lock``: the locks, from ``constraints.txt`` and an index's hashes.

``requirements.lock`` holds every package but torch, ``torch.lock`` that one alone, and
``torch-cpu.lock`` its builds for the CPU, which are tried first: it has builds for each kind of
machine, and whoever needs one that is not listed says so (``make TORCH=...``).
Listed are the wheels for Linux on x86-64 and aarch64 and the Pythons that qmdd claims; a source
distribution, whose build runs code, only where a package has no wheel.
"""

from __future__ import annotations

import hashlib
import json
import re
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
LOCK, TORCH_LOCK = ROOT / "requirements.lock", ROOT / "torch.lock"
CPU_LOCK = ROOT / "torch-cpu.lock"
PYTHONS = ("cp310", "cp311", "cp312", "cp313")

_JSON = "application/vnd.pypi.simple.v1+json"
_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?P<marker>\s*;.*)?")
_HEAD = (
    "# {what}, each file with its SHA-256.\n"
    "# Made from constraints.txt by: python -m hardening.supply.lock\n"
)


class Pin(NamedTuple):
    """A line of ``constraints.txt``: a package, its exact version, and where it holds."""

    name: str
    version: str
    marker: str

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"{self.name}=={self.version}{self.marker}"


def pins(text: str) -> Iterator[Pin]:
    """The lines of a constraints file.

    Raises:
        ValueError: a line that pins no exact version.
    """
    for line in text.splitlines():
        plain = line.partition("#")[0].strip()
        if not plain:
            continue
        found = _PIN.fullmatch(plain)
        if found is None:
            raise ValueError(f"{line!r} pins no exact version")
        yield Pin(found["name"], found["version"], (found["marker"] or "").rstrip())


def wanted(name: str) -> bool:
    """Whether a wheel of this file name runs on a machine that qmdd claims."""
    _, pythons, abi, platforms = name.removesuffix(".whl").rsplit("-", 3)
    python = "py3" in pythons.split(".") or any(
        tag in PYTHONS or (abi == "abi3" and tag.startswith("cp3")) for tag in pythons.split(".")
    )
    return python and (
        platforms == "any"
        or any(
            re.fullmatch(r"(manylinux|linux).*_(x86_64|aarch64)", tag)
            for tag in platforms.split(".")
        )
    )


def hashes(pin: Pin, files: Iterable[dict[str, Any]]) -> list[str]:
    """SHA-256 of the files of that version, of those that an index's answer lists.

    Raises:
        ValueError: there are none.
    """
    version = re.escape(pin.version)
    ours = [file for file in files if re.search(rf"-{version}(\.0)*[-.]", file["filename"])]
    wheels = [file for file in ours if file["filename"].endswith(".whl")]
    chosen = [file for file in wheels if wanted(file["filename"])]
    if not wheels:
        chosen = [file for file in ours if file["filename"].endswith((".tar.gz", ".zip"))]
    if not chosen:
        raise ValueError(f"{pin.requirement}: the index has no file for it")
    return sorted({file["hashes"]["sha256"] for file in chosen})


def entry(pin: Pin, digests: Iterable[str]) -> str:
    """Its lines in a lock."""
    return " \\\n    ".join((pin.requirement, *(f"--hash=sha256:{one}" for one in digests))) + "\n"


def _files_of(index: str, name: str) -> list[dict[str, Any]]:
    plain = re.sub(r"[-_.]+", "-", name).lower()
    request = urllib.request.Request(f"{index}/{plain}/", headers={"Accept": _JSON})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the index asked for
        files: list[dict[str, Any]] = json.load(answer)["files"]
    return files


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--index", default="https://pypi.org/simple", show_default=True, help="Its address.")
@click.option(
    "--torch",
    "builds",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A wheel of torch's CPU build, which is on another index; repeatable.",
)
def main(index: str, builds: tuple[Path, ...]) -> None:
    """Write requirements.lock and torch.lock; with --torch, torch-cpu.lock."""
    if not index.startswith("https://"):
        raise click.UsageError("an index has an address that begins with https://")
    lines, torch, cpu = [], [], []
    for pin in pins(CONSTRAINTS.read_text(encoding="utf-8")):
        digests = hashes(pin, _files_of(index, pin.name))
        if pin.name == "torch":
            torch.append(entry(pin, digests))
            local = pin._replace(version=f"{pin.version}+cpu")
            cpu.append(
                entry(local, (hashlib.sha256(build.read_bytes()).hexdigest() for build in builds))
            )
        else:
            lines.append(entry(pin, digests))
    LOCK.write_text(_HEAD.format(what="All packages but torch") + "".join(lines), encoding="utf-8")
    TORCH_LOCK.write_text(_HEAD.format(what="torch") + "".join(torch), encoding="utf-8")
    if builds:
        head = _HEAD.format(what="torch for the CPU")
        CPU_LOCK.write_text(head + "".join(cpu), encoding="utf-8")


if __name__ == "__main__":
    main()
