"""``qmdd train``: an image folder to a low-bit detector."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import CommandError, on_interrupt
from .evaluation import print_evaluation
from .options import (
    DEFAULT_ARCH,
    DEFAULT_BITS,
    FILE,
    arch_option,
    bits_option,
    debug_option,
    json_option,
    threads_option,
    topology_options,
    use_threads,
)
from .output import Report, print_json, print_line, progress, stdout_for_results

if TYPE_CHECKING:
    from ..calibration.recipe import Recipe
    from ..models import Detector
    from ..runtime.folder import Sample

LATENT, FROZEN, RECIPE = "latent.safetensors", "frozen.safetensors", "recipe.json"
#: Where runs lie by default.
RUNS = Path("runs")


def _recipes() -> dict[str, Path]:
    """The recipes that travel with the project, by name; found without importing torch."""
    folder = Path(__file__).resolve().parent.parent / "calibration" / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


class _Train(click.Command):
    """Lists the built-in recipes below its help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Built-in recipes"):
            formatter.write_text(", ".join(_recipes()) or "none")


@click.command("train", cls=_Train)
@click.option(
    "--data",
    required=True,
    type=FILE,
    metavar="DIR",
    help="Image folder: GENERATOR/0_real/*, GENERATOR/1_fake/*.",
)
@arch_option()
@bits_option()
@click.option(
    "--recipe",
    metavar="NAME|FILE",
    help="A built-in recipe or a TOML file, in place of --arch and --bits.",
)
@topology_options
@click.option(
    "--layer-bits",
    type=FILE,
    metavar="FILE",
    help="Widths that differ, by layer, JSON: what qmdd sensitivity --budget -o writes.",
)
@click.option(
    "--init", type=FILE, metavar="FILE", help="Latent checkpoint whose weights to start from."
)
@click.option(
    "--out",
    type=FILE,
    metavar="DIR",
    help="Folder of the run; default: in runs/, by recipe or network.",
)
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="In place of the recipe's.")
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Epochs of each stage, in place of the recipe's.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where to train.",
)
@threads_option
@click.option(
    "--save-every",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="Steps between two saved states.",
)
@click.option(
    "--eval",
    "eval_data",
    type=FILE,
    metavar="DIR",
    help="Image folder of the same layout to measure the result on.",
)
@json_option
@debug_option
def command(
    data: Path,
    arch: str | None,
    bits: int | None,
    recipe: str | None,
    representation: str | None,
    cqb: bool | None,
    slr: bool | None,
    activation: str | None,
    weight: str | None,
    width: float | None,
    layer_bits: Path | None,
    init: Path | None,
    out: Path | None,
    seed: int | None,
    epochs: int | None,
    device: str,
    threads: int | None,
    save_every: int,
    eval_data: Path | None,
    as_json: bool,
) -> None:
    """Train a detector and freeze it.

    Writes latent.safetensors (to train on), frozen.safetensors (to export) and recipe.json to the
    folder of the run. A run that was interrupted goes on where its last state was saved when the
    same command is given again, and ends with the same weights as an unbroken one.

    \b
    qmdd train --data images/train --bits 2
    qmdd train --data images/train --recipe my-recipe.toml --out runs/mine --eval images/val
    """
    if recipe is not None and (arch is not None or bits is not None):
        raise click.UsageError("--recipe says what to train; leave --arch and --bits out")

    from ..calibration.train import Trainer, latent_from, training_record
    from ..runtime.contract import SIDES
    from ..runtime.folder import scan
    from ..runtime.scoring import refuse_unusable

    topology = {
        "representation": representation,
        "cqb": cqb,
        "slr": slr,
        "activation": activation,
        "weight": weight,
        "width": width,
        "seed": seed,
        "layer_bits": _layer_bits(layer_bits),
    }
    plan = _plan(recipe, arch or DEFAULT_ARCH, bits or DEFAULT_BITS, topology, epochs)
    init = init or _start(plan.start)
    _check_device(device)
    use_threads(threads)
    # Looked at before the hours of training, not after them.
    held_out = scan(eval_data, shared_reals=True) if eval_data is not None else []
    refuse_unusable(held_out, SIDES)
    final = plan.stages[-1].bits
    folder = out or RUNS / (recipe if recipe in _recipes() else f"{plan.arch}-w{final}a{final}")
    started = time.perf_counter()
    with stdout_for_results(), progress() as report:
        trainer = Trainer(
            plan,
            data,
            folder,
            init=latent_from(init) if init is not None else None,
            save_every=save_every,
            report=lambda p: report(
                f"stage {p.stage} of {p.stages}, loss {p.loss:.4f}", p.step, p.steps
            ),
            device=device,
        )
        on_interrupt(lambda: _kept(folder))
        detector = trainer.run()
        record = training_record(trainer, init)
        files = _save(detector, plan, folder, record)
        on_interrupt(lambda: f"the trained checkpoints are in {folder}")
        measured = {}
        if eval_data is not None:
            measured = _measure(detector, held_out, eval_data, record["generators"], report)
    result = {
        "out": str(folder),
        "arch": plan.arch,
        "bits": final,
        "seconds": time.perf_counter() - started,
        "files": {name: (folder / name).stat().st_size for name in files},
        "metrics": measured.get("generators", {}),
        "means": measured.get("means", {}),
    }
    if as_json:
        print_json(result)
    else:
        _print_result(result, measured)


def _plan(
    recipe: str | None, arch: str, bits: int, changes: dict[str, Any], epochs: int | None
) -> Recipe:
    """The recipe that the options ask for; ``changes`` are fields of it, ``None`` as it is."""
    from ..calibration.recipe import default_recipe

    plan = default_recipe(bits, arch) if recipe is None else _named_recipe(recipe)
    asked = {name: value for name, value in changes.items() if value is not None}
    plan = dataclasses.replace(plan, **asked)
    if epochs is not None:
        stages = tuple(dataclasses.replace(stage, epochs=epochs) for stage in plan.stages)
        plan = dataclasses.replace(plan, stages=stages)
    return plan


def _layer_bits(path: Path | None) -> tuple[tuple[str, int], ...] | None:
    from ..calibration.layer_bits import load_layer_bits

    return None if path is None else load_layer_bits(path)


def _named_recipe(name: str) -> Recipe:
    from ..calibration.recipe import load_recipe

    builtin = _recipes()
    if name in builtin:
        return load_recipe(builtin[name])
    if not Path(name).exists():
        raise CommandError(
            f"no recipe {name!r}: neither a file nor built in ({', '.join(builtin) or 'none'})"
        )
    return load_recipe(name)


def _start(recipe: str) -> Path | None:
    """The result of the recipe that this one starts from, where ``qmdd train`` leaves it."""
    if not recipe:
        return None
    latent = RUNS / recipe / LATENT
    if not latent.exists():
        raise CommandError(
            f"this recipe starts from the weights of {recipe}, and {latent} is not there: train it "
            f"first (qmdd train --recipe {recipe}), or name a latent checkpoint with --init"
        )
    return latent


def _check_device(device: str) -> None:
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise CommandError("torch finds no CUDA device here; train with --device cpu")


def _kept(folder: Path) -> str:
    from ..calibration.train import STATE

    if (folder / STATE).exists():
        return f"the last saved state is in {folder}: the same command goes on from there"
    return "no state had been saved yet: the same command starts anew (see --save-every)"


def _save(detector: Detector, plan: Recipe, folder: Path, record: dict[str, str]) -> list[str]:
    """Write the checkpoints and the recipe; the names of the files."""
    from ..calibration.train import save_detector
    from ..models.checkpoint import freeze
    from ..runtime.files import write_atomically

    text = json.dumps(plan.to_dict(), sort_keys=True)
    notes = {"recipe": text, **record}
    written = [LATENT, RECIPE]
    save_detector(detector, folder / LATENT, notes)
    write_atomically(folder / RECIPE, f"{text}\n".encode())
    if detector.config.quantized:
        save_detector(freeze(detector), folder / FROZEN, notes)
        written.insert(1, FROZEN)
    return written


def _measure(
    detector: Detector, samples: list[Sample], data: Path, trained_on: str, report: Report
) -> dict[str, Any]:
    """What ``qmdd eval`` finds, as plain data."""
    from ..calibration.evaluate import subject_from_detector
    from ..runtime.evaluate import evaluate
    from ..runtime.known_sets import find_seen, generators_from_record, in_order
    from ..runtime.scoring import score_samples

    subject = subject_from_detector(detector, data)
    present = in_order({sample.generator for sample in samples})
    seen = find_seen(present, generators_from_record(trained_on))
    scored = score_samples(samples, subject, report=report)
    found = evaluate(scored, data, threshold=subject.threshold, seen=seen, report=report)
    return found.to_dict()


def _print_result(result: dict[str, Any], measured: dict[str, Any]) -> None:
    print_line(f"{result['arch']}, {result['bits']} bits, trained in {result['seconds']:.0f} s")
    for name, size in result["files"].items():
        print_line(f"  {result['out']}/{name}  {size:,} bytes")
    if measured:
        print_line("")
        print_evaluation(measured)
