"""Two bundles or checkpoints, in any mix, side by side; torch only where it is needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...runtime.bundle import Bundle
from ...runtime.comparing.facts import (
    Side,
    compared_facts,
    config_facts,
    device_rows,
    side_of_bundle,
    size_facts,
)
from ...runtime.comparing.golden import compare_golden
from ...runtime.contract import THRESHOLD
from ...runtime.files import sha256_of
from ..errors import ExportError
from .plans import compare_plans

if TYPE_CHECKING:
    from torch import nn

#: Version of :func:`compare`'s result.
SCHEMA = 1


class Opened(NamedTuple):
    """One of the two, opened.

    Attributes:
        side: what is known of it.
        bundle: ``None`` of a checkpoint.
        network: the checkpoint's, or that of the bundle's source if it is at hand.
        no_network: why there is none.
    """

    side: Side
    bundle: Bundle | None
    network: nn.Module | None
    no_network: str


def open_side(path: Path, sources: Sequence[Path] = ()) -> Opened:
    """The bundle in folder ``path``, or the checkpoint in file ``path``.

    Args:
        sources: checkpoints; a bundle's source is looked for among them, by its hash, and among the
            built-in ones.

    Raises:
        BundleError, CheckpointError: it cannot be read.
    """
    if path.is_dir():
        bundle = Bundle.open(path)
        return Opened(side_of_bundle(bundle), bundle, *_network_of(bundle, sources))
    return _checkpoint(path)


def _checkpoint(path: Path) -> Opened:
    from ...models.checkpoint import FROZEN, Checkpoint
    from ..export import sizes

    checkpoint = Checkpoint(path)
    network = checkpoint.detector()
    count = path.stat().st_size
    facts: dict[str, Any] = {
        "kind": "frozen checkpoint" if checkpoint.form == FROZEN else "latent checkpoint",
        "network": checkpoint.config.arch,
        "bits": checkpoint.config.bits,
        **config_facts(json.loads(checkpoint.config.to_json())),
        "threshold": THRESHOLD,
        "file, bytes": count,
        "file, SHA-256": checkpoint.sha256(),
        **size_facts(sizes(network, count)),
        "source, SHA-256": checkpoint.sha256(),
    }
    return Opened(Side(path, "checkpoint", count, facts), None, network, "")


def _network_of(bundle: Bundle, sources: Sequence[Path]) -> tuple[nn.Module | None, str]:
    """The network that ``bundle`` was made of, or why it is not at hand."""
    if find_spec("torch") is None:
        return None, "torch is not installed: pip install 'qmdd[export]'"

    from ..source import find_source

    entry = bundle.manifest.get("source")
    if isinstance(entry, dict) and "module" in entry:
        return None, f"{bundle.path}: its source is a module, whose code is not run to compare"
    wanted = entry.get("sha256") if isinstance(entry, dict) else None
    given = next((path for path in sources if sha256_of(path) == wanted), None)
    try:
        return find_source(entry, bundle.path, given).network, ""
    except ExportError as error:
        return None, str(error)


def compare(a: Opened, b: Opened) -> dict[str, Any]:
    """What is the same of both and what is not; plain data.

    Returns:
        ``facts``: see :func:`~qmdd.runtime.comparing.facts.compared_facts`; ``size_ratio``: of b's
        file to a's; ``plan``, ``golden``, ``network``: as their modules say, or a text that says
        why they are not compared; ``devices``: of each side, what was measured on devices.
    """
    bundles = a.bundle, b.bundle
    found = {
        "schema": SCHEMA,
        "a": str(a.side.path),
        "b": str(b.side.path),
        "facts": compared_facts(a.side, b.side),
        "size_ratio": b.side.bytes / max(a.side.bytes, 1),
        "network": _compare_networks(a, b),
        "plan": _of_bundles(compare_plans, *bundles),
        "golden": _of_bundles(compare_golden, *bundles),
        "devices": {
            name: device_rows(bundle) if bundle is not None else []
            for name, bundle in zip("ab", bundles, strict=True)
        },
    }
    for bundle in bundles:
        if bundle is not None:
            bundle.check_unchanged()
    return found


def _of_bundles(of: Any, a: Bundle | None, b: Bundle | None) -> dict[str, Any] | str:
    if a is None or b is None:
        return "not both are bundles"
    found: dict[str, Any] | str = of(a, b)
    return found


def _compare_networks(a: Opened, b: Opened) -> dict[str, Any] | str:
    if a.network is None or b.network is None:
        return a.no_network or b.no_network

    from .networks import compare_networks

    return compare_networks(a.network, b.network)
