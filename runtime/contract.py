"""What every model of ours takes and gives: the one place where it is written down.

The exporter puts it into the manifest, the bundle's reader checks it, evaluation in torch prepares
its images by it: the source and the exported model see the same pixels.
"""

from __future__ import annotations

from typing import Any

#: Sides in pixels: even and at least 32, cropped (never resized) to at most 512.
SIDES: dict[str, int] = {"min_side": 32, "multiple": 2, "max_side": 512}
INPUT: dict[str, Any] = {"name": "image", "dtype": "uint8", "layout": "NCHW", "color": "RGB"}
OUTPUT: dict[str, Any] = {"name": "logit", "dtype": "float32", "activation": "sigmoid"}
#: Score above which an image is called fake.
THRESHOLD = 0.5
