"""Write docs/experiments.md from experiments/results/."""

import sys
from pathlib import Path

from ablation.report import document
from qmdd.runtime.files import write_atomically

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    target = HERE.parent / "docs" / "experiments.md"
    write_atomically(target, document(HERE / "results").encode())
    sys.stdout.write(f"{target}\n")
