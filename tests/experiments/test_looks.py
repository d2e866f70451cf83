"""Figures that look into networks: what they count, on small or known subjects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ablation import inputs, layer_error, logarithm, paths
from ablation.layer_error import INPUT, layer_errors
from ablation.subjects import SHOWN
from qmdd.exporter.samples import sample_images
from qmdd.models import Detector
from qmdd.models.chain import ActivationChain
from qmdd.models.npr import npr

DetectorFactory = Callable[..., Detector]


def _images(count: int = 4, side: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


# Fig. 3


def test_layer_errors(tiny_detector: DetectorFactory) -> None:
    """Against the definition, worked out apart: input by hand, the rest by its bounds."""
    detector = tiny_detector(bits=32, slr=False)
    fit, held_out = _images(4), _images(6)[2:]
    rows = layer_errors(detector, fit, held_out, 4)
    chains = [n for n, m in detector.named_modules() if isinstance(m, ActivationChain)]
    assert [row["layer"] for row in rows] == [INPUT, *(n.removesuffix(".act") for n in chains)]

    seen = npr(fit.float()) * detector.stem.gain
    exact = npr(held_out.float()) * detector.stem.gain
    low, high = min(float(seen.min()), 0.0), max(float(seen.max()), 0.0)
    step = (high - low) / 15
    zero = round(-low / step)
    grid = (torch.round(exact.double() / step).clamp(-zero, 15 - zero)) * step
    mse = float((exact.double() - grid).square().mean())
    assert rows[0]["mse"] == pytest.approx(mse, rel=1e-3)  # float32 against float64
    assert rows[0]["relative"] == pytest.approx(mse / float(exact.double().var()), rel=1e-3)
    # Nothing is quantised before the input and the first layer.
    assert rows[0]["arriving"] == rows[1]["arriving"] == 0
    assert all(row["arriving"] > 0 for row in rows[2:])
    coarse = layer_errors(detector, fit, held_out, 2)
    assert all(c["mse"] > r["mse"] > 0 for c, r in zip(coarse, rows, strict=True))


def test_layer_errors_leave_the_network_alone(tiny_detector: DetectorFactory) -> None:
    """No hook stays, not even after an error; logits before and after are the same."""
    detector, images = tiny_detector(bits=32), _images()
    with torch.no_grad():
        before = detector(images)
    layer_errors(detector, images, images, 4)
    with torch.no_grad():
        assert torch.equal(detector(images), before)
    with pytest.raises(RuntimeError):
        layer_errors(detector, images[:, :1], images, 4)
    assert not any(module._forward_hooks for module in detector.modules())


# Fig. 4


@pytest.mark.parametrize("kind", inputs.KINDS)
def test_inputs_are_quantised_over_their_own_range(kind: str) -> None:
    """Sixteen levels at most, 0 among them, no value further off than half a step plus clipping."""
    values = inputs.represented(kind, _images(1))
    grid, step = inputs.quantised(values)
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    assert step == pytest.approx((high - low) / 15)
    assert len(grid.unique()) <= 16
    assert (grid == 0).any()
    # Laying 0 on the grid moves its ends by up to half a step, which clips.
    assert float((values - grid).abs().max()) <= step * 1.001
    assert float((values - grid).abs().median()) <= step / 2


def test_orders_kept() -> None:
    before = torch.tensor([0.0, 1.0, -2.0, 3.0, 4.0])
    after = torch.tensor([5.0, 1.0, -1.0, 0.0, -4.0])
    assert inputs._signs_kept(before, after) == 0.5


# Fig. 6


def test_paths_add_up(tiny_detector: DetectorFactory) -> None:
    """``alpha * main + (1 - alpha) * auxiliary`` is the sum, in every convolution."""
    detector = tiny_detector()
    with torch.no_grad():
        for number, (name, parameter) in enumerate(detector.named_parameters()):
            if name.endswith(".alpha"):
                parameter.fill_(0.2 + 0.6 * (number % 7) / 7)
    found = paths.both_paths(detector, _images())
    assert len(found) == 18
    assert len({both.alpha for both in found.values()}) > 3
    for both in found.values():
        want = both.alpha * both.main + (1 - both.alpha) * both.auxiliary
        torch.testing.assert_close(both.sum, want, rtol=1e-4, atol=1e-5)
    assert not any(module._forward_pre_hooks for module in detector.modules())


def test_edges() -> None:
    """A vertical step of grey is an edge where it is, and nowhere else."""
    image = torch.zeros(1, 3, 32, 32)
    image[..., 16:] = 200
    found = paths.edges(image, 8, 8)[0]
    assert torch.equal(found > 0, torch.arange(8).expand(8, 8).sub(3.5).abs() < 1)
    assert paths._correlation(found[None], 2 * found[None] + 1) == pytest.approx(1)


# Fig. 7


def test_uniform_shares_and_what_is_counted_on_them() -> None:
    values = np.array([0.0] * 95 + [1.0, 2.0, 3.0] + [15.0, 15.0])
    shares = logarithm.uniform_shares(values, 16)
    assert shares[0] == 0.95
    assert shares[15] == 0.02
    # The emptiest 12 levels serve nothing, one more each 1, 2, 3 %; with the 15th it is 5 %.
    assert logarithm.idle(shares) == 14 / 16 if shares[1:4].sum() == 0.03 else False
    assert logarithm.entropy(np.array([0.25] * 4)) == 2
    assert logarithm.entropy(np.array([1.0, 0.0])) == 0
    assert logarithm.skewness(np.array([-1.0, 0.0, 1.0])) == pytest.approx(0)
    assert logarithm.skewness(np.array([0.0, 0.0, 0.0, 1.0])) > 1


def test_what_reaches_a_quantizer(tiny_detector: DetectorFactory) -> None:
    """The logarithm and the table are the quantizer's own: both count the same codes."""
    detector = tiny_detector()
    found = logarithm.reaching(detector, _images())
    assert len(found) == 18
    for slr, x in found.values():
        codes = slr.codes(x)
        table = torch.from_numpy(slr.table())
        assert torch.equal(codes, (x[..., None] >= table).sum(-1).float())
        logarithms = logarithm.shifted_log(slr, x)
        highest = logarithms[codes == codes.max()].min()
        assert float(logarithms[codes < codes.max()].max()) < float(highest)


# All of them


@pytest.mark.parametrize("module", [inputs, paths, logarithm])
def test_measured_once_and_drawn(
    module: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the built-in checkpoint and the sample shown: measured once, drawn twice alike."""
    one = [path for path in sample_images() if path.name == SHOWN]
    monkeypatch.setattr(module, "sample_images", lambda: one)
    module.run(tmp_path)  # type: ignore[attr-defined]
    result = tmp_path / f"{module.FIGURE}.json"  # type: ignore[attr-defined]
    before = (result.read_bytes(), result.stat().st_mtime_ns)
    module.run(tmp_path)  # type: ignore[attr-defined]
    assert (result.read_bytes(), result.stat().st_mtime_ns) == before
    first = [p.read_bytes() for p in module.draw(tmp_path, tmp_path / "a")]  # type: ignore[attr-defined]
    second = [p.read_bytes() for p in module.draw(tmp_path, tmp_path / "b")]  # type: ignore[attr-defined]
    assert first == second


def test_layers_are_drawn(tmp_path: Path) -> None:
    """From a result made up here: plot, one table a width, every layer in it."""
    from ablation.results import write_figure

    rows = [
        {
            **{"kind": kind, "seed": seed, "bits": bits, "layer": layer},
            **{"mse": 0.1 * (place + 1), "relative": 0.01, "arriving": 0.02 * place},
        }
        for kind in layer_error.KINDS
        for seed in (0, 1)
        for bits in layer_error.WIDTHS
        for place, layer in enumerate((INPUT, "first", "second"))
    ]
    write_figure(tmp_path, "fig3", {"rows": rows, "images": 4})
    written = layer_error.draw(tmp_path, tmp_path)
    assert [path.name for path in written] == ["fig3.svg", "fig3_4bit.csv", "fig3_2bit.csv"]
    assert [line.split(",")[0] for line in written[1].read_text().splitlines()[1:]] == [
        INPUT,
        "first",
        "second",
    ]
