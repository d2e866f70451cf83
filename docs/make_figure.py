"""Draw ``docs/export.svg``: what ``qmdd export --bits 2`` really prints, run anew.

python docs/make_figure.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

COMMAND = "qmdd export --bits 2"
LINE, CHARACTER, MARGIN = 19, 8.43, 16


def printed() -> list[str]:
    """The command's output, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "qmdd.cli.main", *COMMAND.split()[1:]],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    return [line.rstrip() for line in run.stdout.rstrip().splitlines()]


def svg(lines: list[str]) -> str:
    """A terminal as SVG: no script, no font from elsewhere, readable on light and dark pages."""
    width = int(max(len(line) for line in lines) * CHARACTER) + 2 * MARGIN
    height = len(lines) * LINE + 2 * MARGIN
    rows = "\n".join(
        f'<text x="{MARGIN}" y="{MARGIN + 14 + index * LINE}" xml:space="preserve">'
        f"{escape(line)}</text>"
        for index, line in enumerate(lines)
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>Output of {COMMAND}</title>
<rect width="{width}" height="{height}" rx="8" fill="#16181d"/>
<g font-family="ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14"
 fill="#e6e6e6">
{rows}
</g>
</svg>
"""


def main() -> None:
    """Run and draw."""
    lines = [f"$ {COMMAND}", *printed()]
    Path(__file__).with_name("export.svg").write_text(svg(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
