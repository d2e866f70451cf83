"""The command blocks of the documentation: where they are, and what is said about running them.

A block is fenced code in ``sh`` or ``python``. It is run as it stands, unless a comment before it
says otherwise, each on lines of its own::

    <!-- not run: why it cannot be run by a test -->
    <!-- run without "make test": why this line cannot be -->
    <!-- prints -->            the block of text behind it is what it prints, ``...`` is anything

Every fence names a language, so that no command hides in one that has none.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Languages whose blocks are run.
RUN = ("sh", "python")
#: Languages of blocks that are shown alone; ``{...}`` is a directive of the site.
SHOWN = ("text", "json", "yaml", "toml", "ini", "cpp", "diff")

_FENCE = re.compile(r"^( *)(```+)\s*(\S*)[^`]*$")
_COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
_NOT_RUN = re.compile(r"not run: (?P<why>\S.*)", re.DOTALL)
_WITHOUT = re.compile(r'run without "(?P<line>[^"]+)": (?P<why>\S.*)', re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
    """Fenced code in a page.

    Attributes:
        page: its file, relative to the root.
        line: where the fence opens, from 1.
        language: as the fence names it; empty if it does not.
        text: what stands in it, without the indentation of the fence.
        not_run: why it is not run; empty if it is.
        without: beginnings of lines that are left out, and why.
        prints: what it has to print; ``None`` where nothing is said.
    """

    page: str
    line: int
    language: str
    text: str
    not_run: str = ""
    without: tuple[tuple[str, str], ...] = ()
    prints: str | None = None

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether a test runs it."""
        return self.language in RUN and not self.not_run

    def command(self) -> str:
        """The text without the lines that are left out."""
        kept = self.text.splitlines()
        for left_out, _ in self.without:
            found = [line for line in kept if line.startswith(left_out)]
            if not found:
                raise ValueError(f"{self.name}: no line begins with {left_out!r}")
            kept = [line for line in kept if line not in found]
        return "\n".join(kept) + "\n"


def clone() -> list[Path]:
    """What stands at the root of the project, but for git's own, results and environments."""
    results = ("build", "dist", "out", "runs", "shared")
    return [
        path
        for path in sorted(ROOT.iterdir())
        if not path.name.startswith(".") and path.name not in results and path.suffix != ".egg-info"
    ]


def pages() -> list[Path]:
    """Every Markdown file but those that cards and repositories of models are made of."""
    found = [page for top in clone() for page in ([top] if top.is_file() else top.rglob("*.md"))]
    made_of = ("card-template.md", "repository.md")
    return sorted(page for page in found if page.suffix == ".md" and page.name not in made_of)


def blocks_in(page: str, text: str) -> list[Block]:
    """All fenced code of a page, with what the comments before it say.

    Raises:
        ValueError: a fence is not closed, or a comment about running stands before no block.
    """
    found: list[Block] = []
    said: list[str] = []
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        opened = _FENCE.match(lines[at])
        if opened:
            end = _closing(page, lines, at, opened.group(2))
            indent = len(opened.group(1))
            body = "\n".join(line[indent:] for line in lines[at + 1 : end])
            found.append(_block(page, at + 1, opened.group(3), body, said))
            said, at = [], end + 1
            continue
        comment, at = _comment(lines, at)
        if comment.startswith(("not run", "run without", "prints")):
            said.append(comment)
        elif said and not comment and lines[at].strip():
            raise ValueError(f"{page}:{at + 1}: {said[-1]!r} stands before no block")
        at += 1
    return _with_outputs(found)


def _closing(page: str, lines: list[str], at: int, fence: str) -> int:
    for end in range(at + 1, len(lines)):
        if lines[end].strip() == fence:
            return end
    raise ValueError(f"{page}:{at + 1}: this fence is never closed")


def _comment(lines: list[str], at: int) -> tuple[str, int]:
    """The comment that begins at a line, words apart by one space, and its last line."""
    if not lines[at].lstrip().startswith("<!--"):
        return "", at
    end = at
    while "-->" not in lines[end] and end + 1 < len(lines):
        end += 1
    match = _COMMENT.search("\n".join(lines[at : end + 1]))
    return (" ".join(match.group(1).split()) if match else "", end)


def _block(page: str, line: int, language: str, text: str, said: list[str]) -> Block:
    not_run, without, prints = "", [], None
    for comment in said:
        whole, part = _NOT_RUN.fullmatch(comment), _WITHOUT.fullmatch(comment)
        if whole:
            not_run = whole["why"]
        elif part:
            without.append((part["line"], part["why"]))
        elif comment == "prints":
            prints = ""
        else:
            raise ValueError(f"{page}:{line}: {comment!r} lacks its reason")
    return Block(page, line, language, text, not_run, tuple(without), prints)


def _with_outputs(found: list[Block]) -> list[Block]:
    """Where a block says that it prints, what it prints is the next one."""
    for index, block in enumerate(found):
        if block.prints is not None:
            after = found[index + 1] if index + 1 < len(found) else None
            if after is None or after.language != "text":
                raise ValueError(f"{block.name}: no block of text says what it prints")
            found[index] = dataclasses.replace(block, prints=after.text)
    return found


def all_blocks() -> list[Block]:
    """The blocks of all pages."""
    return [
        block
        for path in pages()
        for block in blocks_in(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    ]


def matches(expected: str, printed: str) -> bool:
    """Whether ``printed`` is as expected; ``...`` stands for anything, blank ends do not count."""
    parts = [re.escape(part) for part in _trimmed(expected).split("...")]
    return re.fullmatch(".*".join(parts), _trimmed(printed), re.DOTALL) is not None


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
