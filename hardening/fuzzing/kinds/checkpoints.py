"""Checkpoints of ours: the whole file, its configuration, a training's state."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

from ..kind import Kind, NotRight, Reader
from ..mutators.json_text import mutate_json
from ..mutators.tensors import mutate_safetensors
from ..workshop import Workshop

_FORMS = ("frozen", "frozen", "latent", "full", "binary", "mobile")


def _read_checkpoint(_workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.models.checkpoint import Checkpoint, checkpoint_bytes
    from qmdd.models.zoo import header_metadata
    from qmdd.runtime.known_sets import generators_from_record

    path = scratch / "checkpoint.safetensors"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        checkpoint = Checkpoint(path)
        header_metadata(path)
        detector = checkpoint.detector()
        generators_from_record(checkpoint.metadata.get("generators"))
        # What was read is written again, by qmdd freeze and others.
        if len(data) % 8 == 0:
            checkpoint_bytes(detector, dict(checkpoint.metadata))

    return read


def _configs(_workshop: Workshop) -> list[bytes]:
    from qmdd.models import DetectorConfig

    made = (
        DetectorConfig(width=0.25, layer_bits=(("stages.0.0.conv1", 4),)),
        DetectorConfig("mobilenetv2", 4, "lsq", "minmax", slr=False, width=0.5),
        DetectorConfig("n2uq_resnet18", 2, cqb=False, slr=False, representation="rgb"),
    )
    return [config.to_json().encode() for config in made]


def _read_config(_workshop: Workshop, _scratch: Path) -> Reader:
    import torch

    from qmdd.models import DetectorConfig
    from qmdd.models.registry import detector_from_config

    def read(data: bytes) -> None:
        config = DetectorConfig.from_json(data.decode("utf-8", "replace"))
        if DetectorConfig.from_json(config.to_json()) != config:
            raise NotRight("a configuration that comes back as another one")
        with torch.device("meta"):
            detector_from_config(config)

    return read


_RECIPE = """
width = 0.0625
[[stage]]
bits = 32
epochs = 1
lr = 1e-3
[[stage]]
bits = 2
epochs = 1
lr = 1e-3
"""


def _states(workshop: Workshop) -> list[bytes]:
    import torch
    from safetensors.torch import save

    from qmdd.models.checkpoint import load_checkpoint

    detector = load_checkpoint(workshop.checkpoint("latent"))
    tensors = {f"model.{key}": value for key, value in detector.state_dict().items()}
    for name, parameter in detector.named_parameters():
        tensors[f"adam.exp_avg.{name}"] = torch.zeros_like(parameter)
        tensors[f"adam.exp_avg_sq.{name}"] = torch.zeros_like(parameter)
        tensors[f"adam.step.{name}"] = torch.tensor(1.0)
    plain = {key: value.detach().contiguous() for key, value in tensors.items()}
    return [save(plain, {"identity": "id", "stage": "1", "step": "0"})]


def _read_state(_workshop: Workshop, scratch: Path) -> Reader:
    import torch

    from qmdd.calibration.recipe import load_recipe
    from qmdd.calibration.train import STATE, Trainer, _load_moments

    recipe_path = scratch / "recipe.toml"
    recipe_path.write_text(_RECIPE, encoding="utf-8")
    trainer: Any = types.SimpleNamespace(
        out=scratch, identity="id", recipe=load_recipe(recipe_path)
    )

    def read(data: bytes) -> None:
        (scratch / STATE).write_bytes(data)
        _, _, detector, moments = Trainer._resume(trainer)
        if detector is not None and moments is not None:
            _load_moments(torch.optim.AdamW(detector.parameters()), detector, moments)

    return read


KINDS = (
    Kind(
        "checkpoint",
        "checkpoints (safetensors): header, configuration, tensors, tables",
        lambda workshop: [workshop.checkpoint(form).read_bytes() for form in _FORMS],
        _read_checkpoint,
        (mutate_safetensors,),
        cases=10_000,
    ),
    Kind(
        "configuration",
        "a checkpoint's configuration (JSON), to a network",
        _configs,
        _read_config,
        (mutate_json,),
        guided=("qmdd.models.config", "qmdd.models.registry"),
        cases=20_000,
    ),
    Kind(
        "training-state",
        "the state that an interrupted qmdd train goes on from (safetensors)",
        _states,
        _read_state,
        (mutate_safetensors,),
        cases=10_000,
    ),
)
