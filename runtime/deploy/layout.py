"""How a device's folder is laid out, and the programs that run there.

::

    qmdd/
        current -> releases/<id>      what runs; replaced in one step
        releases/<id>/bundle/         one deployment's bundle
        releases/<id>/env -> ../../envs/<key>
        releases/<id>/report.json     what was found when it was deployed
        releases/<id>/deployed.json   written last: only a release that has it is ever switched to
        envs/<key>/                   Python environments, one for each set of wheels
        objects/<sha256>              files by their hash; releases are links to them
        gone/                         what is being removed

Every command that runs on the device is made here, for the real run and for ``--dry-run`` alike.
"""

from __future__ import annotations

import dataclasses
import posixpath

#: Kept of a new environment's scripts: the others hold the folder's name in a line for a shell,
#: which a name with quotes or ``$()`` in it would turn into something else.
KEPT_SCRIPTS = ("python",)
#: The environment's own command; nothing in it names a folder.
LAUNCHER = """#!/bin/sh
here=$(dirname -- "$(readlink -f -- "$0")") && exec "$here/python" -I -m qmdd.cli.main "$@"
"""
COMPLETE = "complete.json"
#: No question is asked where nobody can answer.
QUIET = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONNOUSERSITE": "1"}


@dataclasses.dataclass(frozen=True)
class Layout:
    """The device's folder ``root``, a release in it, and the environment for that.

    Attributes:
        root: absolute, on the device (in a dry run as the user wrote it).
        release: its id.
        environment: its key.
    """

    root: str
    release: str
    environment: str

    @property
    def bundle(self) -> str:
        """The release's bundle."""
        return posixpath.join(self.root, "releases", self.release, "bundle")

    @property
    def env(self) -> str:
        """The environment's folder."""
        return posixpath.join(self.root, "envs", self.environment)

    @property
    def wheels(self) -> str:
        """Where the environment's wheels lie while it is made."""
        return posixpath.join(self.root, "envs", f"{self.environment}.wheels")

    @property
    def python(self) -> str:
        """The environment's interpreter."""
        return posixpath.join(self.env, "bin", "python")

    def make_env(self, python: str, *, system_packages: bool) -> list[str]:
        """Make the environment; TensorRT on a Jetson is seen through the system's packages."""
        more = ["--system-site-packages"] if system_packages else []
        return [python, "-I", "-m", "venv", *more, "--", self.env]

    def install(
        self, wheel: str, extras: tuple[str, ...], *, index: bool, constraints: bool
    ) -> list[str]:
        """Install qmdd's wheel and what its extras ask for; to be run in the folder of wheels.

        pip reads a requirement's text: no folder's name is in it.

        Args:
            wheel: file name of qmdd's wheel.
            extras: of qmdd.
            index: whether the device's package index may be asked.
            constraints: whether ``constraints.txt`` lies beside the wheels.
        """
        where = [] if index else ["--no-index"]
        pinned = ["--constraint", posixpath.join(self.wheels, "constraints.txt")]
        return [
            *(self.python, "-I", "-m", "pip", "install", "--no-cache-dir", "--progress-bar=off"),
            *where,
            *("--find-links", self.wheels),
            *(pinned if constraints else ()),
            *("--", f"./{wheel}[{','.join(extras)}]"),
        ]

    def qmdd(self, *arguments: str) -> list[str]:
        """A command of qmdd in the environment."""
        return [self.python, "-I", "-m", "qmdd.cli.main", *arguments]

    def build(self, side: str | None = None, batch: str | None = None) -> list[str]:
        """Build the engine of the release's bundle, for such images or for the default ones."""
        sizes = (("--side", side), ("--batch", batch))
        asked = [word for name, size in sizes if size for word in (name, size)]
        return self.qmdd("build", *asked, "--json", "--", self.bundle)

    def verify(self, runtime: str | None = None) -> list[str]:
        """Compare with the bundle's own golden results, by ``runtime`` or the bundle's own."""
        chosen = ("--runtime", runtime) if runtime else ()
        return self.qmdd("verify", "--golden", *chosen, "--json", "--", self.bundle)

    def bench(self, seconds: float, runtime: str | None = None) -> list[str]:
        """Measure the bundle's speed for ``seconds``."""
        chosen = ("--runtime", runtime) if runtime else ()
        return self.qmdd(
            *("bench", "--no-twin", "--batch", "1", "--seconds", f"{seconds:g}", *chosen),
            *("--json", "--", self.bundle),
        )
