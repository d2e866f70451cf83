"""The files of an arm64 Debian with Python, by this machine's own apt; nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

#: Its Python is 3.11, which requirements.txt is for.
RELEASE = "bookworm"
PACKAGES = ("python3", "libstdc++6", "libgomp1")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Lists, packages and state of its own; signatures are checked as always.
_CONFIG = """\
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "{folder}/none";
Dir::Etc::preferencesparts "{folder}/none";
"""


def why_not() -> str | None:
    """Why this machine cannot make one, or None."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "it takes Debian's packages by apt-get, which is not here"
    if not KEYRING.exists():
        return f"{KEYRING} is missing: apt install debian-archive-keyring"
    if _mirror() is None:
        return "none of the sources that apt is configured with is a mirror of Debian"
    return None


def make_root(place: Path) -> None:
    """Unpack Debian's Python for arm64 into ``place``, whole or not at all."""
    work = place.with_name(f"{place.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    apt, root = work / "apt", work / "root"
    for folder in ("state/lists/partial", "cache/archives/partial", "none"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    source = f"deb [arch=arm64 signed-by={KEYRING}] {_mirror()} {RELEASE} main\n"
    (apt / "sources.list").write_text(source, encoding="utf-8")
    config = apt / "apt.conf"
    config.write_text(_CONFIG.format(folder=apt), encoding="utf-8")
    environment = {**os.environ, "APT_CONFIG": str(config)}
    for line in (("update",), ("install", "--yes", "--download-only", *PACKAGES)):
        subprocess.run(("apt-get", "-qq", *line), env=environment, check=True)
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        subprocess.run(("dpkg-deb", "--extract", str(package), str(root)), check=True)
    shutil.rmtree(place, ignore_errors=True)
    root.rename(place)
    shutil.rmtree(work)


def _mirror() -> str | None:
    """Address of the Debian mirror that this machine's apt uses."""
    line = ("apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT)")
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    for found in done.stdout.splitlines():
        address, _, component = found.partition(" ")
        if component == "main" and address.rstrip("/").endswith("/debian"):
            return address
    return None
