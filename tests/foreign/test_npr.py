"""The published NPR detector: imported, it computes what its own forward computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qmdd.models import CheckpointError, build_detector
from qmdd.models.checkpoint import Checkpoint, load_checkpoint, load_weights
from qmdd.models.foreign import FORMATS, Imported, import_checkpoint

Change = Callable[[dict[str, Tensor]], Any]


def _save(net: nn.Module, path: Path, change: Change | None = None, **options: Any) -> Path:
    state = dict(net.state_dict())
    if change is not None:
        change(state)
    torch.save(state, path, **options)
    return path


def _difference(net: Any, imported: Imported, images: Tensor) -> float:
    with torch.no_grad():
        want = net.double()(images)
        have = imported.detector(images)
    assert want.unique().numel() == len(images)
    return float((want - have.double()).abs().max())


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_logits_are_those_of_the_published_forward(
    npr_net: Any, some_images: Tensor, tmp_path: Path, new: bool
) -> None:
    """Float64 against float32: 1e-6 of logits of about one (measured: 2e-7 at full width)."""
    net = npr_net()
    path = _save(net, tmp_path / "NPR.pth", _use_new_zipfile_serialization=new)
    imported = import_checkpoint(path)
    assert _difference(net, imported, some_images) < 1e-6


def test_every_tensor_is_accounted_for(npr_net: Any, tmp_path: Path) -> None:
    """All of the file's are mapped, one to one; only our constant has no source."""
    net = npr_net()
    imported = import_checkpoint(_save(net, tmp_path / "a.pth"), format="npr")
    keys = list(net.state_dict())
    assert imported.format == "npr"
    assert [row.source for row in imported.rows[: len(keys)]] == keys
    ours = [row.ours for row in imported.rows]
    assert sorted(map(str, ours)) == sorted(imported.detector.state_dict())
    assert imported.counts == {"mapped": len(keys), "dropped": 0, "unknown": 0, "initialised": 1}
    assert imported.rows[-1].ours == "stem.gain"
    for row in imported.rows[: len(keys)]:
        assert row.shape == tuple(net.state_dict()[row.source].shape)
    assert imported.notes == []


def test_the_configuration_is_the_published_networks(npr_net: Any, tmp_path: Path) -> None:
    config = import_checkpoint(_save(npr_net(), tmp_path / "a.pth")).detector.config
    assert (config.arch, config.bits, config.width) == ("npr_resnet50", 32, 0.125)
    assert (config.cqb, config.slr, config.representation) == (False, False, "npr")


def test_an_old_file_has_no_counters(npr_net: Any, some_images: Tensor, tmp_path: Path) -> None:
    """``num_batches_tracked`` came with torch 0.4.1; nothing is computed with it."""
    net = npr_net()

    def strip(state: dict[str, Tensor]) -> None:
        for key in [key for key in state if key.endswith("num_batches_tracked")]:
            del state[key]

    imported = import_checkpoint(_save(net, tmp_path / "a.pth", strip))
    assert _difference(net, imported, some_images) < 1e-6
    rest = [row for row in imported.rows if row.status == "initialised"]
    assert len(rest) == 1 + 1 + 3 * 7 + 2  # our constant; a counter for each batch-norm
    assert {row.note for row in rest[1:]} == {"not in the file; it only counts batches"}


def test_it_comes_back_from_its_checkpoint(
    npr_net: Any, some_images: Tensor, tmp_path: Path
) -> None:
    """The same bytes each time; the file says where it is from."""
    path = _save(npr_net(), tmp_path / "NPR.pth")
    imported = import_checkpoint(path)
    data = imported.checkpoint_bytes()
    assert data == import_checkpoint(path).checkpoint_bytes()
    (tmp_path / "a.safetensors").write_bytes(data)
    metadata = Checkpoint(tmp_path / "a.safetensors").metadata
    assert '"file": "NPR.pth"' in metadata["imported"]
    assert imported.sha256 in metadata["imported"]
    with torch.no_grad():
        again = load_checkpoint(tmp_path / "a.safetensors")(some_images)
        assert torch.equal(again, imported.detector(some_images))


@pytest.mark.parametrize("bits", [2, 8])
def test_a_quantised_network_starts_from_it(npr_net: Any, tmp_path: Path, bits: int) -> None:
    """``qmdd train --init``: everything but the quantizers' own numbers is taken over."""
    source = import_checkpoint(_save(npr_net(), tmp_path / "a.pth")).detector
    target = build_detector("npr_resnet50", bits, cqb=False, slr=False, width=0.125)
    load_weights(target, source)
    state = target.state_dict()
    for key, tensor in source.state_dict().items():
        assert torch.equal(state[key], tensor), key
    assert {key for key in state if ".quantizer." not in key} == set(source.state_dict())


def test_dead_channels_and_huge_values_that_cancel(
    npr_net: Any, some_images: Tensor, tmp_path: Path
) -> None:
    """A channel of zeros gives its batch-norm's constant; a large weight under a large variance."""
    net = npr_net()
    with torch.no_grad():
        block = net.layer1[1]
        block.conv2.weight[3:5] = 0
        block.conv1.weight[0] *= 1e12
        block.bn1.running_mean[0] *= 1e12
        block.bn1.running_var[0] *= 1e24
    imported = import_checkpoint(_save(net, tmp_path / "a.pth"))
    assert _difference(net, imported, some_images) < 1e-6
    assert imported.notes == [
        "2 output channels hold nothing but zeros: they give what their batch-norm adds "
        "(layer1.1.conv2.weight)"
    ]


def _drop(*keys: str) -> Change:
    return lambda state: [state.pop(key) for key in keys]


def _put(**tensors: Tensor) -> Change:
    return lambda state: state.update({k.replace("__", "."): t for k, t in tensors.items()})


def _rename(before: str, after: str) -> Change:
    def change(state: dict[str, Tensor]) -> None:
        moved = {key.replace(before, after, 1): value for key, value in state.items()}
        state.clear()
        state.update(moved)

    return change


def _scale(key: str, factor: float) -> Change:
    return lambda state: state.update({key: state[key] * factor})


def _without_block(state: dict[str, Tensor]) -> None:
    for key in [key for key in state if key.startswith("layer2.3.")]:
        del state[key]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_drop("layer1.2.bn1.weight"), "1 tensor missing (layer1.2.bn1.weight); take a whole"),
        (_drop("conv1.weight"), "neither the published NPR detector (missing: conv1.weight) nor"),
        (_drop("fc1.weight"), "neither the published NPR detector (missing: fc1.weight) nor one"),
        (
            _rename("fc1", "fc"),
            "nor one of N2UQ's networks (missing: layer1.0.quan1.a); its 146 tensors begin with "
            "conv1.weight, bn1.weight, bn1.bias",
        ),
        (_rename("bn2", "norm"), "missing (layer1.0.bn2.weight, layer1.0.bn2.bias, "),
        (_rename("bn2", "norm"), "..) and 35 left over (layer1.0.norm.weight, "),
        (_drop("fc1.bias"), "1 tensor missing (fc1.bias)"),
        (_put(fc1__weight=torch.zeros(2, 64)), "fc1.weight is [2, 64], expected [1, 64]"),
        (_put(bn1__bias=torch.zeros(9)), "bn1.bias is [9], expected [8]"),
        (_put(extra=torch.zeros(9)), "1 tensor that this format does not know (extra); add --ig"),
        (_put(conv1__weight=torch.zeros(7, 3, 3, 3)), "conv1.weight has 7 output channels"),
        (_put(conv1__weight=torch.zeros(8, 3)), "conv1.weight, the stem, is missing or no conv"),
        (_put(conv1__weight=torch.zeros(8, 3, 7, 7)), "expected [8, 3, 3, 3]"),
        (_put(conv1__weight=torch.zeros(0, 3, 3, 3)), "width=0.0 must lie within"),
        (_without_block, "3, 3 bottlenecks; the published NPR detector has 3, 4 bottlenecks"),
        (_put(layer3__0__conv1__weight=torch.zeros(1)), "3, 4, 1 bottlenecks; the published"),
        (_rename("conv3", "convx"), "basic blocks; the published NPR detector"),
        (_put(bn1__running_var=torch.full((8,), -1.0)), "bn1.running_var holds negative variances"),
        (_scale("layer2.0.conv1.weight", 1e37), "some value is too large for float32 (largest: "),
        (_scale("bn1.weight", float("nan")), "bn1.weight holds NaN or infinity (8 of 8 values)"),
    ],
)
def test_what_is_not_the_published_detector_is_refused(
    npr_net: Any, tmp_path: Path, change: Change, says: str
) -> None:
    path = _save(npr_net(), tmp_path / "a.pth", change)
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)


def test_unknown_tensors_are_left_out_if_asked(npr_net: Any, tmp_path: Path) -> None:
    path = _save(npr_net(), tmp_path / "a.pth", _put(extra=torch.zeros(9)))
    imported = import_checkpoint(path, ignore_unknown=True)
    assert imported.counts["unknown"] == 1
    assert [row.note for row in imported.rows if row.source == "extra"] == ["left out, as asked"]


def test_it_has_no_width_to_choose(npr_net: Any, tmp_path: Path) -> None:
    path = _save(npr_net(), tmp_path / "a.pth")
    assert import_checkpoint(path, bits=32).format == "npr"
    with pytest.raises(CheckpointError, match="not one of 2 bits; import it without --bits"):
        import_checkpoint(path, bits=2)


def test_a_format_that_it_is_not(npr_net: Any, tmp_path: Path) -> None:
    path = _save(npr_net(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="N2UQ's published networks have others"):
        import_checkpoint(path, format="n2uq")
    assert FORMATS == ("npr", "n2uq")
