"""The room's public names, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import qmdd.models


def test_public_names_are_there_and_unknown_ones_are_not() -> None:
    for name in qmdd.models.__all__:
        found = getattr(qmdd.models, name)
        assert name == "ARCHITECTURES" or found.__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        qmdd.models.nothing  # noqa: B018


@pytest.mark.parametrize("module", ["", ".errors", ".zoo", ".packing"])
def test_what_needs_no_torch_does_not_load_it(module: str) -> None:
    code = (
        "import importlib, sys\n"
        f"importlib.import_module('qmdd.models{module}')\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
