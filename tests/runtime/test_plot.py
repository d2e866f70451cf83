"""The chart of an evaluation."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qmdd.runtime.errors import RuntimeFailure
from qmdd.runtime.evaluate import Evaluation, evaluate
from qmdd.runtime.folder import Sample
from qmdd.runtime.known_sets import Seen
from qmdd.runtime.plot import check_plot, plot_bytes
from qmdd.runtime.scoring import Scored


@pytest.fixture(scope="module")
def found() -> Evaluation:
    """Two generators, one of them without real images and with a name that is no formula."""
    samples = [
        Sample(Path(f"{generator}/{label}/{index}.png"), label, generator)
        for generator, labels in (("progan", (0, 1)), ("$x_$", (1,)))
        for label in labels
        for index in range(6)
    ]
    scores = np.random.default_rng(0).random(len(samples))
    seen = Seen(frozenset({"progan"}), "given")
    return evaluate(Scored(samples, scores, []), ".", threshold=0.5, seen=seen)


def test_svg_names_generators_and_means(found: Evaluation) -> None:
    """The same bytes each time: nothing of the hour is in it."""
    data = plot_bytes(found, Path("a.svg"))
    assert data == plot_bytes(found, Path("b.SVG"))
    text = data.decode()
    # Text is drawn as shapes; matplotlib leaves it in comments.
    for name in ("ProGAN", "$x_$", "mean, seen", "mean, unseen", "Acc", "AP"):
        assert f"<!-- {name} -->" in text.replace(r"\$", "$")
    assert "<dc:date>" not in text


def test_png_is_a_picture(found: Evaluation) -> None:
    with Image.open(io.BytesIO(plot_bytes(found, Path("a.png")))) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 2
    assert plot_bytes(found, Path("a.pdf")).startswith(b"%PDF")


def test_what_cannot_be_drawn_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    check_plot(Path("a.png"))
    with pytest.raises(RuntimeFailure, match=r"a\.jpg: a plot is a \.png, \.svg, \.pdf file"):
        check_plot(Path("a.jpg"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RuntimeFailure, match=r"matplotlib is not installed; .*qmdd\[plots\]"):
        check_plot(Path("a.png"))
