"""Checkpoints: safetensors files with the detector's configuration in their metadata.

Two forms, told apart by the metadata key ``format``:

* ``qmdd-latent``: every parameter and buffer as training holds it.
* ``qmdd-frozen``: for each quantised convolution the packed integer codes (``.packed``, 2 bits to a
  weight at 2 bits) and the scale per channel; every other parameter as it was, so that evaluation
  still runs the real quantizers; and each activation quantizer's threshold table (``.table``),
  which must equal the one that bisection finds anew, or the file is refused.

Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from .bounded import MAX_BYTES, check_header, not_finite, sha256_of
from .chain import quantised_chains
from .config import DetectorConfig
from .conv import FrozenWeightStore, QuantConv2d, quantised_convolutions
from .detector import Detector
from .errors import CheckpointError, ModelError
from .packing import pack_index, unpack_index
from .quantizers import FrozenWeight, WeightQuantizer, build_weight
from .registry import detector_from_config
from .stem import pixel_gain

LATENT = "qmdd-latent"
FROZEN = "qmdd-frozen"
VERSION = 2

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def is_frozen(module: nn.Module) -> bool:
    """Whether the weights are fixed codes (such a detector cannot be trained)."""
    return any(
        isinstance(conv.quantizer, FrozenWeightStore) for _, conv in quantised_convolutions(module)
    )


def freeze(module: AnyModule) -> AnyModule:
    """Turn every weight into integer codes and scales, in place; evaluation mode from then on.

    Evaluation before and after is the same function, bit for bit: it computes on codes anyway.

    Raises:
        ModelError: a full-precision detector.
    """
    convs = [conv for _, conv in quantised_convolutions(module) if conv.quantizer is not None]
    if not convs:
        raise ModelError(
            "a full-precision detector has no codes to freeze; train it with --bits, or calibrate "
            "it with qmdd calibrate"
        )
    for conv in convs:
        conv.freeze_weight()
    return module.eval()


def tables(module: nn.Module) -> dict[str, np.ndarray]:
    """Threshold table float32 ``[top]`` of every quantised layer, by layer name."""
    found = {}
    for name, chain in quantised_chains(module):
        assert chain.quantizer is not None  # noqa: S101 - what quantised_chains selects by
        try:
            found[name] = chain.quantizer.table()
        except ValueError as error:
            raise ModelError(f"layer {name}: {error}") from error
    return found


def _codebook(conv: QuantConv2d) -> np.ndarray:
    shell = build_weight(conv.kind, conv.bits, torch.ones(1, 1, 1, 1))
    return shell.codebook()


def checkpoint_bytes(detector: Detector, notes: dict[str, str] | None = None) -> bytes:
    """Serialise ``detector`` (frozen if :func:`freeze` was called on it, latent otherwise).

    Args:
        detector: it may lie on any device.
        notes: further metadata, such as the recipe and the data's digest.

    Raises:
        ModelError: frozen, and a quantizer has no threshold table.
    """
    from safetensors.torch import save

    state = {key: value.detach().contiguous() for key, value in detector.state_dict().items()}
    form = FROZEN if is_frozen(detector) else LATENT
    if form == FROZEN:
        for name, conv in quantised_convolutions(detector):
            frozen = conv.frozen()
            del state[f"{name}.quantizer.codes"]
            state[f"{name}.quantizer.packed"] = torch.from_numpy(_pack(conv, frozen.codes))
        for name, table in tables(detector).items():
            state[f"{name}.act.quantizer.table"] = torch.from_numpy(table)
    metadata = {
        **(notes or {}),
        "format": form,
        "version": str(VERSION),
        "config": detector.config.to_json(),
    }
    return _in_fixed_order(save({k: v.to("cpu").contiguous() for k, v in state.items()}, metadata))


def _in_fixed_order(data: bytes) -> bytes:
    """The same safetensors file with its metadata keys sorted.

    The library writes them in an order that changes from call to call; equal detectors shall give
    equal bytes.
    """
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors stay aligned to 8 bytes
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _pack(conv: QuantConv2d, codes: Tensor) -> np.ndarray:
    book = _codebook(conv)
    index = np.searchsorted(book, codes.cpu().numpy().reshape(-1))
    return pack_index(index.astype(np.uint8), conv.bits)


def _unpack(conv: QuantConv2d, packed: Tensor) -> Tensor:
    shape = conv.weight_shape
    count = int(np.prod(shape))
    if packed.dtype != torch.uint8 or packed.dim() != 1:
        raise ValueError("packed codes must be one row of bytes")
    index = unpack_index(packed.numpy(), conv.bits, count)
    book = _codebook(conv)
    if int(index.max()) >= book.size:
        raise ValueError(f"a code outside the quantizer's {book.size} levels")
    return torch.from_numpy(book[index].reshape(shape))


class Checkpoint:
    """A checkpoint file, its header read and checked, its tensors read on demand."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open ``path``; :class:`CheckpointError` says what is wrong with it."""
        self.path = Path(path)
        self._check_file()
        self.metadata = self._metadata()
        self.form = self.metadata.get("format", "")
        if self.form not in (LATENT, FROZEN) or self.metadata.get("version") != str(VERSION):
            raise CheckpointError(
                f"{path}: a safetensors file, but not a qmdd checkpoint of version {VERSION}"
            )
        try:
            self.config = DetectorConfig.from_json(self.metadata.get("config", ""))
        except (ModelError, TypeError) as error:
            raise CheckpointError(f"{path}: {error}") from error

    def _check_file(self) -> None:
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as stream:
                head = stream.read(16)
        except FileNotFoundError as error:
            raise CheckpointError(f"{self.path}: no such checkpoint") from error
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read: {error.strerror}") from error
        if size > MAX_BYTES:
            raise CheckpointError(f"{self.path}: larger than {MAX_BYTES >> 20} MiB; not read")
        # A safetensors file begins with its header's length, whose low byte may well be 0x80 too;
        # what tells it apart is the brace that opens the header, at byte 8.
        pickled = head[:4] == b"PK\x03\x04" or head[:1] == b"\x80"
        if pickled and head[8:9] != b"{":
            raise CheckpointError(
                f"{self.path}: a pickled PyTorch file, which is never unpickled here; "
                "qmdd reads its own safetensors checkpoints (made by qmdd train)"
            )
        check_header(self.path, head)

    def _metadata(self) -> dict[str, str]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                return dict(file.metadata() or {})
        except (SafetensorError, ValueError, OSError) as error:
            raise CheckpointError(
                f"{self.path}: not a whole safetensors file ({error}); copy or download it again"
            ) from error

    def sha256(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        with self.path.open("rb") as stream:
            return sha256_of(stream)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, on the CPU."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, ValueError, OSError) as error:
            raise CheckpointError(f"{self.path}: damaged tensor data ({error})") from error
        for key, tensor in found.items():
            # A table holds -inf or inf where a code is met by every float or by none.
            plain = tensor.is_floating_point() and not key.endswith(".quantizer.table")
            if plain and tensor.dtype not in _FLOATS:  # of others torch cannot tell what is finite
                raise CheckpointError(f"{self.path}: {key} is {tensor.dtype}, and none of ours is")
            if plain and not_finite(tensor):
                raise CheckpointError(f"{self.path}: {key} holds NaN or infinity; train it again")
        return found

    def detector(self) -> Detector:
        """The detector in evaluation mode, every tensor of the file accounted for."""
        return _detector_from_tensors(self.path, self.config, self.form, self.tensors())


def load_checkpoint(path: str | os.PathLike[str]) -> Detector:
    """Read a checkpoint of either form; the detector comes back in evaluation mode."""
    return Checkpoint(path).detector()


def _detector_from_tensors(
    path: Path, config: DetectorConfig, form: str, state: dict[str, Tensor]
) -> Detector:
    try:
        with torch.device("meta"):
            detector = detector_from_config(config)
    except ModelError as error:
        raise CheckpointError(f"{path}: {error}") from error
    stored_tables = {}
    if form == FROZEN:
        if not config.quantized:
            raise CheckpointError(f"{path}: a frozen checkpoint cannot be full precision")
        for name, conv in quantised_convolutions(detector):
            packed = state.pop(f"{name}.quantizer.packed", None)
            scale = state.get(f"{name}.quantizer.scale")
            if packed is None or scale is None:
                raise CheckpointError(f"{path}: {name} has no packed codes or no scale")
            if f"{name}.quantizer.codes" in state:
                raise CheckpointError(f"{path}: {name} has codes beside its packed ones")
            try:
                codes = _unpack(conv, packed)
            except ValueError as error:
                raise CheckpointError(f"{path}: {name}: {error}") from error
            state[f"{name}.quantizer.codes"] = codes
            conv.quantizer = FrozenWeightStore(FrozenWeight(codes, torch.empty(conv.out_channels)))
            conv.weight = None
        for name, _ in quantised_chains(detector):
            stored_tables[name] = state.pop(f"{name}.act.quantizer.table", None)
    _check_state(path, detector, state)
    _check_representation(path, config, state)
    detector.load_state_dict(state, strict=True, assign=True)
    detector.eval()
    try:
        found_tables = tables(detector) if stored_tables else {}
    except ModelError as error:
        raise CheckpointError(f"{path}: {error}") from error
    for name, table in found_tables.items():
        stored = stored_tables[name]
        if stored is None or not torch.equal(stored, torch.from_numpy(table)):
            raise CheckpointError(
                f"{path}: the threshold table of {name} is not the one its quantizer has; "
                "the file was altered: freeze the checkpoint again"
            )
    return detector


def _check_state(path: Path, detector: Detector, state: dict[str, Tensor]) -> None:
    expected: dict[str, Any] = detector.state_dict()
    missing = sorted(expected.keys() - state.keys())
    extra = sorted(state.keys() - expected.keys())
    if missing or extra:
        raise CheckpointError(
            f"{path}: does not fit its own configuration: {len(missing)} tensors missing"
            f"{_some(missing)}, {len(extra)} unknown{_some(extra)}"
        )
    for key, want in expected.items():
        have = state[key]
        if have.shape != want.shape or have.dtype != want.dtype:
            raise CheckpointError(
                f"{path}: {key} is {have.dtype} {list(have.shape)}, "
                f"expected {want.dtype} {list(want.shape)}"
            )


def _check_representation(path: Path, config: DetectorConfig, state: dict[str, Tensor]) -> None:
    """The two representations have the same shapes; the pixels' gain tells them apart."""
    gain = state.get("stem.gain")
    if gain is not None and float(gain) != float(pixel_gain(config.representation)):
        raise CheckpointError(
            f"{path}: its stem was not made for {config.representation}, which its configuration "
            "names; the file was altered"
        )


def _some(keys: list[str]) -> str:
    return f" ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})" if keys else ""


def load_weights(detector: Detector, source: Detector) -> None:
    """Copy into ``detector`` all that ``source`` shares with it; quantizers start anew.

    Starts quantised training from full-precision weights: same topology, so everything but the
    quantizers' own parameters has the same name and shape.

    Raises:
        ModelError: another architecture, or a frozen source.
    """
    for field in ("arch", "width", "cqb", "representation", "std"):
        have, want = getattr(source.config, field), getattr(detector.config, field)
        if have != want:
            raise ModelError(
                f"weights of a detector with {field}={have} do not fit one with {field}={want}"
            )
    if is_frozen(source):
        raise ModelError("a frozen checkpoint cannot be trained further; use the latent one")
    state = source.state_dict()
    same_quantizers = json.loads(source.config.to_json()) == json.loads(detector.config.to_json())
    if not same_quantizers:
        state = {key: value for key, value in state.items() if ".quantizer." not in key}
    detector.load_state_dict(state, strict=False)
    if not same_quantizers:
        for _, conv in quantised_convolutions(detector):
            if isinstance(conv.quantizer, WeightQuantizer):
                conv.quantizer.adapt(conv.latent())


__all__ = [
    "FROZEN",
    "LATENT",
    "Checkpoint",
    "checkpoint_bytes",
    "freeze",
    "is_frozen",
    "load_checkpoint",
    "load_weights",
    "tables",
]
