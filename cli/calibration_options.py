"""Options that ``qmdd calibrate`` and ``qmdd sensitivity`` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .options import FILE

if TYPE_CHECKING:
    from ..runtime.scoring import Unusable

F = TypeVar("F", bound=Callable[..., Any])

#: The names of :data:`qmdd.calibration.ranges.METHODS`, which is not imported here because it
#: imports numpy; a test holds the two together.
METHODS = ("minmax", "percentile", "entropy", "mse")


def calibration_options(images: int) -> Callable[[F], F]:
    """Data, how much of it, and how ranges are found; ``images`` is the default number."""

    def add(command: F) -> F:
        for option in reversed(_options(images)):
            command = option(command)
        return command

    return add


def _options(images: int) -> tuple[Callable[[F], F], ...]:
    return (
        click.option(
            "--data",
            required=True,
            type=FILE,
            metavar="DIR",
            help="Image folder: GENERATOR/0_real/*, GENERATOR/1_fake/*.",
        ),
        click.option(
            "--method",
            type=click.Choice(METHODS),
            default="mse",
            show_default=True,
            help="How the range of a layer's codes is found.",
        ),
        click.option(
            "--percentile",
            type=click.FloatRange(50, 100, max_open=True),
            metavar="P",
            help="Percent of the values that --method percentile keeps; default: 99.99.",
        ),
        click.option(
            "--slr/--no-slr",
            default=False,
            show_default=True,
            help="SLR before the grid, to train from: see docs/calibration.md.",
        ),
        click.option(
            "--images",
            type=click.IntRange(min=2),
            default=images,
            show_default=True,
            metavar="N",
            help="Use N images at most, chosen at random, half of each class.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            metavar="N",
            help="Of the choice and the order of the images.",
        ),
        click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be used."),
    )


def check_percentile(method: str, percentile: float | None) -> None:
    """``--percentile`` goes with its method only; :class:`click.UsageError` otherwise."""
    if percentile is not None and method != "percentile":
        raise click.UsageError(f"--percentile needs --method percentile, not {method}")


def told(skipped: Sequence[Unusable]) -> list[dict[str, str]]:
    """Count and name on stderr the images that were left out; the same for the JSON."""
    from .evaluation import tell_left_out

    found = [{"path": str(path), "reason": reason} for path, reason in skipped]
    tell_left_out(found, [])
    return found
