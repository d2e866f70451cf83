"""Golden results: a few images with the source model's codes and logits, in one safetensors file.

With it a device proves, without torch, that it computes what was trained. The tensors are

* ``image.<i>``: uint8 ``[3, h, w]``, the model's input;
* ``logit.<i>``: float32 ``[1]``;
* ``codes.<i>.<layer>``: uint8, the layer's activation codes in C order, packed densely, the first
  in the lowest bits.

The metadata holds ``bits`` (bits to a packed code: the least of 1, 2, 4, 8 that holds every code),
``layers`` (JSON list of names, in the model's order) and ``shapes`` (JSON: for each image, for each
layer, the shape of its codes).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import BundleError, not_installed
from .files import write_atomically

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

#: Larger files are refused, in both directions.
MAX_BYTES = 64 << 20
#: So is a longer header: parsed, it takes 13 times as much.
MAX_HEADER = 4 << 20
#: Widths that divide a byte.
_WIDTHS = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True)
class Golden:
    """Images and what the source model makes of them; all three of length ``n``.

    Attributes:
        images: uint8 ``[3, h, w]`` each; sizes may differ.
        logits: float32 ``[n]``.
        codes: per image, uint8 codes by layer, one to an element, in the model's order of layers
            (the same for every image). Any shape; it is kept. What was read from a file is unpacked
            when it is looked up, a layer at a time.
    """

    images: list[U8]
    logits: F32
    codes: Sequence[Mapping[str, U8]]

    @property
    def layers(self) -> list[str]:
        """Names of the layers, in the model's order."""
        return list(self.codes[0]) if self.codes else []


def write_golden(path: str | os.PathLike[str], golden: Golden) -> None:
    """Write ``golden`` to ``path``: the same bytes for the same content.

    Raises:
        BundleError: shapes or types that do not fit together, or more than :data:`MAX_BYTES`.
        OSError: ``path`` cannot be written.
    """
    where = f"{path}"
    _check(where, golden)
    width = _width(golden)
    tensors: dict[str, npt.NDArray[Any]] = {}
    for i, (image, logit, codes) in enumerate(
        zip(golden.images, golden.logits, golden.codes, strict=True)
    ):
        tensors[f"image.{i}"] = np.ascontiguousarray(image)
        tensors[f"logit.{i}"] = np.array([logit], dtype=np.float32)
        for layer, array in codes.items():
            tensors[f"codes.{i}.{layer}"] = _pack(array, width)
    shapes = [[list(array.shape) for array in codes.values()] for codes in golden.codes]
    metadata = {
        "bits": str(width),
        "layers": json.dumps(golden.layers),
        "shapes": json.dumps(shapes),
    }
    if sum(array.nbytes for array in tensors.values()) > MAX_BYTES:
        raise BundleError(
            f"{where}: golden results take more than {MAX_BYTES >> 20} MiB; use fewer or smaller "
            "images"
        )
    write_atomically(path, _serialise(tensors, metadata))


def read_golden(path: str | os.PathLike[str]) -> Golden:
    """Read what :func:`write_golden` wrote.

    Raises:
        BundleError: missing, damaged, too large, or not such a file.
    """
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise BundleError(not_installed("safetensors", error=error)) from error

    where = f"{path}"
    try:
        if Path(path).stat().st_size > MAX_BYTES + (MAX_BYTES >> 2):  # headroom for the header
            raise BundleError(f"{where}: larger than {MAX_BYTES >> 20} MiB, so not one of ours")
        with open(where, "rb") as stream:
            if int.from_bytes(stream.read(8), "little") > MAX_HEADER:
                raise BundleError(f"{where}: not a golden file of qmdd (its header is too long)")
        with safe_open(where, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: np.asarray(file.get_tensor(name)) for name in names}
        golden = _golden(tensors, metadata)
    except BundleError:
        raise
    except FileNotFoundError as error:
        raise BundleError(f"{where}: no such file") from error
    except Exception as error:  # the reader raises much on foreign bytes
        raise BundleError(f"{where}: not a golden file of qmdd ({error})") from error
    _check(where, golden)
    return golden


def _golden(tensors: dict[str, npt.NDArray[Any]], metadata: dict[str, str]) -> Golden:
    """Tensors to results; raises anything on what does not fit."""
    width = int(metadata["bits"])
    layers, shapes = json.loads(metadata["layers"]), json.loads(metadata["shapes"])
    if width not in _WIDTHS or not all(isinstance(name, str) for name in layers):
        raise ValueError("unknown width or layer names")
    images, logits, codes = [], [], []
    for i, of_image in enumerate(shapes):
        images.append(tensors.pop(f"image.{i}"))
        logit = tensors.pop(f"logit.{i}")
        if logit.dtype != np.float32 or logit.shape != (1,):
            raise ValueError(f"logit.{i} is {logit.dtype} {list(logit.shape)}")
        logits.append(logit)
        packed = {
            layer: (tensors.pop(f"codes.{i}.{layer}"), shape)
            for layer, shape in zip(layers, of_image, strict=True)
        }
        codes.append(_Packed(packed, width))
    if tensors:
        raise ValueError(f"unexpected tensor {min(tensors)}")
    flat = np.concatenate(logits) if logits else np.zeros(0, np.float32)
    return Golden(images, flat, codes)


def _check(where: str, golden: Golden) -> None:
    counts = len(golden.images), golden.logits.size, len(golden.codes)
    if len(set(counts)) != 1 or golden.logits.ndim != 1 or not counts[0]:
        raise BundleError(f"{where}: needs as many images as logits and codes, got {counts}")
    if golden.logits.dtype != np.float32 or not np.isfinite(golden.logits).all():
        raise BundleError(f"{where}: logits must be finite float32, got {golden.logits}")
    for i, (image, codes) in enumerate(zip(golden.images, golden.codes, strict=True)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] != 3:
            raise BundleError(
                f"{where}: image {i} must be uint8 [3, h, w], got {image.dtype} {list(image.shape)}"
            )
        if list(codes) != golden.layers:
            raise BundleError(f"{where}: image {i} has other layers than image 0")
        if isinstance(codes, _Packed):
            continue  # nothing else than bytes
        for layer, array in codes.items():
            if array.dtype != np.uint8:
                raise BundleError(
                    f"{where}: codes of image {i}, layer {layer} must be uint8, got {array.dtype}"
                )


def _width(golden: Golden) -> int:
    top = max((int(a.max()) for codes in golden.codes for a in codes.values() if a.size), default=0)
    return next(width for width in _WIDTHS if top < 1 << width)


def _pack(codes: U8, width: int) -> U8:
    lanes = 8 // width
    padded = np.zeros((-(-codes.size // lanes), lanes), dtype=np.uint8)
    padded.reshape(-1)[: codes.size] = codes.reshape(-1)
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    packed: U8 = np.bitwise_or.reduce(padded << shifts, axis=1)
    return packed


class _Packed(Mapping[str, U8]):
    """Codes of one image by layer, held packed: unpacked they may take eight times as much.

    Raises:
        ValueError: shapes that do not go with the packed codes.
    """

    def __init__(self, held: dict[str, tuple[npt.NDArray[Any], list[int]]], width: int) -> None:
        self._held, self._width = held, width
        for packed, shape in held.values():
            if any(type(side) is not int or side < 0 for side in shape):
                raise ValueError(f"impossible shape {shape}")
            bytes_ = -(-math.prod(shape) // (8 // width))
            if packed.dtype != np.uint8 or packed.shape != (bytes_,):
                told = f"{packed.dtype} {list(packed.shape)}"
                raise ValueError(f"codes of shape {shape} do not fit {told}")

    def __getitem__(self, layer: str) -> U8:
        packed, shape = self._held[layer]
        return _unpack(packed, self._width, shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


def _unpack(packed: U8, width: int, shape: list[int]) -> U8:
    count = math.prod(shape)
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    codes = (packed[:, np.newaxis] >> shifts) & np.uint8((1 << width) - 1)
    return codes.reshape(-1)[:count].reshape(shape)


def _serialise(tensors: dict[str, npt.NDArray[Any]], metadata: dict[str, str]) -> bytes:
    """As ``safetensors.numpy.save``, whose metadata come out in another order in every process."""
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise BundleError(not_installed("safetensors", error=error)) from error

    data = save(tensors, metadata)
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8 bytes
    return len(header).to_bytes(8, "little") + header + data[start:]
