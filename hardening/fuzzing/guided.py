"""The same, guided by coverage: what reaches new lines of Python is changed further (atheris).

``python -m hardening.fuzzing.guided WORK KIND SEED COUNT``. Two thirds of the changes are the
kind's own mutators', the others libFuzzer's.
"""

from __future__ import annotations

import importlib
import random
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .worker import board_path, prepare, scratch_folder, try_one

#: Longest input.
_MOST = 1 << 18


def available() -> bool:
    """Whether atheris is installed."""
    return find_spec("atheris") is not None


def main(words: list[str]) -> None:
    """Try about ``COUNT`` inputs; libFuzzer ends the process."""
    atheris: Any = importlib.import_module("atheris")
    prepare()
    with atheris.instrument_imports(include=list(_guided(words[1]))):
        from .board import Board
        from .kind import changed
        from .kinds import KINDS
        from .outcome import judge
        from .workshop import Workshop

        work, kind = Path(words[0]), KINDS[words[1]]
        workshop = Workshop(work)
        seeds = kind.seeds(workshop)
        scratch = scratch_folder()
        read = kind.reader(workshop, Path(scratch.name))
        for data in seeds:  # what is imported late
            judge(read, data)
    board = Board(board_path(work, kind.name))
    corpus = work / "corpus" / kind.name
    if not corpus.exists():
        corpus.mkdir(parents=True)
        for number, data in enumerate(seeds):
            (corpus / f"seed-{number}").write_bytes(data)

    def one(data: bytes) -> None:
        try_one(work, kind, read, board, data)

    def change(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 1 / 3:
            return bytes(atheris.Mutate(data, most))[:most]
        # From a valid input as often as from what led somewhere new, which is mostly broken.
        start = data if rng.random() < 0.5 else rng.choice(seeds)
        return changed(kind, rng, start, seeds)[:most]

    options = [
        f"-runs={words[3]}",
        f"-seed={int(words[2]) % (1 << 31) or 1}",
        f"-max_len={_MOST}",
        f"-timeout={int(kind.seconds)}",
        "-rss_limit_mb=0",
        "-print_final_stats=1",
        f"-artifact_prefix={work}/",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=change)
    atheris.Fuzz()


def _guided(name: str) -> tuple[str, ...]:
    from .kinds import KINDS

    return KINDS[name].guided


if __name__ == "__main__":
    main(sys.argv[1:])
