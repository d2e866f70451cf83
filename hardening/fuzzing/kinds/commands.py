"""The command line itself: whatever a file holds, one line and exit code 1 or 2, no traceback."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ..kind import Kind, NotRight, Reader
from ..mutators.archives import mutate_archive
from ..mutators.json_text import mutate_json, mutate_json_lines
from ..mutators.media import mutate_media
from ..mutators.protobuf import mutate_protobuf
from ..mutators.tensors import mutate_safetensors
from ..mutators.words import mutate_words
from ..workshop import ENGINE_FOLDER, Workshop
from .bundles import copy_of
from .configuration import _HOSTS
from .records import _bench_seeds, _journals, _scan_seeds

#: Name of a case's command: the file that is changed (in the bundle ``B``, or beside it), the
#: words, and what changes it. ``F`` is the file.
_COMMANDS: dict[str, tuple[str, str, Callable[..., bytes]]] = {
    "detect": ("f.png", "detect B F --threads 1", mutate_media),
    "detect-json": ("f.jpg", "detect B F --json --threads 1", mutate_media),
    "detect-manifest": ("B/manifest.json", "detect B P --threads 1", mutate_json),
    "detect-model": ("B/model.onnx", "detect B P --threads 1", mutate_protobuf),
    "verify-manifest": ("B/manifest.json", "verify B --golden --threads 1", mutate_json),
    "verify-golden": ("B/parity/golden.safetensors", "verify B --golden", mutate_safetensors),
    "inspect": ("B/manifest.json", "inspect B", mutate_json),
    "inspect-json": ("B/manifest.json", "inspect B --json", mutate_json),
    "inspect-layers": (f"B/{ENGINE_FOLDER}/layers.json", "inspect B", mutate_json),
    "compare": ("B/manifest.json", "compare B O", mutate_json),
    "stats": ("B/manifest.json", "stats --bundle B", mutate_json),
    "estimate": ("B/manifest.json", "estimate B --target orin-nano", mutate_json),
    "deploy": ("f.txt", "deploy B --hosts F --dry-run", mutate_words),
    "deploy-manifest": ("B/manifest.json", "deploy B user@device --dry-run", mutate_json),
    "stats-json": ("B/manifest.json", "stats --bundle B --json", mutate_json),
    "import": ("f.pth", "import F -o out.safetensors --force", mutate_archive),
    "freeze": ("f.safetensors", "freeze F -o out.safetensors --force", mutate_safetensors),
    "bench-json": ("f.json", "report B --golden --bench-json F -o out.html --force", mutate_json),
    "watch": ("f.jsonl", "watch B W -o F --once --settle 0 --threads 1", mutate_json_lines),
    "scan": ("R/scan.json", "scan B P -o R --threads 1", mutate_json),
}


def _seeds(workshop: Workshop) -> list[bytes]:
    held = {
        "detect": workshop.picture("PNG").read_bytes(),
        "detect-json": workshop.picture("JPEG").read_bytes(),
        "deploy": _HOSTS,
        "import": workshop.foreign("npr").read_bytes(),
        "freeze": workshop.checkpoint("latent").read_bytes(),
        "bench-json": _bench_seeds(workshop)[0],
        "watch": _journals(workshop)[0],
        "scan": _scan_seeds(workshop)[0],
    }
    return [
        name.encode() + b"\n" + (held.get(name) or workshop.file(file.removeprefix("B/")))
        for name, (file, _, _) in _COMMANDS.items()
    ]


def _mutate(rng: random.Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    name, _, rest = data.partition(b"\n")
    return name + b"\n" + _COMMANDS[name.decode()][2](rng, rest, ())


def _read(workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.cli.main import cli

    bundle = copy_of(workshop.bundle, scratch / "bundle")
    picture = scratch / "picture.png"
    picture.write_bytes(workshop.picture("PNG").read_bytes())
    (scratch / "watched").mkdir()

    def run(words: list[str]) -> tuple[object, str]:
        out, said = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
        code: object = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            try:
                cli.main(words, prog_name="qmdd")
            except SystemExit as end:
                code = end.code
        said.seek(0)
        return code, said.read()

    def read(data: bytes) -> None:
        name, _, held = data.partition(b"\n")
        file, words, _ = _COMMANDS[name.decode()]
        results = scratch / "results"
        results.mkdir(exist_ok=True)
        place = {"B": bundle, "R": results}.get(file.partition("/")[0])
        path = place / file[2:] if place else scratch / file
        path.write_bytes(held)
        letters = {
            "B": bundle, "F": path, "P": picture, "O": workshop.bundle, "R": results,
            "W": scratch / "watched", "out.safetensors": scratch / "out.safetensors",
            "out.html": scratch / "out.html",
        }  # fmt: skip
        try:
            code, said = run([str(letters.get(word, word)) for word in words.split()])
        finally:
            if place == bundle:
                path.write_bytes(workshop.file(file[2:]))
            shutil.rmtree(results, ignore_errors=True)
        if name != b"detect-json":  # its errors stand in the result
            _check(code, said)

    return read


def _check(code: object, said: str) -> None:
    """Raises :class:`OSError` for a refusal that is as it should be."""
    lines = said.splitlines()
    if code not in (0, 1, 2) or "Traceback" in said or "unexpected" in said:
        raise NotRight(f"exit code {code}: {said[-1500:]}")
    if code == 1 and not any(line.startswith("qmdd: ") for line in lines):
        raise NotRight(f"exit code 1, and no line that says why: {said[-500:]}")
    if any(len(line) > 8000 or not line.isprintable() for line in lines):
        raise NotRight(f"a line of {max(map(len, lines))} characters, or with control characters")
    if code:
        raise OSError(lines[-1] if lines else "refused")


KINDS = (
    Kind(
        "command",
        "files of all kinds through the real command line, in one process",
        _seeds,
        _read,
        (_mutate,),
        seconds=60,
        cases=5_000,
    ),
)
