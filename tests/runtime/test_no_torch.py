"""What runs on the device runs without torch, and without anything of the other rooms."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import qmdd.runtime

ROOM = Path(qmdd.runtime.__file__).parent
MODULES = sorted(
    path.relative_to(ROOM).with_suffix("").as_posix().replace("/", ".")
    for path in ROOM.rglob("*.py")
)


def _python(code: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_every_module_loads_no_heavy_package() -> None:
    """``onnxruntime``, ``PIL`` and ``safetensors`` wait until they are needed, too."""
    code = (
        "import sys, importlib\n"
        "for name in sys.argv[1:]: importlib.import_module('qmdd.runtime.' + name)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    names = [name.removesuffix("__init__").rstrip(".") for name in MODULES if name != "__init__"]
    assert {"bundle", "detector", "session"} <= set(names)
    loaded = set(_python(code, *names).split())
    assert "numpy" in loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "PIL", "safetensors", "sklearn", "rich"}


def test_detecting_loads_no_torch(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    """With ``None`` in ``sys.modules`` an attempt to import it would raise."""
    Image.new("RGB", (40, 40), (255, 255, 255)).save(tmp_path / "white.png")
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "from qmdd.runtime import Detector\n"
        "print(*next(Detector.open(sys.argv[1], threads=1).detect([sys.argv[2]]))[2:4])\n"
        "print(any(name.startswith('qmdd.') and name.split('.')[1] != 'runtime' "
        "for name in sys.modules))"
    )
    out = _python(code, str(make_bundle()), str(tmp_path / "white.png"))
    assert out.split("\n")[:2] == ["fake None", "False"]


@pytest.mark.parametrize("module", MODULES)
def test_the_source_imports_neither_torch_nor_another_room(module: str) -> None:
    """Also inside functions, where an import test does not reach."""
    source = (ROOM / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & {
                "torch",
                "onnx",
                "qmdd",
            }
        if isinstance(node, ast.ImportFrom):
            assert node.level <= 1 + module.count(".")
            assert (node.module or "").split(".")[0] not in {"torch", "onnx", "qmdd"}


def test_public_names_are_there_and_unknown_ones_are_not() -> None:
    for name in qmdd.runtime.__all__:
        assert getattr(qmdd.runtime, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        qmdd.runtime.nothing  # noqa: B018
