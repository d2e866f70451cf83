"""``qmdd export --serve triton``: which options go together, and what is printed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from qmdd.cli import serving as cli
from qmdd.exporter.errors import ExportError
from qmdd.exporter.triton import serve, settings

RESULT = serve.ServeResult(
    repository=Path("models"),
    folder=Path("models/m/2"),
    version=2,
    settings=settings.Settings(
        name="m",
        backend="onnxruntime",
        sides={"min_side": 32, "multiple": 2, "max_side": 512},
        threshold=0.5,
        arch="resnet23",
        bits=2,
        max_batch=4,
        best_batch=4,
        queue_delay_us=100,
        device="cpu",
        threads=0,
        plans={},
        versions={},
    ),
    config_kept=False,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the exporter's room was asked for."""
    found: list[Any] = []

    def answer(what: Any, repository: Path, **options: Any) -> serve.ServeResult:
        found.append((what, repository, options))
        return RESULT

    monkeypatch.setattr(serve, "serve_bundles", answer)
    monkeypatch.setattr(serve, "serve_export", answer)
    return found


def test_defaults_are_the_exporters() -> None:
    assert (cli.MAX_BATCH, cli.QUEUE_DELAY_US) == (settings.MAX_BATCH, settings.QUEUE_DELAY_US)


def test_of_bundles(invoke, asked: list[Any]) -> None:
    options = ["--max-batch=4", "--queue-delay-us=100", "--device=gpu", "--threads=2", "--name=m"]
    result = invoke(
        "export", "--serve=triton", "--bundle=a", "--bundle=b", *options, "--output=models"
    )
    assert result.exit_code == 0
    assert asked == [
        (
            (Path("a"), Path("b")),
            Path("models"),
            {"name": "m", "asked": settings.Asked(4, 100, "gpu", 2)},
        )
    ]
    assert result.stdout.splitlines() == [
        "model m, version 2: onnxruntime on cpu, batches of at most 4",
        "model repository: models (its README.md says how to serve it)",
    ]


def test_of_a_checkpoint(
    invoke, asked: list[Any], latent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported where the repository's writer says, with parity, as ever."""
    exported: list[tuple[Path, bool, bool]] = []
    monkeypatch.setattr(
        "qmdd.exporter.export.export_bundle",
        lambda _source, folder, **options: exported.append(
            (folder, options["verify"], options["force"])
        ),
    )
    result = invoke("export", "--checkpoint", latent, "--serve=triton", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["version"] == 2
    ((export, place, options),) = asked
    assert (place, options) == (Path("triton"), {"name": None, "asked": settings.Asked()})
    export(Path("elsewhere"))
    assert exported == [(Path("elsewhere"), True, False)]


def test_what_was_changed_by_hand_is_said(
    invoke, monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    kept = dataclasses.replace(RESULT, config_kept=True)
    monkeypatch.setattr(serve, "serve_bundles", lambda *_, **__: kept)
    said = invoke("export", "--serve=triton", "--bundle=a").stdout
    assert "its config.pbtxt was changed by hand and stays as it is" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--bundle=a"], "--bundle is for --serve triton"),
        (["--max-batch=2"], "--max-batch is for --serve triton"),
        (["--serve=triton", "--no-verify"], "leave --verify out"),
        (["--serve=triton", "--force"], "leave --force out"),
        (["--serve=triton", "--bundle=a", "--bits=2"], "leave --bits out"),
        (["--serve=triton", "--bundle=a", "--target=cpu"], "leave --target out"),
        (["--serve=triton", "--bundle=a", "--images=x"], "leave --images out"),
        (["--serve=bento"], "'bento' is not 'triton'"),
        (["--serve=triton", "--max-batch=0"], "Invalid value for '--max-batch'"),
    ],
)
def test_wrong_usage(invoke, asked: list[Any], args: list[str], said: str) -> None:
    result = invoke("export", *args)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert not asked


def test_a_refusal_is_one_line(invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ExportError("models: holds other files")

    monkeypatch.setattr(serve, "serve_bundles", refuse)
    result = invoke("export", "--serve=triton", "--bundle=a")
    assert result.exit_code == 1
    assert result.stderr == "qmdd: error: models: holds other files\n"


def test_serving_a_bundle_needs_no_torch(process, tmp_path: Path) -> None:
    """It is refused because there is none, and not for what is not installed."""
    done = process(
        "export",
        "--serve=triton",
        f"--bundle={tmp_path / 'absent'}",
        code="import sys\nfor name in ('torch', 'onnx'): sys.modules[name] = None",
    )
    assert done.returncode == 1
    assert "no such bundle" in done.stderr
