"""Foreign files: what is read, and how everything else is refused, with no code of theirs run."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qmdd.models import CheckpointError
from qmdd.models.foreign import read
from qmdd.models.foreign.read import read_foreign

ZIP = {"_use_new_zipfile_serialization": True}
LEGACY = {"_use_new_zipfile_serialization": False}
BOTH = pytest.mark.parametrize("form", [ZIP, LEGACY], ids=["zip", "legacy"])


def _state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return OrderedDict(
        [
            ("conv1.weight", torch.randn(4, 3, 3, 3, generator=generator)),
            ("bn1.num_batches_tracked", torch.tensor(7)),
            ("fc1.bias", torch.randn(1, generator=generator)),
        ]
    )


def _saved(value: Any, form: dict[str, bool]) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **form)
    return stream.getvalue()


def _refusal(path: Path, data: bytes | None = None) -> str:
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_foreign(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert len(text) < len(str(path)) + 330
    return text


@BOTH
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "best_top1_acc": torch.tensor(70.0), "state_dict": state},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}, "total_steps": 5},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    ],
)
def test_both_serialisations_and_the_usual_wrappers(
    tmp_path: Path, form: dict[str, bool], wrap: Callable[[Any], Any]
) -> None:
    """The same tensors, in the file's order, and the names of what lay beside them."""
    wrapped = wrap(_state())
    (tmp_path / "a.pth").write_bytes(_saved(wrapped, form))
    file = read_foreign(tmp_path / "a.pth")
    assert list(file.tensors) == list(_state())
    for key, tensor in _state().items():
        assert torch.equal(file.tensors[key], tensor)
        assert file.tensors[key].dtype == tensor.dtype
    inner = {"state_dict", "model"}
    beside = [] if "conv1.weight" in wrapped else [key for key in wrapped if key not in inner]
    assert file.beside == beside
    assert file.converted == 0
    assert len(file.sha256) == 64


def test_what_lies_beside_is_named_shortly(tmp_path: Path) -> None:
    """Whatever the keys are: long texts, and numbers of hundreds of digits."""
    beside = {"epoch": 3, "e" * 999: 1, 10**600: 2, "state_dict": _state()}
    (tmp_path / "a.pth").write_bytes(_saved(beside, LEGACY))
    assert read_foreign(tmp_path / "a.pth").beside == ["epoch", "e" * 40 + "...", "(int)"]


def test_module_is_stripped_only_where_all_have_it(tmp_path: Path) -> None:
    """A name under ``module.`` beside one that is not stays what it is, to be refused by name."""
    state = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    (tmp_path / "a.pth").write_bytes(_saved(state, ZIP))
    assert list(read_foreign(tmp_path / "a.pth").tensors) == ["module.a", "b"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_widths_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    """Integers int64; and it is counted. Views are laid out anew."""
    state = {"a": torch.randn(3, 5).to(dtype).t(), "b": torch.tensor([1, 2], dtype=torch.int32)}
    (tmp_path / "a.pth").write_bytes(_saved(state, ZIP))
    file = read_foreign(tmp_path / "a.pth")
    assert (file.tensors["a"].dtype, file.tensors["b"].dtype) == (torch.float32, torch.int64)
    assert torch.equal(file.tensors["a"], state["a"].float())
    assert file.tensors["a"].is_contiguous()
    assert file.converted == 1


class _Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def _pickled(protocol: int) -> Callable[[Any], bytes]:
    return lambda value: pickle.dumps(value, protocol=protocol)


@pytest.mark.parametrize(
    "write",
    [
        lambda value: _saved(value, ZIP),
        lambda value: _saved(value, LEGACY),
        _pickled(2),
        _pickled(4),
    ],
    ids=["zip", "legacy", "pickle2", "pickle4"],
)
@pytest.mark.parametrize("force", [False, True])
def test_no_code_in_a_file_is_ever_run(
    tmp_path: Path,
    write: Callable[[Any], bytes],
    force: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even where the environment asks torch to run it; the file is refused in one line."""
    if force:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark = tmp_path / "run"
    data = write({**_state(), "x": _Evil(mark)})
    assert b"mkdir" in data
    text = _refusal(tmp_path / "a.pth", data)
    assert not mark.exists()
    assert "needs code to be unpickled" in text or "torch.save did not write" in text


def test_the_payload_would_run(tmp_path: Path) -> None:
    """Unpickled as others do it, so that the test above shows something."""
    pickle.loads(pickle.dumps(_Evil(tmp_path / "run")))  # noqa: S301, TID251
    assert (tmp_path / "run").exists()


@BOTH
def test_a_whole_model_is_named_as_code(tmp_path: Path, form: dict[str, bool]) -> None:
    """``torch.save(model)``: the class is named, and what to save in its place."""
    text = _refusal(tmp_path / "a.pth", _saved(torch.nn.Linear(2, 1), form))
    assert "torch.nn.modules.linear.Linear" in text
    assert "save the state_dict() alone" in text


def _torchscript() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"model/{name}", b"")
    return stream.getvalue()


def _compressed(data: bytes) -> bytes:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return stream.getvalue()


def _plain_zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("photo.txt", b"hello")
    return stream.getvalue()


def _safetensors() -> bytes:
    from safetensors.torch import save

    return save({"a": torch.zeros(2)})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a file that torch.save wrote"),
        (b"conv1.weight = 3\n" * 20, "not a file that torch.save wrote"),
        (b"\x80\x02", "damaged"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "damaged"),
        (b"PK\x03\x04" + bytes(100), "not a whole file"),
        (_safetensors(), "a safetensors file"),
        (_torchscript(), "a TorchScript archive, which is code"),
        (_compressed(_saved(_state(), ZIP)), "its entries are compressed"),
        (_plain_zip(), "no data.pkl in it"),
        (_saved(torch.zeros(3), ZIP), "holds one Tensor, not a state dict"),
        (_saved([1, 2], LEGACY), "holds one list, not a state dict"),
        (_saved({}, ZIP), "no state dict in it"),
        (_saved({"state_dict": {}}, ZIP), "no state dict in it"),
        (_saved({3: torch.zeros(1)}, ZIP), "no state dict in it"),
        (_saved({"a": torch.zeros(1), "epoch": 3}, ZIP), "epoch is of type int, not a tensor"),
        (_saved({"a" * 4000: torch.zeros(1)}, ZIP), "a name of 4,000 characters (aaaa"),
        (_saved({"a": torch.zeros(1, dtype=torch.complex64)}, ZIP), "a is no plain tensor"),
        (_saved({"a": torch.zeros(1, dtype=torch.bool)}, ZIP), "a is no plain tensor"),
        (_saved({"a": torch.eye(3).to_sparse()}, ZIP), "a is no plain tensor"),
        (_saved({"a": torch.zeros(3, device="meta")}, ZIP), "a is no plain tensor"),
        (_saved({"a": torch.tensor([0.0, float("nan")])}, ZIP), "(1 of 2 values)"),
        (_saved({"b": torch.tensor([float("-inf")])}, LEGACY), "b holds NaN or infinity"),
        (_saved({"a": torch.tensor([1e300], dtype=torch.float64)}, ZIP), "a holds NaN or inf"),
        (
            _saved({"a": torch.zeros(1).expand(1 << 20, 1 << 20)}, ZIP),
            "claim 1,099,511,627,776 numb",
        ),
        (_saved({"a": torch.zeros(1).expand(1 << 28)}, LEGACY), "claim 268,435,456 numbers"),
    ],
)
def test_what_is_no_whole_state_dict_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    assert says in _refusal(tmp_path / "a.pth", data)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    assert "no such file" in _refusal(tmp_path / "none.pth")
    assert "a folder" in _refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in _refusal(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"")
    assert "cannot be read: Not a directory" in _refusal(tmp_path / "file" / "a.pth")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """A sparse one, that takes no room; and a zip whose entries add up to more than allowed."""
    with (tmp_path / "a.pth").open("wb") as stream:
        stream.truncate(read.MAX_BYTES + 1)
    assert "larger than 320 MiB" in _refusal(tmp_path / "a.pth")


@BOTH
def test_a_limit_on_what_is_in_it(
    tmp_path: Path, form: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAX_ENTRIES", 2)
    text = _refusal(tmp_path / "a.pth", _saved(_state(), form))
    assert "larger than any checkpoint" in text or "more than any network has" in text


@BOTH
def test_every_truncation_is_refused(tmp_path: Path, form: dict[str, bool]) -> None:
    data = _saved(_state(), form)
    for length in range(0, len(data) - 1, 7):
        _refusal(tmp_path / "a.pth", data[:length])


@given(form=st.sampled_from([ZIP, LEGACY]), data=st.data())
def test_damage_never_ends_in_anything_but_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, form: dict[str, bool], data: st.DataObject
) -> None:
    """Some bytes changed: the file is read (where only values changed) or refused in a line."""
    damaged = bytearray(_saved(_state(), form))
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, len(damaged) - 1))
        damaged[where] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.pth"
    path.write_bytes(bytes(damaged))
    found = None
    with contextlib.suppress(CheckpointError):
        found = read_foreign(path)
    if found is not None:
        assert all(bool(torch.isfinite(tensor).all()) for tensor in found.tensors.values())
