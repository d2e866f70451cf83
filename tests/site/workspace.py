"""A folder in which the documentation's commands find what they speak of.

It looks like a clone of the repository after a first export, beside a few tiny images, checkpoints
and bundles under the names that the pages use. ``qmdd`` in it is the real one; what takes hours on
real data is cut short by an option, and what the pages export may take the place of what lies
there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from .blocks import clone

#: Added to commands: a tiny network for an epoch, a second of measuring, no question of "exists".
SHORTER = {
    "train": "--epochs 1 --width 0.125",
    "bench": "--seconds 1 --threads 1 --batch 1",
    "export": "--force",
    "calibrate": "--force",
    "freeze": "--force",
}
#: Commands that compare on images: on tiny ones, unless the page names some.
COMPARE = ("export", "verify")
#: A network of our layers, for ``--module package.module:factory``.
MODULE = """\
import torch
from torch import Tensor, nn
from qmdd.models import CQB, Head, Stem


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer = Stem(8), CQB(8, 8, 3, bits=2)
        self.head = Head(8, quantized=True)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.layer(self.stem(image)))


def factory() -> Network:
    torch.manual_seed(0)
    return Network()
"""


class Workspace:
    """The folder, and how commands are run in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, command: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run a shell script that ends at its first failure, the workspace's own ``qmdd`` first."""
        path = os.pathsep.join([str(self.root / ".venv/bin"), os.environ.get("PATH", "")])
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.root,
            env={**os.environ, "PATH": path, "COLUMNS": "200", "HOME": str(self.root)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def copy(self, root: Path) -> Workspace:
        """The same once more, for a page that may write what it wants."""
        shutil.copytree(self.root, root, symlinks=True)
        return Workspace(root)


def make_workspace(root: Path, make_video: Callable[..., Path]) -> Workspace:
    """Everything that the pages' commands start from."""
    root.mkdir()
    for path in clone():
        (root / path.name).symlink_to(path)
    _environment(root / ".venv")
    _images(root, make_video)
    (root / "package").mkdir()
    (root / "package/module.py").write_text(MODULE, encoding="utf-8")
    space = Workspace(root)
    made = space.run(
        """
        qmdd export --bits 2 --target cpu -o bundle
        qmdd export --bits 2 -o out/resnet23-w2a2-onnx
        qmdd export --bits 3 --target cpu -o bundle-3bit
        cp -r bundle bundle-2bit
        qmdd train --data images/train --bits 2 --out runs/mine
        qmdd train --data images/train --bits 32 --out runs/full
        """
    )
    assert made.returncode == 0, made.stderr
    return space


def _environment(venv: Path) -> None:
    """The environment that the tests run in, but for ``qmdd``: that is a script with SHORTER."""
    real = Path(sys.prefix)
    (venv / "bin").mkdir(parents=True)
    for entry in real.iterdir():
        if entry.name != "bin":
            (venv / entry.name).symlink_to(entry)
    for entry in (real / "bin").iterdir():
        if entry.name != "qmdd":
            (venv / "bin" / entry.name).symlink_to(entry)
    cases = "\n".join(f'{name}) set -- "$@" {more};;' for name, more in SHORTER.items())
    compared = "|".join(f'"{name} "*' for name in COMPARE)
    script = f"""#!/bin/sh
case "$*" in *--help*|*--golden*|*--serve*) exec {real}/bin/qmdd "$@";; esac
case "$1 $*" in
  *--images*) ;;
  {compared}) set -- "$@" --images photos;;
esac
case "$1" in
{cases}
esac
exec {real}/bin/qmdd "$@"
"""
    (venv / "bin/qmdd").write_text(script, encoding="utf-8")
    (venv / "bin/qmdd").chmod(0o755)
    (venv / ".installed").touch()


def _images(root: Path, make_video: Callable[..., Path]) -> None:
    """Tiny photos and data sets: fakes are upsampled, every pixel doubled."""
    rng = np.random.default_rng(7)
    for split in ("train", "val", "test"):
        for generator in ("rdn_nearest", "dcgan_face"):
            for name in ("0_real", "1_fake"):
                folder = root / "images" / split / generator / name
                folder.mkdir(parents=True)
                for index in range(4):
                    _photo(rng, fake=name == "1_fake").save(folder / f"{index}.png")
    for folder in ("photos", "more/deep"):
        (root / folder).mkdir(parents=True)
        _photo(rng, fake=False).save(root / folder / "a.jpg", quality=95)
        _photo(rng, fake=True).save(root / folder / "b.png")
    _photo(rng, fake=False).save(root / "photo.jpg", quality=95)
    make_video(root / "clip.mp4", [40, 90, 140, 190, 240, 60], codec="mjpeg")


def _photo(rng: np.random.Generator, *, fake: bool) -> Image.Image:
    """64x64: smooth colours with grain; of a fake each pixel stands for four."""
    side = 32 if fake else 64
    coarse = rng.integers(0, 256, (8, 8, 3)).astype(np.float64).repeat(side // 8, 0)
    grain = coarse.repeat(side // 8, 1) + rng.normal(0, 12, (side, side, 3))
    pixels = np.clip(grain, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels.repeat(64 // side, 0).repeat(64 // side, 1))
