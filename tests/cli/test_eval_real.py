"""``qmdd eval`` of the built-in checkpoint on real images."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path


def test_real_images(invoke, real_data: Path, tmp_path: Path) -> None:
    """Four images of two generators: the built-in checkpoint gives scores apart from each other."""
    from qmdd.models.zoo import builtin_checkpoint

    for generator in ("dcgan_face", "selfae_bilinear"):
        for name in ("0_real", "1_fake"):
            target = tmp_path / generator / name
            target.mkdir(parents=True)
            first = min((real_data / "test" / generator / name).iterdir())
            shutil.copy(first, target)
    result = invoke("eval", builtin_checkpoint("resnet23", 2), "--data", tmp_path, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["images"] == 4
    assert found["means"]["all"]["ap"] == 1.0
    assert not math.isnan(found["means"]["all"]["acc"])
