"""A pickle of many steps is refused before it is unpickled; honest ones are not."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from qmdd.models import CheckpointError
from qmdd.models.foreign import steps
from qmdd.models.foreign.read import read_foreign
from qmdd.models.foreign.steps import check_steps

_LONG = b"\x80\x02" + b"]q\x00" * 300 + b"."


def _zip(*pickles: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for number, pickled in enumerate(pickles):
            archive.writestr(f"archive{number}/data.pkl", pickled)
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "zipped"),
    [
        (_LONG, False),
        (pickle.dumps(1) * 4 + _LONG, False),
        (_zip(_LONG), True),
        (_zip(_LONG[:450] + b".", _LONG[:450] + b"."), True),  # together
    ],
)
def test_more_steps_than_a_checkpoint_takes_are_refused(
    monkeypatch: pytest.MonkeyPatch, data: bytes, zipped: bool
) -> None:
    monkeypatch.setattr(steps, "MAX_STEPS", 290)
    with pytest.raises(CheckpointError, match=r"a\.pth: takes more than 290 steps"):
        check_steps(Path("a.pth"), io.BytesIO(data), zipped)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 90, pickle.dumps([1, 2]), _LONG[:-1]])
def test_what_is_damaged_is_left_to_the_unpickler(data: bytes) -> None:
    stream = io.BytesIO(data)
    check_steps(Path("a.pth"), stream, zipped=False)
    assert stream.tell() == 0


@pytest.mark.parametrize("new", [True, False])
def test_a_network_s_checkpoint_takes_few(tmp_path: Path, new: bool) -> None:
    state = {f"layers.{i}.weight": torch.ones(3) for i in range(400)}
    path = tmp_path / "a.pth"
    torch.save(state, path, _use_new_zipfile_serialization=new)
    assert len(read_foreign(path).tensors) == 400


def test_many_steps_are_refused_through_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"\x80\x02" + b"0N" * steps.MAX_STEPS + b".")
    with pytest.raises(CheckpointError, match="takes more than 1,000,000 steps"):
        read_foreign(path)
