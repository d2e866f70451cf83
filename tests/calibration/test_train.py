"""Training: seeded, resumable to the byte, and clear about what it refuses.

Detectors are an eighth of their width here; loop, optimizer and state are the real ones.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch.nn import functional as F

from qmdd.calibration import train
from qmdd.calibration.batches import Augmentation, Batches, ImageStore
from qmdd.calibration.errors import CalibrationError
from qmdd.calibration.recipe import Recipe, Stage
from qmdd.calibration.train import (
    STATE,
    Progress,
    Trainer,
    latent_from,
    learning_rate,
    save_detector,
)
from qmdd.models import Detector
from qmdd.models.checkpoint import checkpoint_bytes, freeze, load_checkpoint
from qmdd.runtime import files
from qmdd.runtime.errors import DataError
from qmdd.runtime.folder import scan

pytestmark = pytest.mark.usefixtures("narrow")

DetectorFactory = Callable[..., Detector]

#: Two stages of six steps each, over twelve images.
FLOAT = Stage(bits=32, epochs=2, lr=2e-3, batch=4, crop=32, warmup=2)
LOW_BIT = Stage(bits=2, epochs=2, lr=1e-3, batch=4, crop=32, warmup=1, even=True)
RECIPE = Recipe(stages=(FLOAT, LOW_BIT), seed=3, statistics=12)
ONE_STAGE = dataclasses.replace(RECIPE, stages=(FLOAT,))


class Killed(BaseException):
    """What a callback raises in place of a signal."""


def _killer(points: set[tuple[int, int]]) -> Callable[[Progress], None]:
    """Raise the first time that training reaches each ``(stage, step)``."""

    def report(progress: Progress) -> None:
        where = (progress.stage, progress.step)
        if where in points:
            points.remove(where)
            raise Killed

    return report


def _unbroken(recipe: Recipe, data: Path, out: Path) -> bytes:
    return checkpoint_bytes(Trainer(recipe, data, out).run())


def _killed(recipe: Recipe, data: Path, out: Path, points: set[tuple[int, int]]) -> bytes:
    """Train, be killed at every one of ``points``, start again each time in the same folder."""
    kills = len(points)
    for attempt in range(kills + 1):
        torch.manual_seed(1000 + attempt)  # a new process starts with any generator state
        np.random.seed(attempt)  # noqa: NPY002 - likewise
        trainer = Trainer(recipe, data, out, save_every=2, report=_killer(points))
        try:
            done = trainer.run()
        except Killed:
            continue
        assert attempt == kills
        assert points == set()
        return checkpoint_bytes(done)
    raise AssertionError("killed more often than there were points")


@pytest.fixture(scope="module")
def reference(
    image_folder: Path, tmp_path_factory: pytest.TempPathFactory, narrow_module: None
) -> bytes:
    """The checkpoint of the unbroken run of ``RECIPE``."""
    return _unbroken(RECIPE, image_folder, tmp_path_factory.mktemp("unbroken"))


def test_the_same_run_gives_the_same_bytes(
    reference: bytes, image_folder: Path, tmp_path: Path
) -> None:
    """Seeded: twice the same; another seed is another detector."""
    assert _unbroken(RECIPE, image_folder, tmp_path / "again") == reference
    other = dataclasses.replace(RECIPE, seed=4)
    assert _unbroken(other, image_folder, tmp_path / "other") != reference


@pytest.mark.parametrize(
    "points",
    [
        {(1, 1)},  # before anything was saved
        {(1, 3)},  # within the first stage
        {(1, 6)},  # after its last step, before it was saved
        {(2, 1)},  # between the stages
        {(2, 4)},  # after a step that would have been saved
        {(2, 6)},  # at the very end
        {(1, 2), (1, 5), (1, 6), (2, 1), (2, 3), (2, 5)},  # again and again
    ],
)
def test_a_killed_run_ends_as_the_unbroken_one(
    points: set[tuple[int, int]], reference: bytes, image_folder: Path, tmp_path: Path
) -> None:
    """Weights, statistics, quantizers: the same bytes wherever it was killed."""
    assert _killed(RECIPE, image_folder, tmp_path, set(points)) == reference


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "lsq", "weight": "lsq"},
        {"activation": "minmax", "weight": "minmax", "slr": False},
        {"cqb": False, "precision": "bfloat16"},
    ],
)
def test_every_quantizer_resumes(
    options: dict[str, object], image_folder: Path, tmp_path: Path
) -> None:
    """Running ranges, first-batch steps and autocast are state too, or follow from it."""
    recipe = dataclasses.replace(RECIPE, **options)  # type: ignore[arg-type]
    want = _unbroken(recipe, image_folder, tmp_path / "unbroken")
    points = {(1, 4), (2, 1), (2, 3), (2, 4)}
    assert _killed(recipe, image_folder, tmp_path / "killed", points) == want


def test_two_stages_at_one_width_resume(image_folder: Path, tmp_path: Path) -> None:
    """The second goes on with the first one's quantizers, and has moments of its own."""
    recipe = dataclasses.replace(RECIPE, stages=(LOW_BIT, LOW_BIT))
    want = _unbroken(recipe, image_folder, tmp_path / "unbroken")
    points = {(1, 5), (2, 1), (2, 5)}
    assert _killed(recipe, image_folder, tmp_path / "killed", points) == want


def test_a_failed_write_of_the_state_loses_only_steps(
    reference: bytes, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the third save: the second is still whole, and the run goes on from it."""
    calls = []

    def full_disk(path: Path, data: bytes) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        write(path, data)

    write = files.write_atomically
    monkeypatch.setattr(train, "write_atomically", full_disk)
    with pytest.raises(OSError, match="No space left"):
        Trainer(RECIPE, image_folder, tmp_path, save_every=2).run()
    assert [path.name for path in tmp_path.iterdir()] == [STATE]
    done = Trainer(RECIPE, image_folder, tmp_path, save_every=2).run()
    assert checkpoint_bytes(done) == reference


def test_a_finished_run_gives_its_result_again(
    reference: bytes, image_folder: Path, tmp_path: Path
) -> None:
    """No further step is made."""
    Trainer(RECIPE, image_folder, tmp_path).run()
    steps: list[Progress] = []
    again = Trainer(RECIPE, image_folder, tmp_path, report=steps.append).run()
    assert steps == []
    assert checkpoint_bytes(again) == reference


def test_the_result_is_a_usable_checkpoint(
    reference: bytes, image_folder: Path, tmp_path: Path
) -> None:
    """Latent and frozen forms load, with equal logits; the detector is in evaluation mode."""
    path = tmp_path / "latent.safetensors"
    path.write_bytes(reference)
    detector = load_checkpoint(path)
    assert detector.config == RECIPE.config(2)
    images = Batches(ImageStore(scan(image_folder)), 4, Augmentation(64), 0).get(0)[0]
    with torch.no_grad():
        want = detector(images)
    frozen = tmp_path / "frozen.safetensors"
    save_detector(freeze(detector), frozen, {"recipe": "tiny"})
    with torch.no_grad():
        assert torch.equal(load_checkpoint(frozen)(images), want)
    with pytest.raises(CalibrationError, match="training starts from a latent checkpoint"):
        latent_from(frozen)


# What is refused.


@pytest.fixture
def begun(image_folder: Path, tmp_path: Path) -> Path:
    """A folder in which ``ONE_STAGE`` was killed at its third step, the second saved."""
    out = tmp_path / "run"
    trainer = Trainer(ONE_STAGE, image_folder, out, save_every=2, report=_killer({(1, 3)}))
    with pytest.raises(Killed):
        trainer.run()
    return out


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5},
        {"statistics": 11},
        {"activation": "lsq"},
        {"stages": (dataclasses.replace(FLOAT, lr=1e-3),)},
        {"stages": (FLOAT, LOW_BIT)},
    ],
)
def test_another_recipe_in_the_same_folder(
    change: dict[str, object], begun: Path, image_folder: Path
) -> None:
    """Resuming it would be neither run; the state is left as it was."""
    before = (begun / STATE).read_bytes()
    recipe = dataclasses.replace(ONE_STAGE, **change)  # type: ignore[arg-type]
    with pytest.raises(CalibrationError, match="another recipe or other data"):
        Trainer(recipe, image_folder, begun).run()
    assert (begun / STATE).read_bytes() == before


def test_other_data_in_the_same_folder(begun: Path, image_folder: Path, tmp_path: Path) -> None:
    """One image fewer; but the same data at another place is the same."""
    copy = tmp_path / "copy"
    shutil.copytree(image_folder, copy)
    moved = Trainer(ONE_STAGE, copy, begun, report=_killer({(1, 4)}))
    with pytest.raises(Killed):
        moved.run()
    (copy / "alpha" / "0_real" / "1.png").unlink()
    with pytest.raises(CalibrationError, match="another recipe or other data"):
        Trainer(ONE_STAGE, copy, begun).run()


def _without(prefix: str) -> Callable[[bytes], bytes]:
    """The state less the first tensor whose name begins so."""

    def change(data: bytes) -> bytes:
        tensors = load(data)
        del tensors[min(name for name in tensors if name.startswith(prefix))]
        return _resaved(data, tensors)

    return change


def _with(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[bytes], bytes]:
    """The state with another tensor in place of the one called ``name``."""

    def changed(data: bytes) -> bytes:
        tensors = load(data)
        return _resaved(data, {**tensors, name: change(tensors[name]).contiguous()})

    return changed


def _resaved(data: bytes, tensors: dict[str, torch.Tensor], **metadata: str) -> bytes:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return save(tensors, {**header["__metadata__"], **metadata})


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:1000],
        lambda data: data[:-1],
        lambda data: b"not a state at all",
        lambda data: save(load(data)),
        lambda data: _resaved(data, load(data), step="soon"),
        lambda data: _resaved(data, load(data), stage="7"),
        lambda data: _resaved(data, load(data), stage="-1"),
        lambda data: _resaved(data, load(data), step="-1"),
        _with("adam.exp_avg.head.fc.bias", lambda tensor: tensor.reshape(())),
        _with("adam.exp_avg_sq.head.fc.bias", lambda tensor: tensor.to(torch.int32)),
        lambda data: _resaved(data, {k: v.reshape(-1)[:1] for k, v in load(data).items()}),
        _without("model.head.fc"),
        _without("adam.exp_avg."),
        _without("adam.step."),
    ],
)
def test_a_damaged_state(change: Callable[[bytes], bytes], begun: Path, image_folder: Path) -> None:
    """Cut, foreign, of another stage, or with a tensor gone: one line that says what to do."""
    state = begun / STATE
    state.write_bytes(change(state.read_bytes()))
    with pytest.raises(CalibrationError) as caught:
        Trainer(ONE_STAGE, image_folder, begun).run()
    message = str(caught.value)
    assert message.startswith(f"{state}: not a training state (")
    assert message.endswith("; remove it to start over")
    assert "\n" not in message


def test_data_that_cannot_be_used(image_folder: Path, tmp_path: Path) -> None:
    """Too few images for a batch, and a folder that is none, before any step."""
    stage = dataclasses.replace(FLOAT, batch=13)
    with pytest.raises(DataError, match="fewer than one batch of 13"):
        Trainer(dataclasses.replace(RECIPE, stages=(stage,)), image_folder, tmp_path).run()
    with pytest.raises(DataError, match="no such folder"):
        Trainer(RECIPE, tmp_path / "none", tmp_path)


def test_a_loss_that_is_not_finite(
    image_folder: Path, tmp_path: Path, tiny_detector: DetectorFactory
) -> None:
    """The step is named, and what was lost is never saved over a good state."""
    broken = tiny_detector(bits=32)
    with torch.no_grad():
        broken.head.fc.weight.fill_(float("inf"))
    trainer = Trainer(ONE_STAGE, image_folder, tmp_path, init=broken, save_every=1)
    says = r"step 1: the loss is (nan|inf), the norm of its gradient (nan|inf); lower"
    with pytest.raises(CalibrationError, match=says):
        trainer.run()
    assert list(tmp_path.iterdir()) == []


# What a step is.


def test_the_first_step_starts_from_the_given_weights(
    image_folder: Path, tmp_path: Path, tiny_detector: DetectorFactory
) -> None:
    """``init`` into the first stage: its loss is that of the weights given, on the first batch.

    Training runs channels last, so sums come in another order: 1e-5 of the loss.
    """
    given = tiny_detector(bits=32, seed=5)
    losses: list[float] = []

    def report(progress: Progress) -> None:
        losses.append(progress.loss)
        raise Killed

    with pytest.raises(Killed):
        Trainer(ONE_STAGE, image_folder, tmp_path, init=given, report=report).run()
    store = ImageStore(scan(image_folder))
    images, labels = Batches(store, 4, Augmentation(32), seed=3000).get(0)
    given.train()
    with torch.no_grad():
        want = F.binary_cross_entropy_with_logits(given(images), labels)
    assert losses == [pytest.approx(float(want), rel=1e-5)]


def test_progress_counts_stages_and_steps(image_folder: Path, tmp_path: Path) -> None:
    """Every step once, in order, with a finite loss."""
    steps: list[Progress] = []
    Trainer(RECIPE, image_folder, tmp_path, report=steps.append).run()
    want = [(stage, 2, step, 6) for stage in (1, 2) for step in range(1, 7)]
    assert [(p.stage, p.stages, p.step, p.steps) for p in steps] == want
    assert all(math.isfinite(p.loss) for p in steps)


def test_training_learns_what_can_be_learnt(image_folder: Path, tmp_path: Path) -> None:
    """Doubled pixels against plain ones: the loss falls below half of where chance is (ln 2)."""
    stage = dataclasses.replace(FLOAT, epochs=30, batch=6, even=True, warmup=5)
    losses: list[float] = []
    recipe = dataclasses.replace(ONE_STAGE, stages=(stage,))
    Trainer(recipe, image_folder, tmp_path, report=lambda p: losses.append(p.loss)).run()
    assert np.mean(losses[-10:]) < math.log(2) / 2


def test_learning_rate() -> None:
    """Linear to the peak over the warm-up, then a cosine that ends at nothing."""
    stage = Stage(bits=32, epochs=1, lr=0.01, warmup=4)
    rates = [learning_rate(stage, step, 104) for step in range(104)]
    assert rates[:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert rates[4] == pytest.approx(0.01)
    assert rates[54] == pytest.approx(0.005)  # half way: cos = 0
    assert rates[29] == pytest.approx(0.005 * (1 + math.cos(math.pi / 4)))
    assert rates[103] == pytest.approx(0.005 * (1 + math.cos(math.pi * 0.99)))
    assert all(a >= b for a, b in itertools.pairwise(rates[4:]))
    short = dataclasses.replace(stage, warmup=50)
    assert all(learning_rate(short, step, 10) > 0 for step in range(10))
    assert learning_rate(dataclasses.replace(stage, warmup=0), 0, 10) == pytest.approx(0.01)


def test_weight_decay_is_for_weights_only(tiny_detector: DetectorFactory) -> None:
    """Convolution and linear weights; no bias, slope, batch-norm, alpha or quantizer parameter."""
    detector = tiny_detector()
    optimizer = train._optimizer(detector, FLOAT)
    names = {id(p): name for name, p in detector.named_parameters()}
    decayed, plain = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert optimizer.param_groups[0]["weight_decay"] == FLOAT.weight_decay
    assert optimizer.param_groups[1]["weight_decay"] == 0.0
    assert decayed | plain == set(names.values())
    assert not decayed & plain
    assert decayed == {
        name for name in names.values() if name.endswith((".conv.weight", ".downsample.weight"))
    } | {"head.fc.weight"}


def test_statistics_are_taken_anew_over_whole_images(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain average over batches of 256-pixel crops, no trace of training's running ones.

    Checked at the stem: mean and unbiased variance of its convolution over one batch of all images,
    float64, 1e-4 of the largest. With ``statistics=0`` training's own stay.
    """
    recipe = dataclasses.replace(ONE_STAGE, statistics=12)
    detector = Trainer(recipe, image_folder, tmp_path / "a").run()
    untouched = Trainer(
        dataclasses.replace(recipe, statistics=0), image_folder, tmp_path / "b"
    ).run()
    store = ImageStore(scan(image_folder))
    images = Batches(store, 12, Augmentation(256, turn=False), seed=7).get(0)[0]
    stem = detector.stem
    weight = stem.conv.latent().detach().double()
    values = (stem.residual(images) * stem.gain).double()
    sums = F.conv2d(values, weight, stride=2, padding=3)
    bn = stem.conv.bn
    for have, want in (
        (bn.running_mean, sums.mean(dim=(0, 2, 3))),
        (bn.running_var, sums.var(dim=(0, 2, 3))),
    ):
        assert have is not None
        assert float((have - want).abs().max()) <= 1e-4 * float(want.abs().max())
    assert bn.momentum == 0.1
    assert int(bn.num_batches_tracked or 0) == 1
    assert int(untouched.stem.conv.bn.num_batches_tracked or 0) == 6
    assert torch.equal(stem.conv.latent(), untouched.stem.conv.latent())


def test_other_initial_weights_are_another_run(
    image_folder: Path, tmp_path: Path, tiny_detector: DetectorFactory
) -> None:
    """A state that began with other weights is not gone on with."""
    recipe = dataclasses.replace(RECIPE, stages=(LOW_BIT,))
    first, second = tiny_detector(bits=2, seed=1), tiny_detector(bits=2, seed=2)
    Trainer(recipe, image_folder, tmp_path, init=first).run()
    with pytest.raises(CalibrationError, match="another recipe or other data"):
        Trainer(recipe, image_folder, tmp_path, init=second).run()


def test_an_infinite_gradient_ends_the_run(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss may be finite while its gradient is not; no NaN weight is ever saved."""
    norm = torch.tensor(math.inf)
    monkeypatch.setattr(train.nn.utils, "clip_grad_norm_", lambda *_: norm)
    with pytest.raises(CalibrationError, match="norm of its gradient inf"):
        Trainer(ONE_STAGE, image_folder, tmp_path).run()
    assert not (tmp_path / STATE).exists()


def test_a_file_in_the_place_of_the_run(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(CalibrationError, match="not a folder"):
        Trainer(ONE_STAGE, image_folder, tmp_path / "run").run()
    assert (tmp_path / "run").read_text() == "mine"
