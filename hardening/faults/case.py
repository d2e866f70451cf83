"""What a command writes, and when that is old, new or half."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

#: By relative name: what the file holds, as a hash, or ``link:`` and where it leads; folders: "".
Tree = dict[str, str]

#: How the name of a hidden work file or folder, or of one that is put aside, ends.
_HIDDEN = re.compile(r"\..*(\.[0-9a-f]{16}|\.[0-9a-f]{16}\.old|\.part|\.new)|\.inputs|\.engine\..*")


@dataclasses.dataclass(frozen=True)
class Output:
    """A file or folder that a command writes.

    Attributes:
        name: in the command's place.
        whole: whether what lies there is complete, for what is not the same at each run (it holds
            times, say); ``None``: it is the same, byte for byte.
        content: what it holds, where that is the same at each run and the bytes are not.
        between: whether what lies there is a state from which the same command goes on; ``None``:
            there is none such.
    """

    name: str
    whole: Callable[[Path], bool] | None = None
    content: Callable[[Path], object] | None = None
    between: Callable[[Path], bool] | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to run one command.

    Attributes:
        name: the command, and in which way it is run.
        arguments: of the command line; paths are relative to the place.
        needs: names in the world that are copied to the place.
        outputs: what it writes.
        prepare: makes the old state, after the copy.
        once: the same command a second time does something else: it is refused, since its output is
            there, or adds to it.
        environment: variables that are set.
        agent: what runs on the device is killed, not the command here.
    """

    name: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...]
    outputs: tuple[Output, ...]
    prepare: Callable[[Path, Path], None] | None = None
    once: bool = False
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    agent: bool = False

    @property
    def command(self) -> str:
        """The command's name."""
        return self.arguments[0]

    def lay_out(self, world: Path, place: Path) -> None:
        """Make the folder ``place`` with the state before the command."""
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for name in self.needs:
            if (world / name).is_dir():
                shutil.copytree(world / name, place / name, symlinks=True)
            else:
                shutil.copy2(world / name, place / name)
        if self.prepare is not None:
            self.prepare(world, place)


def tree(root: Path) -> Tree:
    """All that lies below ``root``."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = Path(folder, name)
            held = ""
            if path.is_symlink():
                held = f"link:{os.readlink(path)}"
            elif path.is_file():
                held = hashlib.sha256(path.read_bytes()).hexdigest()
            found[path.relative_to(root).as_posix()] = held
    return found


def hidden(found: Tree) -> list[str]:
    """Names of work files and folders in ``found``; not what lies in them."""
    names = [name for name in found if _HIDDEN.fullmatch(name.rpartition("/")[2])]
    return [name for name in names if not any(name.startswith(f"{other}/") for other in names)]


def without(found: Tree, names: list[str]) -> Tree:
    """``found`` without the folders and files ``names``."""
    return {
        key: held
        for key, held in found.items()
        if not any(key == name or key.startswith(f"{name}/") for name in names)
    }


def part(found: Tree, name: str) -> Tree:
    """What of ``found`` is the file or folder ``name``."""
    return {key: held for key, held in found.items() if key == name or key.startswith(f"{name}/")}
