"""Everything that a report shows: from the bundle alone, and from its source if that is here.

What cannot be had is left out, and a sentence says which part and why.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.bundle import Bundle
from ...runtime.device.facts import Facts
from ...runtime.machine import version_of
from ...runtime.sessions import ONNXRUNTIME
from ..engine.recipe import RECIPE
from ..errors import ParityError
from ..samples import sample_images
from . import built, images, pictures, proof, sizes, speed
from .images import Shown, score_or_none
from .provenance import provenance
from .read import whole
from .verdict import verdict

if TYPE_CHECKING:
    from ..source import Source

Report = Callable[[str, int, int], None]

#: Version of the data.
SCHEMA = 1
#: The image whose heat maps are shown is cropped to this side, so that memory stays small.
HEAT_OF = 256


@dataclasses.dataclass(frozen=True)
class Gathered:
    """A report's content.

    Attributes:
        data: plain data, what ``--json`` prints; its keys are the parts of the page.
        pictures: data URIs by name, such as ``image.0`` and ``heat.stages.0.0.conv1.main``.
    """

    data: dict[str, Any]
    pictures: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the report is to be made of; see ``qmdd report --help``.

    Attributes:
        checkpoint, module: the source, as for :func:`~..source.find_source`.
        golden: from the bundle alone, even if the source is at hand.
        images: files to show; by default the samples, or the golden images.
        bench: measure shortly.
        bench_json: a file of ``qmdd bench --json``.
        threads: to compute with.
    """

    checkpoint: Path | None = None
    module: str | None = None
    golden: bool = False
    images: Sequence[Path] = ()
    bench: bool = False
    bench_json: Path | None = None
    threads: int | None = None


def gather(path: Path, asked: Asked | None = None, report: Report | None = None) -> Gathered:
    """What there is to show of the bundle in folder ``path``.

    Raises:
        BundleError: no bundle, or a damaged one. ParityError: a source that was named is another.
        ReportError: ``bench_json`` is not about this bundle. ImageError: an image cannot be used.
    """
    asked = asked or Asked()
    say = report or (lambda _what, _done, _total: None)
    bundle = Bundle.open(path)
    benched = speed.read_bench(asked.bench_json, bundle) if asked.bench_json else None
    source, why_not = _source(bundle, asked)
    here, why_not_here = proof.here(bundle, asked.threads, say)
    shown, golden_codes, origin = _shown(bundle, asked, source, here is not None)
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "made": {"time": _now(), "qmdd": version_of("qmdd")},
        "bundle": _identity(bundle),
        "source": {"found": source is not None, "why_not": why_not},
        "size": sizes.sizes(bundle),
        "parity": _parity(bundle, here, why_not_here),
        "layers": dict(zip(("found", "why_not"), built.layers(bundle), strict=True)),
        "speed": _speed(bundle, asked, benched, say),
        "provenance": provenance(bundle),
    }
    found = (
        _from_source(source, shown, say)
        if source
        else _without_source(bundle, golden_codes, why_not)
    )
    told, drawn = _images(bundle, shown, origin, found.pop("logits"), asked.threads)
    drawn.update(found.pop("pictures"))
    data |= found
    data["paper"] = sizes.paper(bundle) if find_spec("torch") else None
    data["images"] = told
    data["left_out"] = _left_out(data)
    data["verdict"] = verdict(data)
    bundle.check_unchanged()
    return Gathered(data, drawn)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def _identity(bundle: Bundle) -> dict[str, Any]:
    facts = Facts(bundle.manifest)
    return {
        "name": bundle.path.resolve().name,
        "arch": facts.text("arch"),
        "bits": bundle.bits,
        "target": facts.text("target"),
        "runtime": facts.text("runtime") or ONNXRUNTIME,
        "weights": facts.text("weights"),
        "precision": facts.text("precision"),
        "opset": whole(facts, "opset"),
        "threshold": bundle.threshold,
        "wants_engine": RECIPE in bundle.manifest["files"],
    }


def _source(bundle: Bundle, asked: Asked) -> tuple[Source | None, str]:
    """The source, or why the report goes without; an error only if one was named."""
    if asked.golden:
        return None, "left out with --golden"
    named = asked.checkpoint is not None or asked.module is not None
    missing = next((n for n in ("torch", "onnx_graphsurgeon") if find_spec(n) is None), None)
    if missing and not named:
        return None, f"{missing} is not installed here: pip install 'qmdd[export]'"

    from ..source import find_source

    entry = bundle.manifest.get("source")
    try:
        return find_source(entry, bundle.path, asked.checkpoint, asked.module), ""
    except ParityError as error:
        if named:
            raise
        return None, str(error)


def _parity(bundle: Bundle, here: dict[str, Any] | None, why_not: str) -> dict[str, Any]:
    recorded = proof.recorded(bundle)
    told = here["parity"] if here else []
    now = [{**tier, "tier": f"{tier['tier']}, here"} for tier in told]
    return {
        "recorded": recorded,
        "here": here,
        "why_not_here": why_not,
        "by_layer": proof.by_layer([*recorded, *now]),
    }


def _shown(
    bundle: Bundle, asked: Asked, source: Source | None, runs: bool
) -> tuple[list[Shown], list[dict[str, Any]], str]:
    """The images to show; codes of the golden ones; and which images they are, in words."""
    golden, codes = images.golden_images(bundle)
    if asked.images:
        shown = images.load(asked.images, bundle)
        origin = f"{len(shown)} of {len(asked.images)} images given"
    elif source or (runs and not asked.golden):
        shown, origin = images.load(sample_images(), bundle), "the sample images of the project"
    else:
        shown, origin = golden, "the golden images of the bundle"
    return shown, codes, origin


def _from_source(source: Source, shown: Sequence[Shown], say: Report) -> dict[str, Any]:
    from .look import look, weight_codes
    from .two_paths import two_paths

    network = source.network
    logits, quantizers = look(network, [image.pixels for image in shown], say)
    # Of the most suspect one, as far as the network can tell.
    of = max(range(len(shown)), key=lambda i: logits[i])
    paths, maps = two_paths(network, _middle(shown[of].pixels))
    return {
        "logits": logits,
        "quantizers": {"layers": quantizers, "why_not": "", "golden": []},
        "weights": {"layers": weight_codes(network), "why_not": ""},
        "paths": {"layers": paths, "image": shown[of].name, "why_not": ""},
        "pictures": {f"heat.{name}": uri for name, uri in maps.items()},
    }


def _middle(pixels: images.U8) -> images.U8:
    """At most :data:`HEAT_OF` pixels a side, cut out at even places: NPR's cells stay whole."""
    top, left = ((side - min(side, HEAT_OF)) // 4 * 2 for side in pixels.shape[1:])
    return pixels[:, top : top + HEAT_OF, left : left + HEAT_OF]


def _without_source(bundle: Bundle, golden: list[dict[str, Any]], no_source: str) -> dict[str, Any]:
    full = "in full precision there is none"
    why_not = full if bundle.bits == 32 else no_source
    return {
        "logits": None,
        "quantizers": {"layers": [], "why_not": why_not, "golden": golden},
        "weights": {"layers": [], "why_not": why_not},
        "paths": {"layers": [], "image": "", "why_not": no_source},
        "pictures": {},
    }


def _images(
    bundle: Bundle,
    shown: Sequence[Shown],
    origin: str,
    logits: Sequence[float] | None,
    threads: int | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    scored, why_not = images.scores(bundle, shown, threads)
    drawn: dict[str, str] = {}
    told = []
    for number, (image, score) in enumerate(zip(shown, scored, strict=True)):
        drawn[f"image.{number}"] = pictures.photograph(image.pixels)
        drawn[f"npr.{number}"] = pictures.residual(image.pixels)
        told.append(
            {
                "name": image.name,
                "height": image.pixels.shape[1],
                "width": image.pixels.shape[2],
                "bundle": score,
                "source": score_or_none(logits[number] if logits else image.golden),
            }
        )
    return {"origin": origin, "shown": told, "why_no_score": why_not}, drawn


def _speed(
    bundle: Bundle, asked: Asked, benched: dict[str, Any] | None, say: Report
) -> dict[str, Any]:
    if asked.bench and benched is None:
        from .measuring import measured

        benched = measured(bundle, say)
    devices, notes = speed.devices(bundle)
    return {"bench": benched, "devices": devices, "notes": notes}


def _left_out(data: dict[str, Any]) -> list[str]:
    """A sentence for each part that is not there."""
    parts = [
        ("Step functions of the quantizers", data["quantizers"]["why_not"]),
        ("Weight codes", data["weights"]["why_not"]),
        ("Heat maps of the two paths", data["paths"]["why_not"]),
        ("A run on this machine", data["parity"]["why_not_here"]),
        ("The layers", data["layers"]["why_not"]),
        ("The bundle's own scores", data["images"]["why_no_score"]),
    ]
    told = [f"{what}: {why}." for what, why in parts if why]
    if not data["source"]["found"]:
        told.insert(0, f"The source network: {data['source']['why_not']}.")
    if data["paper"] is None:
        told.append("The paper's Table 4: torch is not installed here.")
    if data["speed"]["bench"] is None:
        told.append("Latency: qmdd report --bench measures it, --bench-json FILE reads it.")
    return told
