"""The native operators under libFuzzer, with the address and undefined-behaviour sanitizers.

    python -m hardening.edges.native_fuzz --runs 200000 --record hardening/results/native_fuzz.json

Every kernel that this processor can run is compared with the definition (runtime/native/conv.h) or
with the scalar kernel: odd shapes, halos and alignments, thresholds at the infinities, NaN,
subnormal numbers, zeros of both signs. Models whose attributes, constants and inputs lie are given
to the operators themselves. It needs Clang with its runtime (Debian: clang, libclang-rt-14-dev). A
run that is interrupted goes on where it was (``--rows``). The exit code is 1 if something was
found; what it was lies in the folder of the build, as ``crash-*``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from qmdd.cli.output import progress

from .record import Rows, write_record

SOURCE = Path(__file__).parent / "native"
#: Inputs that reach what is known to be reachable, and those that once broke something.
SEEDS, FOUND = SOURCE / "seeds.txt", SOURCE / "found.txt"
#: Longest input, bytes: what comes after the attributes a generator draws.
LONGEST = 256
#: Runs after which a row is kept.
SLICE = 5000
_LIMITS = ("-rss_limit_mb=1024", "-timeout=60", f"-max_len={LONGEST}", "-print_final_stats=1")


class FuzzError(Exception):
    """The fuzzer cannot be built or run; the text says what to do."""


class Run(NamedTuple):
    """What a run of the fuzzer did.

    Attributes:
        executions: inputs that were tried.
        edges: of the program that some input has reached so far.
        found: its account of what broke, empty if nothing did.
    """

    executions: int
    edges: int
    found: str


def compiler() -> str | None:
    """Clang, if it is here with libFuzzer and the sanitizers."""
    path = next(filter(None, map(shutil.which, ("clang++", "clang++-14", "clang++-16"))), None)
    if path is None:
        return None
    runtimes = subprocess.run(
        [path, "-print-runtime-dir"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return path if any(Path(runtimes).glob("libclang_rt.fuzzer*.a")) else None


def build(folder: Path) -> Path:
    """Build the fuzzer in ``folder`` and return it.

    Raises:
        FuzzError: Clang or CMake is missing, or it does not compile.
    """
    clang = compiler()
    cmake = shutil.which("cmake") or shutil.which("cmake", path=str(Path(sys.executable).parent))
    if clang is None or cmake is None:
        raise FuzzError("needs CMake and Clang with libFuzzer: apt-get install clang, and make env")
    for arguments in (
        ["-S", str(SOURCE), "-B", str(folder), f"-DCMAKE_CXX_COMPILER={clang}"],
        ["--build", str(folder), "--target", "native_fuzz", "--parallel", "2"],
    ):
        done = subprocess.run([cmake, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise FuzzError(f"cmake {' '.join(arguments)}: {(done.stderr or done.stdout).strip()}")
    return folder / "native_fuzz"


def kept_inputs(path: Path) -> list[bytes]:
    """Inputs of a file with one a line, hexadecimal; what follows ``#`` is said about it."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [bytes.fromhex(text) for line in lines if (text := line.partition("#")[0].strip())]


def lay_out(inputs: list[bytes], corpus: Path) -> None:
    """Write inputs as the files that libFuzzer reads."""
    corpus.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(inputs):
        (corpus / f"kept-{index:04}").write_bytes(data)


def run(binary: Path, corpus: Path, runs: int, seed: int = 1) -> Run:
    """Try the inputs of ``corpus`` and ``runs`` more that are made from them; new ones stay there.

    Raises:
        FuzzError: it says nothing that can be understood.
    """
    done = subprocess.run(
        [str(binary), f"-runs={runs}", f"-seed={seed}", *_LIMITS, str(corpus)],
        cwd=binary.parent, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    said = done.stderr
    edges = re.findall(r"\bcov: (\d+)", said)
    executed = re.findall(r"stat::number_of_executed_units:\s+(\d+)", said)
    if not done.returncode and not executed:
        raise FuzzError(f"{binary}: {said[-500:]}")
    return Run(
        int(executed[-1]) if executed else 0,
        int(edges[-1]) if edges else 0,
        _account(said) if done.returncode else "",
    )


def _account(said: str) -> str:
    """The lines that say what broke."""
    telling = re.compile(r"ERROR|runtime error|SUMMARY|native_fuzz:|Test unit|^    #\d+ ")
    return "\n".join(line for line in said.splitlines() if telling.search(line))[:4000]


def smallest(binary: Path, corpus: Path, merged: Path) -> list[bytes]:
    """The inputs of ``corpus`` that together reach all that it reaches, the shortest first."""
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    subprocess.run(
        [str(binary), "-merge=1", *_LIMITS, str(merged), str(corpus)],
        cwd=binary.parent, capture_output=True, check=False,
    )  # fmt: skip
    found = [path.read_bytes() for path in merged.iterdir()]
    return sorted(found, key=lambda data: (len(data), data))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hardening.edges.native_fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=200_000, help="inputs to try (%(default)s)")
    parser.add_argument("--seconds", type=int, help="stop after so many")
    parser.add_argument("--build", type=Path, default=Path("build/native_fuzz"),
                        help="folder of the build (%(default)s)")  # fmt: skip
    parser.add_argument("--rows", type=Path, default=Path("runs/native_fuzz.jsonl"),
                        help="what is done already (%(default)s)")  # fmt: skip
    parser.add_argument("--keep", action="store_true",
                        help=f"keep the inputs that reach most in {SEEDS.name}")  # fmt: skip
    parser.add_argument("--record", type=Path, help="write the result to this file")
    return parser


def _slices(arguments: argparse.Namespace, binary: Path, rows: Rows) -> None:
    """Run until all is done, something is found or time is up; a row for each slice."""
    corpus = arguments.build / "corpus"
    lay_out(kept_inputs(SEEDS) + kept_inputs(FOUND), corpus)
    ends = time.monotonic() + (arguments.seconds or float("inf"))
    with progress() as report:
        while not any(row["found"] for row in rows.rows) and time.monotonic() < ends:
            done = sum(row["executions"] for row in rows.rows)
            report("executions", done, arguments.runs)
            if done >= arguments.runs:
                return
            started = time.perf_counter()
            found = run(binary, corpus, min(SLICE, arguments.runs - done), len(rows.rows) + 1)
            seconds = round(time.perf_counter() - started)
            rows.add({**found._asdict(), "seconds": seconds})


def main(argv: list[str] | None = None) -> int:
    """Fuzz; the exit code."""
    arguments = _parser().parse_args(argv)
    arguments.build = arguments.build.resolve()
    try:
        binary = build(arguments.build)
        rows = Rows(arguments.rows)
        _slices(arguments, binary, rows)
    except FuzzError as error:
        sys.stderr.write(f"native_fuzz: {error}\n")
        return 1
    if arguments.keep:
        kept = smallest(binary, arguments.build / "corpus", arguments.build / "merged")
        SEEDS.write_text("".join(f"{data.hex()}\n" for data in kept), encoding="ascii")
    result = _result(rows)
    if arguments.record is not None:
        write_record(arguments.record, result, ())
    sys.stdout.write(f"{result['executions']} executions, {len(result['found'])} findings\n")
    return 1 if result["found"] else 0


def _result(rows: Rows) -> dict[str, Any]:
    from qmdd.runtime import native

    clang = subprocess.run(
        [str(compiler()), "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]
    return {
        "compiler": clang,
        "sanitizers": "address, undefined behaviour; a page behind the codes that cannot be read",
        "kernels": list(native.kernels()) if native.library_path() else [],
        "executions": sum(row["executions"] for row in rows.rows),
        "edges": max((row["edges"] for row in rows.rows), default=0),
        "seconds": sum(row["seconds"] for row in rows.rows),
        "found": [row["found"] for row in rows.rows if row["found"]],
    }


if __name__ == "__main__":
    raise SystemExit(main())
