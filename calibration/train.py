"""Quantization-aware training: seeded, resumable to the bit, stage after stage of a recipe.

Everything that a step depends on is either in the saved state (weights, buffers, AdamW's moments,
the step's number) or a function of the seed and that number (which images, which crops). A run
that is killed and resumed therefore ends with the same weights as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models import Detector, detector_from_config
from ..models.checkpoint import LATENT, Checkpoint, checkpoint_bytes, load_weights
from ..runtime.errors import DataError
from ..runtime.files import write_atomically
from ..runtime.folder import digest, scan
from ..runtime.known_sets import generators_from_record
from .batch_norm import reestimate
from .batches import Augmentation, Batches, ImageStore
from .errors import CalibrationError
from .recipe import Recipe, Stage

STATE = "state.safetensors"
BETAS = (0.9, 0.999)


class Progress(NamedTuple):
    """What the caller is told after every step."""

    stage: int
    stages: int
    step: int
    steps: int
    loss: float


Report = Callable[[Progress], None]


def _optimizer(detector: Detector, stage: Stage) -> torch.optim.AdamW:
    """AdamW; decay on convolution and linear weights, none on the small parameters."""
    decayed = [p for p in detector.parameters() if p.dim() > 1]
    plain = [p for p in detector.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": stage.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=stage.lr, betas=BETAS, fused=True)


def learning_rate(stage: Stage, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine from ``stage.lr`` to 0 over the stage's ``steps``."""
    if step < stage.warmup:
        return stage.lr * (step + 1) / stage.warmup
    done = (step - stage.warmup) / max(1, steps - stage.warmup)
    return stage.lr * 0.5 * (1.0 + math.cos(math.pi * done))


class Trainer:
    """A run in a folder, which holds its ``state.safetensors``."""

    def __init__(
        self,
        recipe: Recipe,
        data: str | os.PathLike[str],
        out: str | os.PathLike[str],
        *,
        init: Detector | None = None,
        save_every: int = 200,
        report: Report | None = None,
        device: str = "cpu",
    ) -> None:
        self.recipe, self.out = recipe, Path(out)
        self.samples = scan(data)
        self.data_digest = digest(data, self.samples)
        identity = {"recipe": recipe.to_dict(), "data": self.data_digest}
        if init is not None:
            identity["init"] = hashlib.sha256(checkpoint_bytes(init)).hexdigest()
        self.identity = json.dumps(identity, sort_keys=True)
        self.store = ImageStore(self.samples)
        self.save_every, self.report = save_every, report
        self.device = torch.device(device)
        self.init = init

    def run(self) -> Detector:
        """Train all stages (from the saved state if there is one) and return the detector.

        Raises:
            CalibrationError: the folder holds another run, or the loss is no longer finite.
        """
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise CalibrationError(f"{self.out}: not a folder; choose another --out") from error
        first, start, detector, moments = self._resume()
        for index in range(first, len(self.recipe.stages)):
            if detector is None:
                detector = self._fresh(index, self.init)
            detector = self._stage(index, detector, start, moments)
            start, moments = 0, None
            if index + 1 < len(self.recipe.stages):
                detector = self._fresh(index + 1, detector)
        if detector is None:
            raise CalibrationError(f"{self.out}: the saved state names no stage of this recipe")
        self._statistics(detector)
        return detector.eval()

    def _fresh(self, index: int, source: Detector | None) -> Detector:
        torch.manual_seed(self.recipe.seed + index)
        detector = detector_from_config(self.recipe.config(self.recipe.stages[index].bits))
        if source is not None:
            load_weights(detector, source.to("cpu"))
        return detector

    def _stage(
        self, index: int, detector: Detector, start: int, moments: dict[str, Tensor] | None
    ) -> Detector:
        stage = self.recipe.stages[index]
        how = Augmentation(stage.crop, stage.even, stage.turn, stage.resynthesis)
        batches = Batches(self.store, stage.batch, how, seed=self.recipe.seed * 1000 + index)
        steps = batches.per_epoch * stage.epochs
        detector = detector.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        optimizer = _optimizer(detector, stage)
        if moments is not None:
            _load_moments(optimizer, detector, moments)
        half = self.recipe.precision == "bfloat16"
        for step in range(start, steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(stage, step, steps)
            images, labels = batches.get(step)
            images = images.to(self.device).contiguous(memory_format=torch.channels_last)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                logits = detector(images)
            loss = F.binary_cross_entropy_with_logits(logits.float(), labels.to(self.device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(detector.parameters(), stage.clip)
            value = float(loss.detach())
            if not (math.isfinite(value) and math.isfinite(float(norm))):
                raise CalibrationError(
                    f"stage {index + 1}, step {step + 1}: the loss is {value}, the norm of its "
                    f"gradient {float(norm)}; lower the learning rate in the recipe"
                )
            optimizer.step()
            if self.report:
                self.report(Progress(index + 1, len(self.recipe.stages), step + 1, steps, value))
            if (step + 1) % self.save_every == 0 and step + 1 < steps:
                self._save(index, step + 1, detector, optimizer)
        self._save(index, steps, detector, optimizer)
        return detector

    def _save(
        self, index: int, step: int, detector: Detector, optimizer: torch.optim.AdamW
    ) -> None:
        from safetensors.torch import save

        names = {id(p): name for name, p in detector.named_parameters()}
        tensors = {f"model.{k}": v for k, v in detector.state_dict().items()}
        for parameter, state in optimizer.state.items():
            for key in ("exp_avg", "exp_avg_sq", "step"):
                tensors[f"adam.{key}.{names[id(parameter)]}"] = state[key]
        metadata = {"identity": self.identity, "stage": str(index), "step": str(step)}
        plain = {k: v.detach().to("cpu").contiguous() for k, v in tensors.items()}
        write_atomically(self.out / STATE, save(plain, metadata))

    def _resume(self) -> tuple[int, int, Detector | None, dict[str, Tensor] | None]:
        from safetensors import SafetensorError, safe_open

        path = self.out / STATE
        if not path.exists():
            return 0, 0, None, None
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            index, step = int(metadata["stage"]), int(metadata["step"])
            if not 0 <= index < len(self.recipe.stages) or step < 0:
                raise ValueError(f"stage {index + 1}, step {step}: there is none")
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise _damaged(path, error) from error
        if metadata.get("identity") != self.identity:
            raise CalibrationError(
                f"{path}: the state of another recipe or other data; choose another folder, or "
                "remove it to start over"
            )
        model = {k[len("model.") :]: v for k, v in tensors.items() if k.startswith("model.")}
        moments = {k[len("adam.") :]: v for k, v in tensors.items() if k.startswith("adam.")}
        try:
            detector = detector_from_config(self.recipe.config(self.recipe.stages[index].bits))
            detector.load_state_dict(model, strict=True)
            for name, parameter in detector.named_parameters():
                shapes = {"exp_avg": parameter.shape, "exp_avg_sq": parameter.shape, "step": ()}
                for key, shape in shapes.items():
                    held = moments[f"{key}.{name}"]
                    if held.shape != shape or not held.is_floating_point():
                        raise KeyError(f"{key}.{name} is {held.dtype} {list(held.shape)}")
        except (RuntimeError, IndexError, KeyError) as error:
            raise _damaged(path, error) from error
        return index, step, detector, moments

    def _statistics(self, detector: Detector) -> None:
        """Take batch-norm statistics anew, in float32, on 256-pixel crops: as evaluation will be.

        Training's own running averages come from crops, from rounded arithmetic and from weights
        that were still moving.
        """
        if not self.recipe.statistics:
            return
        chosen = Batches(
            self.store, min(16, len(self.store)), Augmentation(256, turn=False), seed=7
        )
        count = min(chosen.per_epoch, -(-self.recipe.statistics // 16))
        batches = (chosen.get(number)[0] for number in range(count))
        detector.to(self.device)
        reestimate(detector, batches, self.device)
        detector.to("cpu")


def _damaged(path: Path, error: Exception) -> CalibrationError:
    reason = str(error).splitlines()[0]
    return CalibrationError(f"{path}: not a training state ({reason}); remove it to start over")


def _load_moments(
    optimizer: torch.optim.AdamW, detector: Detector, moments: dict[str, Tensor]
) -> None:
    for name, parameter in detector.named_parameters():
        keys = ("exp_avg", "exp_avg_sq", "step")
        if all(f"{key}.{name}" in moments for key in keys):
            state = {key: moments[f"{key}.{name}"].to(parameter.device) for key in keys}
            for key in ("exp_avg", "exp_avg_sq"):
                state[key] = torch.empty_like(parameter).copy_(state[key])
            optimizer.state[parameter] = state


def save_detector(
    detector: Detector, path: str | os.PathLike[str], notes: dict[str, str] | None = None
) -> None:
    """Write a checkpoint of ``detector``, whole or not at all."""
    write_atomically(path, checkpoint_bytes(detector.to("cpu"), notes))


def latent_from(path: str | os.PathLike[str]) -> Detector:
    """A latent checkpoint to start training from; :class:`CalibrationError` if it is frozen."""
    checkpoint = Checkpoint(path)
    if checkpoint.form != LATENT:
        raise CalibrationError(f"{path}: frozen; training starts from a latent checkpoint")
    return checkpoint.detector()


def training_record(trainer: Trainer, init: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """Notes for the checkpoint of a run: ``generators`` (a JSON list) and ``data`` (its digest).

    What the checkpoint ``init``, where the run started from, says that it had seen is seen too.
    """
    generators = {sample.generator for sample in trainer.samples}
    if init is not None:
        try:
            known = generators_from_record(Checkpoint(init).metadata.get("generators"))
        except DataError as error:
            raise CalibrationError(f"{init}: {error}; train it again") from error
        generators.update(known or ())
    return {"generators": json.dumps(sorted(generators)), "data": trainer.data_digest}
