"""What a calibrated checkpoint says of its origin."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from qmdd.calibration.calibrate import Plan
from qmdd.calibration.images import CalibrationImages
from qmdd.calibration.ranges import Method
from qmdd.calibration.session import open_session, peak_memory
from qmdd.calibration.train import save_detector
from qmdd.models import Detector


def test_a_checkpoint_says_how_it_was_made(
    source: Detector, image_folder: Path, tmp_path: Path
) -> None:
    """Method, data, seed, source, and whatever the source's own notes say."""
    path = tmp_path / "latent.safetensors"
    save_detector(source, path, {"recipe": "{}"})
    session = open_session(path, image_folder, count=8, seed=5)
    notes = session.notes(Plan(4, Method("percentile", 99.0), layer_bits=(("a", 8),)))
    assert notes.keys() == {"recipe", "calibration"}
    images = CalibrationImages(image_folder, count=8, seed=5)
    assert json.loads(notes["calibration"]) == {
        "method": "percentile",
        "percentile": 99.0,
        "bits": 4,
        "slr": False,
        "layer_bits": {"a": 8},
        "seed": 5,
        "images": 8,
        "real": 4,
        "fake": 4,
        "skipped": 0,
        "data": images.digest,
        "source": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def test_peak_memory_is_that_of_a_process_with_torch() -> None:
    peak = peak_memory()
    assert peak is None or 50e6 < peak < 50e9
