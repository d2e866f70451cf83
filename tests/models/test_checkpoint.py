"""Checkpoints: both forms there and back, and every way in which a file can be wrong."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from qmdd.models import (
    CheckpointError,
    Detector,
    DetectorConfig,
    ModelError,
    bounded,
    quantised_chains,
    quantised_convolutions,
)
from qmdd.models import checkpoint as module
from qmdd.models.checkpoint import (
    FROZEN,
    LATENT,
    Checkpoint,
    checkpoint_bytes,
    freeze,
    is_frozen,
    load_checkpoint,
    load_weights,
    tables,
)
from qmdd.models.packing import packed_bytes
from qmdd.models.quantizers import (
    FULL_PRECISION,
    LsqActivation,
    N2uqActivation,
    SlrActivation,
)

pytestmark = pytest.mark.usefixtures("narrow")

DetectorFactory = Callable[..., Detector]
Change = Callable[[dict[str, Tensor], dict[str, str]], None]
BITS = (1, 2, 3, 4, 8)
LAYER = "stages.0.0.conv1"


def _images() -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (3, 3, 48, 48), dtype=np.uint8))


def _logits(detector: Detector) -> Tensor:
    with torch.no_grad():
        out: Tensor = detector(_images())
    return out


@pytest.fixture(scope="module")
def latent_bytes(tiny_detector: DetectorFactory) -> bytes:
    """A latent 2-bit checkpoint of the usual quantizers."""
    return checkpoint_bytes(tiny_detector())


@pytest.fixture(scope="module")
def frozen_bytes(tiny_detector: DetectorFactory) -> bytes:
    """The same, frozen."""
    return checkpoint_bytes(freeze(tiny_detector()))


def _header(data: bytes) -> dict[str, dict[str, str]]:
    size = int.from_bytes(data[:8], "little")
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + size])
    return header


def _changed(data: bytes, change: Change) -> bytes:
    """The file with its tensors and metadata edited by ``change``."""
    tensors, metadata = load(data), _header(data)["__metadata__"]
    change(tensors, metadata)
    return save(tensors, metadata)


def _refusal(path: Path, data: bytes) -> str:
    """Write, load, and return the message of the refusal, which is one line and names the file."""
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


# There and back.


@pytest.mark.parametrize("bits", [*BITS, FULL_PRECISION])
def test_latent_round_trip(tiny_detector: DetectorFactory, tmp_path: Path, bits: int) -> None:
    """Every tensor and the configuration come back; logits are equal to the bit.

    The twin's as soon as its tensors lie in memory of torch's own, as the first detector's do: a
    file's tensors are aligned to 8 bytes, and how a float32 sum is ordered depends on that.
    """
    detector = tiny_detector(bits=bits, activation="lsq", slr=False)
    path = tmp_path / "latent.safetensors"
    path.write_bytes(checkpoint_bytes(detector))
    checkpoint = Checkpoint(path)
    assert checkpoint.form == LATENT
    back = checkpoint.detector()
    assert not back.training
    assert back.config == detector.config
    state = back.state_dict()
    for key, value in detector.state_dict().items():
        assert torch.equal(state[key], value), key
        assert state[key].dtype == value.dtype
    assert all(p.requires_grad for p in back.parameters())
    same = copy.deepcopy(back) if bits == FULL_PRECISION else back
    assert torch.equal(_logits(same), _logits(detector))


@pytest.mark.parametrize(
    ("bits", "weight"),
    [
        *itertools.product(BITS, ["n2uq"]),
        *itertools.product(BITS[1:], ["lsq", "minmax"]),
        (1, "binary"),
    ],
)
def test_frozen_round_trip(
    tiny_detector: DetectorFactory, tmp_path: Path, bits: int, weight: str
) -> None:
    """Freezing, writing and reading change no bit of the logits, nor a code, nor a threshold."""
    detector = tiny_detector(bits=bits, weight=weight)
    before = _logits(detector)
    assert not is_frozen(detector)
    assert freeze(detector) is detector
    assert is_frozen(detector)
    assert torch.equal(_logits(detector), before)
    path = tmp_path / "frozen.safetensors"
    data = checkpoint_bytes(detector)
    path.write_bytes(data)
    back = load_checkpoint(path)
    assert Checkpoint(path).form == FROZEN
    assert is_frozen(back)
    assert torch.equal(_logits(back), before)
    assert checkpoint_bytes(back) == data  # which holds every code and every threshold


def test_frozen_codes_take_their_own_width(frozen_bytes: bytes) -> None:
    """Two bits a weight, four to the byte; no latent weight is left."""
    tensors = load(frozen_bytes)
    packed = tensors[f"{LAYER}.conv.quantizer.packed"]
    assert packed.dtype == torch.uint8
    assert packed.shape == (8 * 8 * 9 // 4,)
    assert tensors["stem.conv.quantizer.packed"].shape == (8 * 3 * 49,)
    assert f"{LAYER}.conv.weight" not in tensors
    assert tensors[f"{LAYER}.act.quantizer.table"].shape == (3,)


def test_equal_detectors_give_equal_bytes(tiny_detector: DetectorFactory) -> None:
    """The library's own order of metadata changes from call to call; ours does not.

    Ten writes: were the order left to chance, at five keys they would all but surely differ.
    """
    detector = tiny_detector()
    notes = {"recipe": "{}", "data": "0123 ü"}
    written = {checkpoint_bytes(detector, notes) for _ in range(10)}
    assert len(written) == 1
    header = _header(written.pop())["__metadata__"]
    assert list(header) == ["config", "data", "format", "recipe", "version"]
    assert header["data"] == "0123 ü"


def test_notes_are_kept_and_cannot_overrule(tiny_detector: DetectorFactory, tmp_path: Path) -> None:
    """Notes come back in the metadata; format, version and configuration are the writer's."""
    path = tmp_path / "notes.safetensors"
    notes = {"card": "two\nlines", "format": "other", "config": "{}"}
    path.write_bytes(checkpoint_bytes(tiny_detector(bits=3), notes))
    checkpoint = Checkpoint(path)
    assert checkpoint.metadata["card"] == "two\nlines"
    assert checkpoint.form == LATENT
    assert checkpoint.config.bits == 3


def test_sha256_is_the_files(latent_bytes: bytes, tmp_path: Path) -> None:
    """What the manifest of a bundle names its source by."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(latent_bytes)
    assert Checkpoint(path).sha256() == hashlib.sha256(latent_bytes).hexdigest()


def test_a_header_whose_length_begins_like_a_pickle_is_read(
    tiny_detector: DetectorFactory, tmp_path: Path
) -> None:
    """A header of 128 bytes past a multiple of 256 makes the file's first byte 0x80.

    That is also how a pickle begins; one file in 32 would be refused if only that were looked at.
    """
    detector = tiny_detector()
    size = int.from_bytes(checkpoint_bytes(detector, {"note": ""})[:8], "little")
    data = checkpoint_bytes(detector, {"note": "x" * ((0x80 - size) % 256)})
    assert data[0] == 0x80
    path = tmp_path / "unlucky.safetensors"
    path.write_bytes(data)
    assert torch.equal(_logits(load_checkpoint(path)), _logits(detector))


def test_thresholds_that_no_float_or_every_float_meets_survive(
    tiny_detector: DetectorFactory, tmp_path: Path
) -> None:
    """Tables hold infinities then; a file with them is not damaged."""
    detector = tiny_detector()
    layers = dict(quantised_chains(detector))
    for name, start in ((LAYER, -50.0), ("stages.0.0.conv2", 500.0)):
        quantizer = layers[name].quantizer
        assert isinstance(quantizer, SlrActivation)
        assert isinstance(quantizer.inner, N2uqActivation)
        with torch.no_grad():
            quantizer.inner.start.fill_(start)
    freeze(detector)
    found = tables(detector)
    assert found[LAYER].tolist() == [-np.inf] * 3
    assert found["stages.0.0.conv2"].tolist() == [np.inf] * 3
    path = tmp_path / "infinite.safetensors"
    path.write_bytes(checkpoint_bytes(detector))
    assert torch.equal(_logits(load_checkpoint(path)), _logits(detector))


# Files that are not checkpoints.


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    """Named, with the reason."""
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        load_checkpoint(tmp_path)


def test_a_file_that_is_too_large_is_not_read(
    latent_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size is looked at before anything else."""
    monkeypatch.setattr(module, "MAX_BYTES", len(latent_bytes) - 1)
    assert "not read" in _refusal(tmp_path / "a.safetensors", latent_bytes)


def test_a_header_that_is_too_long_is_not_parsed(latent_bytes: bytes, tmp_path: Path) -> None:
    """100 MB of it took 1.4 GB; the length is believed before a byte of it is read."""
    longer = (bounded.MAX_HEADER + 1).to_bytes(8, "little") + latent_bytes[8:]
    assert "states a header of 4,194,305 bytes" in _refusal(tmp_path / "a.safetensors", longer)


def test_numbers_that_are_not_finite_are_counted_in_parts() -> None:
    """Beyond one part's length, and at both ends."""
    tensor = torch.zeros(3 << 22)
    assert bounded.not_finite(tensor) == 0
    tensor[0], tensor[-1], tensor[5 << 21] = float("nan"), float("inf"), -float("inf")
    assert bounded.not_finite(tensor) == 3


@pytest.mark.parametrize("form", ["latent_bytes", "frozen_bytes"])
def test_a_truncated_file(form: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Cut anywhere (empty, in the length, in the header, in the tensors, by one byte) or grown."""
    data: bytes = request.getfixturevalue(form)
    header = 8 + int.from_bytes(data[:8], "little")
    path = tmp_path / "cut.safetensors"
    for end in (0, 1, 7, 8, 9, 100, header - 1, header, header + 1, len(data) // 2, len(data) - 1):
        assert "not a whole safetensors file" in _refusal(path, data[:end])
    assert "not a whole safetensors file" in _refusal(path, data + b"\0")


@pytest.mark.parametrize(
    "data",
    [b"hello, this is a text file\n" * 9, b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(1000), b"{}"],
)
def test_something_else_altogether(data: bytes, tmp_path: Path) -> None:
    """Text, an image, zeros: none of them is taken for a header."""
    assert "not a whole safetensors file" in _refusal(tmp_path / "a.safetensors", data)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"format": LATENT},
        {"format": LATENT, "version": "1", "config": DetectorConfig().to_json()},
        {"format": LATENT, "version": "3", "config": DetectorConfig().to_json()},
        {"format": "qmdd-something", "version": "2", "config": DetectorConfig().to_json()},
    ],
)
def test_a_foreign_safetensors_file(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    """Somebody else's model, or a version of ours that is not known yet or any more."""
    data = save({"layer.weight": torch.zeros(2, 2)}, metadata)
    assert "not a qmdd checkpoint of version 2" in _refusal(tmp_path / "a.safetensors", data)


class _Trap:
    """Unpickling this writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.write_text, (self.marker, "unpickled")


@pytest.mark.parametrize("protocol", range(6))
def test_a_raw_pickle_is_never_unpickled(protocol: int, tmp_path: Path) -> None:
    """Whatever the protocol; from 2 on the message can say what it is."""
    marker = tmp_path / "marker"
    data = pickle.dumps({"state": _Trap(marker)}, protocol)
    message = _refusal(tmp_path / "a.safetensors", data)
    assert not marker.exists()
    if protocol >= 2:
        assert "pickled PyTorch file, which is never unpickled" in message
    pickle.loads(data)  # noqa: S301, TID251 - the trap works, or this test would show nothing
    assert marker.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_pytorch_file_is_never_unpickled(zipped: bool, tmp_path: Path) -> None:
    """torch.save in both of its formats; the message says what qmdd reads instead."""
    marker, path = tmp_path / "marker", tmp_path / "model.pth"
    content = {"state": torch.zeros(3), "trap": _Trap(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    message = _refusal(path, path.read_bytes())
    assert "never unpickled" in message
    assert "safetensors" in message
    assert not marker.exists()


# Checkpoints that were altered.


def _set(name: str, index: int, value: float) -> Change:
    def change(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
        tensors[name].view(-1)[index] = value

    return change


def _config(**fields: object) -> Change:
    def change(_: dict[str, Tensor], metadata: dict[str, str]) -> None:
        metadata["config"] = json.dumps({**json.loads(metadata["config"]), **fields})

    return change


@pytest.mark.parametrize("form", ["latent_bytes", "frozen_bytes"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["head.fc.weight", f"{LAYER}.conv.bn.running_var"])
def test_a_tensor_that_is_not_finite(
    form: str, name: str, value: float, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A diverged training run, or damage: the tensor is named."""
    data = _changed(request.getfixturevalue(form), _set(name, 1, value))
    assert f"{name} holds NaN or infinity" in _refusal(tmp_path / "a.safetensors", data)


@pytest.mark.parametrize("form", ["latent_bytes", "frozen_bytes"])
def test_missing_and_extra_tensors(
    form: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Counted, and the first few named."""

    def change(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
        del tensors["head.fc.bias"]
        tensors["head.fc.gain"] = torch.zeros(1)

    message = _refusal(tmp_path / "a.safetensors", _changed(request.getfixturevalue(form), change))
    assert "1 tensors missing (head.fc.bias), 1 unknown (head.fc.gain)" in message


@pytest.mark.parametrize(
    ("name", "replacement", "says"),
    [
        (
            "head.fc.weight",
            torch.zeros(1, 63),
            r"torch.float32 [1, 63], expected torch.float32 [1, 64]",
        ),
        ("head.fc.weight", torch.zeros(64, 1), r"torch.float32 [64, 1], expected"),
        ("head.fc.bias", torch.zeros(()), r"torch.float32 [], expected torch.float32 [1]"),
        ("head.fc.bias", torch.zeros(1).double(), r"torch.float64 [1], expected torch.float32 [1]"),
        ("stem.conv.bn.num_batches_tracked", torch.zeros(()), r"expected torch.int64 []"),
    ],
)
def test_a_wrong_shape_or_type(
    latent_bytes: bytes, name: str, replacement: Tensor, says: str, tmp_path: Path
) -> None:
    """What it is, and what it should be."""
    data = _changed(latent_bytes, lambda tensors, _: tensors.update({name: replacement}))
    assert says in _refusal(tmp_path / "a.safetensors", data)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_config(bits=5), "bits=5 is not supported"),
        (_config(bits=2.0), "bits=2.0 is not supported"),
        (_config(batch=4), "keys among"),
        (_config(std=None), "std=None must be three positive numbers"),
        (_config(width=10**400), "must lie within"),
        (_config(layer_bits={"nowhere": 2}), "resnet23 has no layer 'nowhere'"),
        (_config(layer_bits={LAYER: 3}), "expected"),
        (_config(arch="resnet34"), "does not fit its own configuration"),
        (_config(bits=3), "expected"),
        (_config(cqb=False), "does not fit its own configuration"),
        (lambda _, metadata: metadata.pop("config"), "not JSON"),
        (lambda _, metadata: metadata.update(config="[" * 100_000), "not JSON"),
        (lambda _, metadata: metadata.update(format=FROZEN), "no packed codes or no scale"),
    ],
)
def test_a_configuration_that_is_wrong(
    latent_bytes: bytes, change: Change, says: str, tmp_path: Path
) -> None:
    """Not one of ours, unreadable, or one that the tensors do not fit."""
    assert says in _refusal(tmp_path / "a.safetensors", _changed(latent_bytes, change))


@pytest.mark.parametrize("steps", [-1, 1])
@pytest.mark.parametrize("entry", [0, 2])
def test_a_table_entry_moved_by_one_float(
    frozen_bytes: bytes, steps: int, entry: int, tmp_path: Path
) -> None:
    """The stored table must be the one that bisection finds; one neighbour off is refused."""
    name = f"{LAYER}.act.quantizer.table"

    def change(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
        table = tensors[name]
        table[entry] = torch.nextafter(table[entry], torch.tensor(steps * float("inf")))

    message = _refusal(tmp_path / "a.safetensors", _changed(frozen_bytes, change))
    assert f"the threshold table of {LAYER} is not the one its quantizer has" in message


@pytest.mark.parametrize(
    "table", [None, torch.zeros(4), torch.zeros(0), torch.full((3,), float("nan"))]
)
def test_a_table_that_is_missing_or_no_table(
    frozen_bytes: bytes, table: Tensor | None, tmp_path: Path
) -> None:
    """Nothing, another length, NaN."""
    name = f"{LAYER}.act.quantizer.table"

    def change(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
        del tensors[name]
        if table is not None:
            tensors[name] = table

    data = _changed(frozen_bytes, change)
    assert f"the threshold table of {LAYER}" in _refusal(tmp_path / "a.safetensors", data)


def test_a_changed_quantizer_no_longer_fits_its_table(frozen_bytes: bytes, tmp_path: Path) -> None:
    """A parameter nudged by one float moves a threshold somewhere, and that is seen."""
    name = f"{LAYER}.act.quantizer.inner.scale1"

    def change(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
        tensors[name] = torch.nextafter(tensors[name], torch.tensor(2.0))

    data = _changed(frozen_bytes, change)
    assert "was altered" in _refusal(tmp_path / "a.safetensors", data)


def test_a_frozen_file_whose_quantizer_has_no_table(frozen_bytes: bytes, tmp_path: Path) -> None:
    """An input scale of zero, whatever table the file brings: the layer is named."""
    name = f"{LAYER}.act.quantizer.inner.scale1"

    def change(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
        tensors[name].zero_()

    message = _refusal(tmp_path / "a.safetensors", _changed(frozen_bytes, change))
    assert f"layer {LAYER}: " in message
    assert "non-decreasing" in message


@pytest.mark.parametrize(("bits", "weight"), [(3, "minmax"), (2, "minmax"), (2, "lsq")])
def test_a_code_outside_the_codebook(
    tiny_detector: DetectorFactory, bits: int, weight: str, tmp_path: Path
) -> None:
    """MinMax has ``2^k - 1`` levels, so one index is nobody's; so has the 8-bit stem everywhere."""
    data = checkpoint_bytes(freeze(tiny_detector(bits=bits, weight=weight)))
    where = LAYER + ".conv" if weight == "minmax" else "stem.conv"
    levels = 2**bits - 1 if weight == "minmax" else 255
    name = f"{where}.quantizer.packed"
    data = _changed(data, lambda tensors, _: tensors.update({name: tensors[name].fill_(255)}))
    message = _refusal(tmp_path / "a.safetensors", data)
    assert f"{where}: a code outside the quantizer's {levels} levels" in message


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("packed", torch.zeros(143, dtype=torch.uint8), "take 144 bytes, found 143"),
        ("packed", torch.zeros(0, dtype=torch.uint8), "take 144 bytes, found 0"),
        ("packed", torch.zeros(144, dtype=torch.int16), "one row of bytes"),
        ("packed", torch.zeros(12, 12, dtype=torch.uint8), "one row of bytes"),
        ("packed", None, "no packed codes or no scale"),
        ("scale", None, "no packed codes or no scale"),
        ("scale", torch.ones(7), "expected torch.float32 [8]"),
        ("codes", torch.ones(8, 8, 3, 3, dtype=torch.int16), "beside its packed"),
    ],
)
def test_packed_codes_that_are_wrong(
    frozen_bytes: bytes, part: str, value: Tensor | None, says: str, tmp_path: Path
) -> None:
    """Too few, of another type, missing; and codes beside the packed ones are not taken."""
    name = f"{LAYER}.conv.quantizer.{part}"

    def change(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value

    assert says in _refusal(tmp_path / "a.safetensors", _changed(frozen_bytes, change))


def test_a_frozen_file_cannot_be_full_precision(frozen_bytes: bytes, tmp_path: Path) -> None:
    """There are no codes at 32 bits."""
    data = _changed(frozen_bytes, _config(bits=32))
    message = _refusal(tmp_path / "a.safetensors", data)
    assert "a frozen checkpoint cannot be full precision" in message


# Freezing and starting from other weights.


def test_the_twin_cannot_be_frozen(tiny_detector: DetectorFactory) -> None:
    """It says what to do."""
    with pytest.raises(ModelError, match="train it with --bits"):
        freeze(tiny_detector(bits=32))


def test_a_frozen_detector_cannot_be_trained(tiny_detector: DetectorFactory) -> None:
    """Neither by calling it in training mode nor by starting another from it."""
    frozen = freeze(tiny_detector())
    with pytest.raises(ModelError, match="cannot be trained"):
        frozen.train()(_images())
    with pytest.raises(ModelError, match="use the latent one"):
        load_weights(tiny_detector(), frozen)


def test_a_layer_without_a_table_is_named(tiny_detector: DetectorFactory) -> None:
    """An input scale of zero: no table, and no checkpoint that would lie about it."""
    detector = tiny_detector()
    quantizer = dict(quantised_chains(detector))["stages.1.0.conv2"].quantizer
    assert isinstance(quantizer, SlrActivation)
    assert isinstance(quantizer.inner, N2uqActivation)
    with torch.no_grad():
        quantizer.inner.scale1.zero_()
    freeze(detector)
    for attempt in (tables, checkpoint_bytes):
        with pytest.raises(ModelError, match=r"layer stages\.1\.0\.conv2: .*non-decreasing"):
            attempt(detector)


def test_weights_of_the_twin_start_a_quantised_detector(tiny_detector: DetectorFactory) -> None:
    """Everything but the quantizers is the source's; the quantizers stay as they were."""
    source = tiny_detector(bits=32, seed=1)
    target = tiny_detector(bits=2, seed=2)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    load_weights(target, source)
    for key, value in target.state_dict().items():
        want = before[key] if ".quantizer." in key else source.state_dict()[key]
        assert torch.equal(value, want), key


def test_weights_of_another_width_leave_the_quantizers(tiny_detector: DetectorFactory) -> None:
    """From 3 bits to 2: other gaps, other codes, so only what both share is copied."""
    source, target = tiny_detector(bits=3, seed=1), tiny_detector(bits=2)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    load_weights(target, source)
    for key, value in target.state_dict().items():
        want = before[key] if ".quantizer." in key else source.state_dict()[key]
        assert torch.equal(value, want), key


def test_weights_of_the_same_configuration_bring_their_quantizers(
    tiny_detector: DetectorFactory,
) -> None:
    """A second stage at the same width goes on where the first ended."""
    source, target = tiny_detector(seed=1, activation="lsq"), tiny_detector(activation="lsq")
    quantizer = quantised_chains(source)[3][1].quantizer
    assert isinstance(quantizer, SlrActivation)
    assert isinstance(quantizer.inner, LsqActivation)
    with torch.no_grad():
        quantizer.inner.raw_step.fill_(0.123)
    load_weights(target, source)
    for key, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key


@pytest.mark.parametrize(
    ("field", "value", "default"),
    [
        ("arch", "resnet34", "resnet23"),
        ("cqb", False, True),
        ("width", 0.5, 1.0),
        ("representation", "rgb", "npr"),
    ],
)
def test_weights_of_another_topology_do_not_fit(
    tiny_detector: DetectorFactory, field: str, value: object, default: object
) -> None:
    """Said before anything is copied."""
    target, source = tiny_detector(**{field: value}), tiny_detector(bits=32)
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    says = f"weights of a detector with {field}={default} do not fit one with {field}={value}"
    with pytest.raises(ModelError, match=says):
        load_weights(target, source)
    for key, tensor in target.state_dict().items():
        assert torch.equal(tensor, before[key]), key


# Widths of one layer, and the other backbone.


MIXED = {
    "resnet23": {
        LAYER: 8,
        "stages.1.0.conv1": 1,
        "stages.1.0.downsample": 4,
        "stages.3.2.conv2": 3,
    },
    "mobilenetv2": {
        "stages.0.0.depthwise": 8,
        "stages.1.0.expand": 3,
        "stages.1.0.project": 1,
        "stages.7": 4,
    },
}


@pytest.fixture(scope="module", params=list(MIXED))
def mixed(tiny_detector: DetectorFactory, request: pytest.FixtureRequest) -> Detector:
    """A 2-bit detector with a layer of each other width, 1/8 wide; read only."""
    arch: str = request.param
    width = 0.125 if arch == "mobilenetv2" else 1.0  # ResNets are narrow already
    return tiny_detector(arch, width=width, layer_bits=MIXED[arch])


def test_mixed_widths_are_those_of_their_layers(mixed: Detector) -> None:
    """Quantizers have the width they were given; sums are bounded by the codes that come in."""
    widths = MIXED[mixed.config.arch]
    chains = dict(quantised_chains(mixed))
    for name, chain in chains.items():
        assert chain.quantizer is not None
        assert chain.quantizer.bits == widths.get(name, 2), name
    convs = {name.removesuffix(".conv"): conv for name, conv in quantised_convolutions(mixed)}
    assert convs.pop("stem").bits == 8
    assert widths.keys() <= convs.keys()
    for name, conv in convs.items():
        assert conv.bits == widths.get(name, 2), name
        # A downsampling convolution has no chain of its own: it reads its block's first codes.
        reads = name if name in chains else name.replace("downsample", "conv1")
        assert conv.top == 2 ** widths.get(reads, 2) - 1, name


def test_mixed_widths_freeze_and_come_back(mixed: Detector, tmp_path: Path) -> None:
    """Latent and frozen files give the same logits to the bit; codes are packed at their widths."""
    want = _logits(mixed)
    assert want.unique().numel() == 3
    path = tmp_path / "mixed.safetensors"
    path.write_bytes(checkpoint_bytes(mixed))
    back = load_checkpoint(path)
    assert back.config == mixed.config
    assert torch.equal(_logits(back), want)
    assert torch.equal(_logits(freeze(back)), want)
    data = checkpoint_bytes(back)
    path.write_bytes(data)
    frozen = load_checkpoint(path)
    assert torch.equal(_logits(frozen), want)
    assert checkpoint_bytes(frozen) == data
    tensors = load(data)
    for name, conv in quantised_convolutions(frozen):
        packed = tensors[f"{name}.quantizer.packed"].numel()
        assert packed == packed_bytes(int(np.prod(conv.weight_shape)), conv.bits)
    for name, bits in MIXED[mixed.config.arch].items():
        if "downsample" not in name:
            assert tensors[f"{name}.act.quantizer.table"].shape == (2**bits - 1,)


def test_mixed_widths_start_from_one_width(mixed: Detector, tiny_detector: DetectorFactory) -> None:
    """Another ``layer_bits`` is the same topology: weights are taken, quantizers start anew."""
    config = mixed.config
    target = tiny_detector(config.arch, seed=3, width=config.width)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    load_weights(target, mixed)
    for key, value in target.state_dict().items():
        want = before[key] if ".quantizer." in key else mixed.state_dict()[key]
        assert torch.equal(value, want), key


def test_a_layer_of_another_width_in_a_frozen_file(mixed: Detector, tmp_path: Path) -> None:
    """A configuration that says 2 bits of a layer packed at another width is refused."""
    data = checkpoint_bytes(freeze(copy.deepcopy(mixed)))
    name, *others = MIXED[mixed.config.arch]
    wrong = _config(layer_bits={other: MIXED[mixed.config.arch][other] for other in others})
    assert f"{name}.conv: " in _refusal(tmp_path / "a.safetensors", _changed(data, wrong))


def test_a_checkpoint_relabelled_as_another_representation_is_refused(
    latent_bytes: bytes, tmp_path: Path
) -> None:
    """Same names, shapes and types; only what a pixel is worth tells."""
    path = tmp_path / "relabelled.safetensors"
    path.write_bytes(latent_bytes.replace(b'\\"npr\\"', b'\\"rgb\\"'))
    with pytest.raises(CheckpointError, match="its stem was not made for rgb"):
        load_checkpoint(path)
