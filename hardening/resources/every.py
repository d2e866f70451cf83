"""All cases, and the bundle that they are made from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .bundles import bundle_cases
from .case import Case
from .greedy import greedy_cases
from .images import image_cases
from .others import other_cases


def every_case(folder: Path) -> Iterator[Case]:
    """Every case; a bundle of the built-in checkpoint is made in ``folder`` first."""
    bundle = folder / "built-in"
    export = ("export", "--bits", "2", "--no-verify", "-o", str(bundle))
    subprocess.run(
        [sys.executable, "-m", "qmdd.cli.main", *export],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield from image_cases(bundle)
    yield from bundle_cases(bundle)
    yield from greedy_cases(bundle)
    yield from other_cases(bundle)
