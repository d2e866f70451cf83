"""``qmdd import``: from somebody's file to a score, and every refusal in one line."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor

from qmdd.models.checkpoint import load_checkpoint

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    """``invoke("import", path)``; exceptions end as they do for a user."""
    from qmdd.cli.main import cli

    return lambda *args: CliRunner().invoke(cli, [str(arg) for arg in args])


@pytest.fixture
def npr_file(npr_net: Any, tmp_path: Path) -> Path:
    torch.save(npr_net().state_dict(), tmp_path / "NPR.pth")
    return tmp_path / "NPR.pth"


@pytest.fixture
def pictures(some_images: Tensor, tmp_path: Path) -> list[Path]:
    files = []
    for index, image in enumerate(some_images):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(files[-1])
    return files


def _line(result: Result) -> str:
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("qmdd: error: ")
    return lines[0]


def test_the_published_detector_from_file_to_score(
    invoke: Invoke,
    npr_net: Any,
    npr_file: Path,
    pictures: list[Path],
    some_images: Tensor,
    tmp_path: Path,
) -> None:
    """Imported, exported in full precision, detected: the published forward's scores to 1e-5."""
    latent, bundle = tmp_path / "npr.safetensors", tmp_path / "bundle"
    done = invoke("import", npr_file, "-o", latent)
    assert done.exit_code == 0, done.stderr
    images = [arg for picture in pictures[:2] for arg in ("--images", picture)]
    done = invoke("export", "--checkpoint", latent, *images, "-o", bundle, "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["arch"], report["bits"], report["passed"]) == ("npr_resnet50", 32, True)
    done = invoke("detect", bundle, *pictures, "--json")
    assert done.exit_code == 0, done.stderr
    scores = [row["score"] for row in json.loads(done.stdout)]
    with torch.no_grad():
        logits = npr_net().double()(some_images)
    want = [1 / (1 + math.exp(-float(logit))) for logit in logits]
    np.testing.assert_allclose(scores, want, rtol=0, atol=1e-5)
    assert np.ptp(want) > 1e-3  # the test sees something


def _made_unusual(net: Any) -> None:
    """Values that training may leave and that a threshold table must not mistake."""
    with torch.no_grad():
        net.layer1[0].quan2.scale1.neg_()
        net.layer2[0].downsample[0].scale1.neg_()
        net.layer2[1].prelu1.weight[2:4] = -0.3
        net.layer3[0].prelu2.weight[5] = -0.2
        net.layer1[1].quan1.a[1] = -0.5
        net.layer3[0].conv1.weight[5] = 0


@pytest.mark.parametrize(("bits", "unusual"), [(2, False), (3, True)])
def test_an_imported_n2uq_network_is_exported_with_no_wrong_code(
    invoke: Invoke,
    n2uq_net: Any,
    save_n2uq: Any,
    with_our_stem: Any,
    pictures: list[Path],
    some_images: Tensor,
    tmp_path: Path,
    bits: int,
    unusual: bool,
) -> None:
    """From ``.pth.tar`` by way of a frozen checkpoint to a verified bundle and its scores.

    Full depth, 1/8 of the width. The scores are those of the published forward in float64 with our
    stem: to 1e-5, for the channel of zeros (see ``test_n2uq.py``).
    """
    net = n2uq_net(bits=bits, classes=1)
    if unusual:
        _made_unusual(net)
    file = save_n2uq(net, tmp_path / "model_best.pth.tar")
    latent = tmp_path / "n2uq.safetensors"
    done = invoke("import", file, "-o", latent, "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["arch"], report["bits"], report["width"]) == ("n2uq_resnet18", bits, 0.125)
    images = [arg for picture in pictures[:2] for arg in ("--images", picture)]
    frozen, bundle = tmp_path / "frozen.safetensors", tmp_path / "bundle"
    done = invoke("freeze", latent, "-o", frozen)
    assert done.exit_code == 0, done.stderr
    done = invoke("export", "--checkpoint", frozen, "--no-verify", "-o", bundle)
    assert done.exit_code == 0, done.stderr
    done = invoke("verify", bundle, "--checkpoint", frozen, *images, "--json")
    assert done.exit_code == 0, done.stderr
    tiers = json.loads(done.stdout)["parity"]
    assert len(tiers) == 2
    for tier in tiers:
        assert tier["wrong_codes"] == 0
        assert tier["codes_compared"] > 50_000
        assert len(tier["layers"]) == 19

    done = invoke("detect", bundle, *pictures, "--json")
    assert done.exit_code == 0, done.stderr
    scores = [row["score"] for row in json.loads(done.stdout)]
    net = with_our_stem(net, load_checkpoint(latent))
    with torch.no_grad():
        want = torch.sigmoid(net(some_images).squeeze(1))
    np.testing.assert_allclose(scores, want, rtol=0, atol=1e-5)
    assert np.ptp(want.numpy()) > 1e-3  # the test sees something


def test_the_report_names_every_tensor(
    invoke: Invoke, npr_net: Any, npr_file: Path, tmp_path: Path
) -> None:
    """As a table with a summary; as JSON; the same account."""
    out = tmp_path / "npr.safetensors"
    text = invoke("import", npr_file, "-o", out)
    assert text.exit_code == 0, text.stderr
    lines = [line.split() for line in text.stdout.splitlines()]
    assert lines[0] == ["in", "the", "file", "shape", "becomes", "what", "happened"]
    state = npr_net().state_dict()
    table = {line[0]: line for line in lines if len(line) > 2 and line[0] in state}
    assert set(table) == set(state)
    assert table["layer2.0.downsample.1.running_var"][1:] == [
        "64",
        "stages.1.0.downsample.bn.running_var",
        "mapped",
    ]
    assert table["bn1.num_batches_tracked"][1] == "scalar"
    assert table["conv1.weight"][1] == "8x3x3x3"
    assert f"{npr_file}: npr, npr_resnet50, full precision, width 0.125" in text.stdout
    assert f"  {len(state)} mapped, 0 dropped, 0 unknown, 1 initialised" in text.stdout
    assert f"{out}: {out.stat().st_size:,} bytes" in text.stdout

    data = json.loads(invoke("import", npr_file, "-o", out, "--force", "--json").stdout)
    assert [row["source"] for row in data["tensors"][:-1]] == list(state)
    assert data["counts"]["mapped"] == len(state)
    assert data["bytes"] == out.stat().st_size
    assert {"source", "sha256", "format", "arch", "bits", "width", "notes", "checkpoint"} <= set(
        data
    )


def test_full_precision_downsampling_needs_a_word(
    invoke: Invoke, n2uq_net: Any, save_n2uq: Any, tmp_path: Path
) -> None:
    file = save_n2uq(n2uq_net(quantised_down=False), tmp_path / "a.pth.tar")
    out = tmp_path / "a.safetensors"
    line = _line(invoke("import", file, "-o", out))
    assert "add --quantize-downsample to quantise them here, and train on" in line
    assert not out.exists()
    done = invoke("import", file, "-o", out, "--quantize-downsample", "--format", "n2uq")
    assert done.exit_code == 0, done.stderr
    assert "note: 3 downsampling convolutions were in full precision" in done.stdout


def test_refusals_are_one_line_and_leave_nothing(
    invoke: Invoke, npr_net: Any, npr_file: Path, tmp_path: Path
) -> None:
    """What is wrong with the file, or with where its import should go."""
    out = tmp_path / "out.safetensors"
    whole = npr_file.read_bytes()
    names = ("cut", "text", "extra", "code", "nan", "other", "shape")
    cut, text, extra, code, nan, other, shape = (tmp_path / f"{name}.pth" for name in names)
    cut.write_bytes(whole[: len(whole) // 2])
    text.write_text("weights\n")
    state = npr_net().state_dict()
    torch.save({**state, "\x1b[31mred": torch.zeros(1)}, extra)
    torch.save(npr_net(), code)
    torch.save({**state, "fc1.bias": torch.tensor([float("nan")])}, nan)
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 1)).state_dict(), other)
    torch.save({**state, "fc1.weight": torch.zeros(1, 9)}, shape)
    for args, says in (
        ((cut, "-o", out), "not a whole file"),
        ((text, "-o", out), "not a file that torch.save wrote"),
        ((code, "-o", out), "needs code to be unpickled"),
        ((nan, "-o", out), "fc1.bias holds NaN or infinity (1 of 1 values)"),
        ((other, "-o", out), "its 2 tensors begin with 0.weight, 0.bias"),
        ((shape, "-o", out), "fc1.weight is [1, 9], expected [1, 64]"),
        ((tmp_path / "none.pth", "-o", out), "no such file"),
        ((tmp_path, "-o", out), "a folder; name the checkpoint file in it"),
        ((extra, "-o", out), "\\x1b[31mred"),
        ((npr_file, "-o", out, "--bits", "2"), "a full-precision detector, not one of 2 bits"),
        ((npr_file, "-o", out, "--format", "n2uq"), "N2UQ's published networks have others"),
        ((npr_file, "-o", npr_file, "--force"), "the checkpoint to read itself"),
        ((npr_file, "-o", tmp_path), "a folder; name a file with --output"),
        ((npr_file, "-o", tmp_path / "none" / "a"), "no such folder"),
        ((npr_file, "-o", text), "exists; choose another --output or add --force"),
    ):
        assert says in _line(invoke("import", *args))
    assert not out.exists()
    assert npr_file.read_bytes() == whole
    done = invoke("import", extra, "-o", out, "--ignore-unknown")
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout
    assert "1 unknown" in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_that_cannot_be_written(invoke: Invoke, npr_file: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o500)
    assert "Permission denied" in _line(invoke("import", npr_file, "-o", place / "a.safetensors"))


def test_a_full_disk_leaves_nothing(
    invoke: Invoke, npr_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stood there before stays, and no part of the new file is left beside it."""
    out = tmp_path / "a.safetensors"
    out.write_bytes(b"before")
    before = sorted(tmp_path.iterdir())

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    line = _line(invoke("import", npr_file, "-o", out, "--force"))
    assert "No space left on device" in line
    assert out.read_bytes() == b"before"
    assert sorted(tmp_path.iterdir()) == before


def test_wrong_usage(invoke: Invoke) -> None:
    for args, says in (
        ((), "Missing argument 'FILE'"),
        (("a.pth",), "Missing option '-o'"),
        (("a.pth", "-o", "b", "--format", "vgg"), "'vgg' is not one of 'auto', 'npr', 'n2uq'"),
        (("a.pth", "-o", "b", "--bits", "5"), "'5' is not one of"),
    ):
        result = invoke("import", *args)
        assert result.exit_code == 2
        assert says in result.stderr


def test_formats_are_those_of_the_models() -> None:
    from qmdd.cli.import_ import FORMATS
    from qmdd.models.foreign import FORMATS as READ

    assert FORMATS == READ
