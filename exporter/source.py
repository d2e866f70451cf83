"""What is exported: a network in evaluation mode, and how it is found again to verify a bundle.

Two origins: a checkpoint file, known by its SHA-256; and a factory in a Python module, known by the
SHA-256 of the network's state.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..models import Detector, ModelError, quantised_convolutions
from ..models.checkpoint import FROZEN, Checkpoint, is_frozen
from ..models.zoo import builtin_checkpoints
from ..runtime.errors import DataError
from ..runtime.known_sets import generators_from_record
from .errors import ExportError, ParityError


@dataclasses.dataclass(frozen=True)
class Source:
    """A network to export.

    Attributes:
        network: in evaluation mode; uint8 ``[N, 3, H, W]`` to float32 logits ``[N]``.
        arch: what it is called.
        bits: the largest width of its weights; 32 in full precision.
        entry: what the manifest says of it, ``sha256`` among it.
    """

    network: nn.Module
    arch: str
    bits: int
    entry: dict[str, Any]

    @property
    def quantized(self) -> bool:
        """Whether there are codes to compare."""
        return self.bits != 32


def source_from_checkpoint(path: Path) -> Source:
    """The detector of a checkpoint file.

    Raises:
        CheckpointError: unusable. ExportError: the file changed while it was read, or its record of
            what it was trained on is not one.
    """
    checkpoint = Checkpoint(path)
    digest = checkpoint.sha256()
    detector = checkpoint.detector()
    if checkpoint.sha256() != digest:
        raise ExportError(f"{path}: changed while it was read; export it again")
    config = checkpoint.config
    entry = {
        "checkpoint": path.name,
        "sha256": digest,
        "format": checkpoint.form,
        "frozen": checkpoint.form == FROZEN,
        "config": json.loads(config.to_json()),
    }
    try:
        generators = generators_from_record(checkpoint.metadata.get("generators"))
    except DataError as error:
        raise ExportError(f"{path}: {error}; train it again") from error
    if generators is not None:
        entry["generators"] = list(generators)
    return Source(detector, config.arch, config.bits, entry)


def source_from_module(spec: str) -> Source:
    """The network that the factory ``package.module:factory`` returns.

    The factory takes no argument and returns a ``torch.nn.Module``: a network of our layers with
    its weights in place. The module is imported: it is the user's own code.

    Raises:
        ExportError: no such module or factory, or it does not return a network.
    """
    module_name, _, factory_name = spec.partition(":")
    if not module_name or not factory_name:
        raise ExportError(f"{spec!r} is not of the form package.module:factory")
    if "" not in sys.path:  # a script's entry point does not see the folder it is called in
        sys.path.insert(0, "")
    try:
        factory: Any = importlib.import_module(module_name)
        for part in factory_name.split("."):
            factory = getattr(factory, part)
    except (ImportError, AttributeError) as error:
        raise ExportError(f"{spec}: cannot be imported: {error}") from error
    try:
        network = factory()
    except Exception as error:
        raise ExportError(f"{spec}: the factory failed: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ExportError(
            f"{spec}: the factory returned {type(network).__name__}, not a torch.nn.Module"
        )
    return source_from_network(network, spec)


def source_from_network(network: nn.Module, name: str) -> Source:
    """A network at hand, called ``name``; it is put into evaluation mode.

    Raises:
        ExportError: it cannot run on an image, or does not give one logit for each.
    """
    network.eval()
    _check_interface(network, name)
    entry = {
        "module": name,
        "sha256": state_digest(network),
        "frozen": is_frozen(network),
        "config": json.loads(network.config.to_json()) if isinstance(network, Detector) else None,
    }
    widths = [conv.bits for _, conv in quantised_convolutions(network) if conv.quantizer]
    bits = max((width for width in widths if width != 8), default=max(widths, default=32))
    return Source(network, name.rpartition(":")[2], bits, entry)


def _check_interface(network: nn.Module, name: str) -> None:
    image = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    try:
        with torch.no_grad():
            logits = network(image)
    except ModelError as error:
        raise ExportError(f"{name}: {error}") from error
    except Exception as error:
        raise ExportError(
            f"{name}: cannot run on uint8 images [2, 3, 64, 64]: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2,):
        have = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ExportError(
            f"{name}: must give one logit an image, float32 [N]; for two images it gave {have}"
        )
    if logits.dtype != torch.float32:
        raise ExportError(f"{name}: its logits are {logits.dtype}, not float32")


def state_digest(network: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of all parameters and buffers."""
    state = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        state.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        state.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return state.hexdigest()


def find_source(
    entry: object, where: Path, checkpoint: Path | None = None, module: str | None = None
) -> Source:
    """The source that a bundle's manifest names, recognised by its SHA-256.

    Args:
        entry: the manifest's ``source``.
        where: the bundle, for messages.
        checkpoint: the file to use; by default the built-in checkpoint with the recorded hash.
        module: the factory to use, for a bundle that was exported from one.

    Raises:
        ParityError: the source is another one, or none was given and none is built in.
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
        raise ParityError(
            f"{where}: its manifest does not say what it was exported from; export it anew"
        )
    wanted = entry["sha256"]
    if module is not None:
        found = source_from_module(module)
        if found.entry["sha256"] != wanted:
            raise ParityError(
                f"{module}: its network is not the one that {where} was exported from (SHA-256 of "
                f"its state {found.entry['sha256'][:12]}..., the manifest says {wanted[:12]}...)"
            )
        return found
    if checkpoint is not None:
        held = Checkpoint(checkpoint).sha256()
        if held != wanted:
            raise ParityError(
                f"{checkpoint}: not the checkpoint that {where} was exported from "
                f"(SHA-256 {held[:12]}..., the manifest says {wanted[:12]}...)"
            )
        return source_from_checkpoint(checkpoint)
    for path in builtin_checkpoints():
        if Checkpoint(path).sha256() == wanted:
            return source_from_checkpoint(path)
    if "module" in entry:
        raise ParityError(
            f"{where}: exported from the module {entry['module']}; name it with --module"
        )
    raise ParityError(
        f"{where}: exported from {entry.get('checkpoint', 'a checkpoint')}, which is not built in; "
        "name the file with --checkpoint"
    )
