#!/usr/bin/env python3
"""Score images with a model that a Triton server has loaded: an example to start from.

    pip install 'tritonclient[http]' pillow
    python client.py photo.jpg folder/*.png
    python client.py --url server:8000 --model resnet23-w2a2 --batch 8 photo.jpg

Prints the probability of "fake" and the verdict of each image. Neighbours of
equal size are sent together. What cannot be used is named on stderr; then
the exit code is 1.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import tritonclient.http as triton
from PIL import Image, ImageOps
from tritonclient.utils import InferenceServerException


def span(side: int, multiple: int, longest: int) -> slice:
    """The part of a side that the model sees: its middle, from an even offset, never resized."""
    length = min(side, longest)
    start = (side - length) // 2
    start -= start % 2
    return slice(start, start + length - length % multiple)


def load(path: str, sides: dict[str, int]) -> np.ndarray:
    """Pixels of an image file as the model takes them: uint8 [3, height, width]."""
    with Image.open(path) as image:
        rgb = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    multiple, longest = sides["multiple"], sides["max_side"]
    rgb = rgb[span(rgb.shape[0], multiple, longest), span(rgb.shape[1], multiple, longest)]
    if min(rgb.shape[:2]) < sides["min_side"]:
        raise ValueError(f"too small; the model needs {sides['min_side']} pixels a side")
    return np.ascontiguousarray(rgb.transpose(2, 0, 1))


def contract(client: triton.InferenceServerClient, model: str) -> dict[str, Any]:
    """What the model takes, from its configuration on the server."""
    config = client.get_model_config(model)
    held = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    try:
        sides = {key: int(held[f"qmdd.{key}"]) for key in ("min_side", "multiple", "max_side")}
        threshold = float(held["qmdd.threshold"])
    except KeyError as error:
        raise SystemExit(f"client: {model}: no model of qmdd (no parameter {error})") from error
    return {"sides": sides, "threshold": threshold, "batch": max(1, config["max_batch_size"])}


def only_model(client: triton.InferenceServerClient) -> str:
    """The server's model, where it has just one."""
    names = sorted({item["name"] for item in client.get_model_repository_index()})
    if len(names) != 1:
        raise SystemExit(f"client: name one with --model: {', '.join(names) or 'none is there'}")
    return str(names[0])


def batches(
    paths: list[str], sides: dict[str, int], most: int, failed: list[str]
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Neighbours of equal size together, at most ``most``; what is unusable goes to ``failed``."""
    names: list[str] = []
    images: list[np.ndarray] = []
    for path in paths:
        try:
            image = load(path, sides)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            print(f"client: {path}: {error}", file=sys.stderr)
            failed.append(path)
            continue
        if images and (images[0].shape != image.shape or len(images) == most):
            yield names, np.stack(images)
            names, images = [], []
        names.append(path)
        images.append(image)
    if images:
        yield names, np.stack(images)


def score(client: triton.InferenceServerClient, model: str, images: np.ndarray) -> list[float]:
    """Probabilities of "fake" of uint8 [n, 3, height, width]."""
    tensor = triton.InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    wanted = [triton.InferRequestedOutput("logit")]
    logits = client.infer(model, [tensor], outputs=wanted).as_numpy("logit").reshape(-1)
    return [1 / (1 + math.exp(-max(logit, -700.0))) for logit in logits.tolist()]


def main() -> int:
    parser = argparse.ArgumentParser(description="Score images with a Triton server.")
    parser.add_argument("--url", default="localhost:8000", help="host:port of its HTTP service")
    parser.add_argument("--model", help="default: the only one that is there")
    parser.add_argument("--batch", type=int, help="images in one request; default: the model's")
    parser.add_argument("images", nargs="+")
    options = parser.parse_args()
    failed: list[str] = []
    try:
        client = triton.InferenceServerClient(options.url)
        model = options.model or only_model(client)
        takes = contract(client, model)
        most = min(options.batch or takes["batch"], takes["batch"])
        for names, images in batches(options.images, takes["sides"], max(1, most), failed):
            for name, fake in zip(names, score(client, model, images), strict=True):
                print(f"{fake:.4f}  {'fake' if fake > takes['threshold'] else 'real'}  {name}")
    except InferenceServerException as error:
        print(f"client: the server refuses: {error.message()}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"client: no Triton server at {options.url}: {error}", file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
