"""Some of what asks for memory; `make hostile` tries all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hardening.resources.case import Case, tried
from hardening.resources.every import every_case

#: Those that once broke it, or are near a limit, and are made quickly.
SOME = (
    "20000x1.png",
    "8192x8192.jpg",
    "20000x20000.png, one bit",
    "PNG with 1 GB of zTXt",
    "a GIF frame larger than its canvas",
    "a PPM header of 100 MB",
    "a model of 10^9 operators in 2 kB",
    "a model of 300,000 operators",
    "a model that makes 14 GB of two rows",
    "a model that makes 14 GB of a pixel",
    "a model with weights in another file",
    "a model of 2 GB of constants in half a megabyte",
    "a model of 250 MiB of weights",
    "a model that takes all it may, verify",
    "a model that takes more than it may, verify",
    "a model that takes all it may and has constants, verify",
    "a model that takes all it may and has constants, report",
    "a model that takes all it may and has constants, scan",
    "a model that takes more than it may, bench",
    "a manifest of 1 GB",
    "a manifest of 1,000,000 levels",
    "a checkpoint with a header of 100 MB",
    "a checkpoint with 1.9 GB of weights",
    "a pickle of 10^7 memos",
    "a list of hosts of 1 GB",
    "a folder 800 deep",
)
#: What these end with are commands that import torch.
WITH_TORCH = (", verify", ", report")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {case.name: case for case in every_case(tmp_path_factory.mktemp("bundle"))}


@pytest.mark.parametrize("name", SOME)
def test_it_is_answered_in_a_line_and_within_a_gibibyte(
    cases: dict[str, Case], tmp_path: Path, name: str
) -> None:
    if name.endswith(WITH_TORCH) and torch.version.cuda is not None:
        pytest.skip("torch's CUDA build takes 0.6 GiB more by itself")
    outcome = tried(cases[name], tmp_path)
    assert outcome.faults == [], outcome.said


def test_the_cases_have_names_of_their_own(cases: dict[str, Case], tmp_path: Path) -> None:
    assert len(cases) == len(list(every_case(tmp_path)))
    assert len(cases) > 90


def test_what_is_too_much_is_told(tmp_path: Path) -> None:
    """The scales themselves: a command that answers otherwise than it should is no success."""
    wrong = Case("wrong", lambda _folder: None, ("zoo",), ends=(1,), says="nothing of the kind")
    faults = tried(wrong, tmp_path).faults
    assert faults == ["exit code 0", "does not say 'nothing of the kind'"]
