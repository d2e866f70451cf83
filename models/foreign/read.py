"""A ``.pth`` or ``.pth.tar`` file to its tensors; nothing in it is ever run.

``torch.save`` writes pickles, and unpickling calls whatever a pickle names. ``torch.load`` with
``weights_only=True`` has an unpickler of its own that builds tensors, numbers, texts, lists and
dictionaries and refuses every other name. What it leaves to its caller is looked at here: how large
a file is, how many steps it takes (:mod:`.steps`), how large a zip says its entries are, how many
numbers a tensor claims to have (a stride of zero makes any number of a single one).
"""

from __future__ import annotations

import os
import pickle
import re
import stat
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from ..bounded import MAX_BYTES, not_finite, sha256_of
from ..errors import CheckpointError
from .steps import check_steps

#: More entries of a zip, or tensors, than any checkpoint of a network has.
MAX_ENTRIES = 20_000
#: Longest name of a tensor.
MAX_NAME = 120
#: So many numbers a file may claim beyond two for each of its bytes.
_SPARE = 1 << 22
#: Under these names a training script keeps the weights beside other things.
WRAPPERS = ("state_dict", "model", "model_state_dict")
#: What ``torch.nn.DataParallel`` puts before every name.
PARALLEL = "module."
_ZIP, _LEGACY = b"PK\x03\x04", b"\x80"
_AGAIN = "copy or download it again"
#: What torch's unpickler says of a name or an object that it will not call.
_NAMED = re.compile(r"GLOBAL (\S+)")
_CALLS = ("unrecognized function", "Can only create", "Can only build")


class ForeignFile(NamedTuple):
    """What a file holds.

    Attributes:
        tensors: the weights by name, float32 or int64, contiguous, on the CPU, all finite.
        beside: names of what else lay in the file.
        converted: how many tensors were of another floating-point width.
        sha256: of the file, hexadecimal.
    """

    tensors: dict[str, Tensor]
    beside: list[str]
    converted: int
    sha256: str


def read_foreign(path: Path) -> ForeignFile:
    """Read ``path``.

    Raises:
        CheckpointError: missing, no file, too large, damaged, not PyTorch's, needing code, without
            a state dict, or with a tensor that holds NaN or infinity.
    """
    try:
        _check_kind(path)
        with path.open("rb") as stream:
            sha256, size = sha256_of(stream), os.fstat(stream.fileno()).st_size
            stream.seek(0)
            loaded = _load(path, stream)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    state, beside = _unwrapped(path, loaded)
    del loaded
    found, converted = _plain(path, state, size)
    if all(key.startswith(PARALLEL) for key in found):
        found = {key.removeprefix(PARALLEL): tensor for key, tensor in found.items()}
    return ForeignFile(found, beside, converted, sha256)


def _check_kind(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    if stat.S_ISDIR(status.st_mode):
        raise CheckpointError(f"{path}: a folder; name the checkpoint file in it")
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: not a regular file")
    if status.st_size > MAX_BYTES:
        raise CheckpointError(
            f"{path}: larger than {MAX_BYTES >> 20} MiB; not read: save its state_dict() alone"
        )


def _load(path: Path, stream: IO[bytes]) -> Any:
    head = stream.read(16)
    stream.seek(0)
    if head[8:9] == b"{":
        raise CheckpointError(
            f"{path}: a safetensors file, not one of torch.save; qmdd's own need no import"
        )
    if head[: len(_ZIP)] == _ZIP:
        _check_zip(path, stream)
    elif head[:1] != _LEGACY:
        raise CheckpointError(f"{path}: not a file that torch.save wrote; name a .pth or .pth.tar")
    check_steps(path, stream, zipped=head[: len(_ZIP)] == _ZIP)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(  # noqa: TID251 - with weights_only=True, which runs no code
                stream, map_location="cpu", weights_only=True
            )
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_refusal(str(error))}") from error
    except Exception as error:
        text = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path}: damaged ({text[:200]}); {_AGAIN}") from error


def _refusal(text: str) -> str:
    """What torch's page-long message means, in a line."""
    name = _NAMED.search(text)
    if name is None and not any(words in text for words in _CALLS):
        return f"damaged, or a pickle that torch.save did not write; {_AGAIN}"
    what = f" ({name[1][:100]})" if name else ""
    return (
        f"needs code to be unpickled{what}, and none is ever run; where you trust the file, save "
        "the state_dict() alone with torch.save, and import that"
    )


def _check_zip(path: Path, stream: IO[bytes]) -> None:
    """Refuse what is no whole zip of ``torch.save``, before anything in it is read."""
    try:
        with zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise CheckpointError(f"{path}: not a whole file ({error}); {_AGAIN}") from error
    stream.seek(0)
    names = [entry.filename.partition("/")[2] for entry in entries]
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise CheckpointError(
            f"{path}: a TorchScript archive, which is code; save the state_dict() of its model"
        )
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    large = sum(entry.file_size for entry in entries) > MAX_BYTES or len(entries) > MAX_ENTRIES
    if packed or large or "data.pkl" not in names:
        why = "its entries are compressed" if packed else "it is larger than any checkpoint"
        why = why if packed or large else "there is no data.pkl in it"
        raise CheckpointError(f"{path}: a zip that torch.save did not write ({why})")


def _unwrapped(path: Path, loaded: Any) -> tuple[dict[str, Any], list[str]]:
    """The state dict itself, and the names of what lay beside it."""
    beside: list[str] = []
    for _ in WRAPPERS:
        if not isinstance(loaded, dict):
            break
        inner = next((name for name in WRAPPERS if isinstance(loaded.get(name), dict)), None)
        if inner is None:
            break
        beside += [_name(name) for name in loaded if name != inner]
        loaded = loaded[inner]
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{path}: holds one {type(loaded).__name__}, not a state dict; "
            "save the state_dict() of the model"
        )
    if not loaded or not all(isinstance(key, str) for key in loaded):
        raise CheckpointError(f"{path}: no state dict in it; save the state_dict() of the model")
    longest = max(loaded, key=len)
    if len(longest) > MAX_NAME:
        raise CheckpointError(f"{path}: a name of {len(longest):,} characters ({_name(longest)})")
    return loaded, beside


def _name(key: object) -> str:
    """A key, short enough for a line."""
    if not isinstance(key, str):
        return f"({type(key).__name__})"
    return key if len(key) <= MAX_NAME else f"{key[:40]}..."


def _plain(path: Path, state: dict[str, Any], size: int) -> tuple[dict[str, Tensor], int]:
    """Every tensor checked, as float32 or int64; the number of those that were another width."""
    if len(state) > MAX_ENTRIES:
        raise CheckpointError(f"{path}: {len(state):,} tensors; more than any network has")
    claimed = 0
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {key} is of type {type(tensor).__name__}, not a tensor")
        strange = tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex()
        if strange or tensor.device.type != "cpu" or tensor.dtype == torch.bool:
            raise CheckpointError(f"{path}: {key} is no plain tensor of numbers ({tensor.dtype})")
        claimed += tensor.numel()
    # Weights that are shared are counted twice, a stride of zero as often as it likes.
    if claimed > 2 * size + _SPARE:
        raise CheckpointError(
            f"{path}: its tensors claim {claimed:,} numbers, the file has {size:,} bytes; not read"
        )
    if claimed * 8 > 2 * MAX_BYTES:
        raise CheckpointError(f"{path}: its tensors claim {claimed:,} numbers; not read")
    found, converted = {}, 0
    for key in list(state):
        tensor = state.pop(key)  # given up when its copy is made: both at once are twice the memory
        wide = torch.float32 if tensor.is_floating_point() else torch.int64
        converted += tensor.is_floating_point() and tensor.dtype != wide
        try:
            found[key] = tensor.detach().to(wide).clone(memory_format=torch.contiguous_format)
        except NotImplementedError as error:  # bits, and numbers of which two share a byte
            raise CheckpointError(
                f"{path}: {key} is no plain tensor of numbers ({tensor.dtype})"
            ) from error
        bad = not_finite(found[key])
        if bad:
            raise CheckpointError(
                f"{path}: {key} holds NaN or infinity ({bad:,} of {tensor.numel():,} values); "
                "a training that diverged: take another checkpoint"
            )
    return found, converted
