"""Write the model cards and the generated parts of the documentation anew.

python docs/make_tables.py

In a document, a part begins with ``<!-- generated: NAME -->`` and ends with ``<!-- end -->``; what
stands between is replaced. A test compares the files with what the code computes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qmdd.models.efficiency import NetworkCost

DOCS = Path(__file__).parent
_PART = re.compile(r"(<!-- generated: ([a-z0-9-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def table4_parts() -> dict[str, str]:
    """Table 4 beside ours, and the widths of every built-in network."""
    from qmdd.models.config import ARCHITECTURES, FULL_PRECISION, QUANTIZED_BITS
    from qmdd.models.efficiency import costs_by_width
    from qmdd.models.efficiency_report import summary_table
    from qmdd.models.table4_report import table4

    widths = (*QUANTIZED_BITS, FULL_PRECISION)
    costs = [cost for arch in ARCHITECTURES for cost in costs_by_width(arch, widths)]
    networks = summary_table(costs)
    networks.notes[:] = [_outside(cost) for cost in costs if cost.bits == 2]
    operations, storage, conventions = table4()
    return {
        "operations": operations.markdown(),
        "storage": storage.markdown(),
        "conventions": conventions.markdown(),
        "networks": networks.markdown(),
    }


def _outside(cost: NetworkCost) -> str:
    """In place of the explanations, which stand below Table 4."""
    return (
        f"{cost.name}: {cost.elementwise / 1e9:.3f} G operations on single floats outside "
        f"convolutions (at every width), which OPs leave out; OPs at 2 bits are "
        f"{cost.ops / 1e9:.3f} G."
    )


def zoo_parts() -> dict[str, str]:
    """The list of built-in checkpoints."""
    from qmdd.models.zoo import entries
    from qmdd.models.zoo_card import zoo_table

    return {"zoo": zoo_table(entries()).markdown()}


#: What fills the generated parts of each document.
DOCUMENTS: Mapping[str, Callable[[], dict[str, str]]] = {
    "efficiency.md": table4_parts,
    "zoo.md": zoo_parts,
}


def filled(text: str, parts: Mapping[str, str]) -> str:
    """``text`` with its generated parts replaced; a part that ``parts`` lacks is a KeyError."""
    return _PART.sub(lambda match: f"{match[1]}{parts[match[2]]}\n{match[4]}", text)


def main() -> None:
    """Rewrite every document, and every model card."""
    from qmdd.models.zoo_card import cards

    for path, text in cards().items():
        path.write_text(text, encoding="utf-8")
    for name, parts in DOCUMENTS.items():
        path = DOCS / name
        path.write_text(filled(path.read_text(encoding="utf-8"), parts()), encoding="utf-8")


if __name__ == "__main__":
    main()
