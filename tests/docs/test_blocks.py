"""Every command block of the documentation is run by a test or says why not; all are well-formed.

``make test-docs`` runs them (tests/site/check_blocks.py); here is what needs no running.
"""

from __future__ import annotations

import pytest

from ..site.blocks import RUN, SHOWN, Block, all_blocks, blocks_in, matches
from ..site.usage import commands_in, complaint

BLOCKS = all_blocks()


def test_every_fence_names_a_language_that_is_run_or_shown() -> None:
    named = [block for block in BLOCKS if not block.language.startswith("{")]
    odd = [block.name for block in named if block.language not in (*RUN, *SHOWN)]
    assert not odd, f"name the language, one of {', '.join((*RUN, *SHOWN))}: {odd}"


def test_a_reason_stands_only_where_something_is_left_out() -> None:
    for block in BLOCKS:
        if block.language not in RUN:
            assert not block.not_run, block.name
            assert not block.without, block.name
        block.command()  # lines that are left out are there


def test_most_blocks_are_run() -> None:
    commands = [block for block in BLOCKS if block.language in RUN]
    assert len([block for block in commands if block.runs]) > len(commands) / 2


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "sh"], ids=lambda block: block.name
)
def test_commands_exist_and_take_their_options(block: Block) -> None:
    """Also those that are not run."""
    found = [(words, complaint(words)) for words in commands_in(block.text)]
    assert not [(words, why) for words, why in found if why]


def test_what_a_page_says_about_a_block() -> None:
    page = """
<!-- not run: no
     device -->

```sh
qmdd deploy
```
<!-- run without "make test": it would run itself -->
<!-- prints -->
```sh
make export
make test
```
```text
a ... b
```
"""
    first, second, shown = blocks_in("page.md", page)
    assert (first.not_run, first.runs) == ("no device", False)
    assert (second.command(), second.runs) == ("make export\n", True)
    assert second.prints == shown.text == "a ... b"


@pytest.mark.parametrize(
    ("page", "why"),
    [
        ("```sh\nls\n", "never closed"),
        ("<!-- not run: no -->\ntext\n\n```sh\nls\n```\n", "before no block"),
        ("<!-- not run: -->\n```sh\nls\n```\n", "lacks its reason"),
        ("<!-- prints -->\n```sh\nls\n```\n", "says what it prints"),
    ],
)
def test_a_mistake_in_a_page_is_told(page: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        blocks_in("page.md", page)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("qmdd export --bit 2", "--bit"),
        ("find . | qmdd detcet bundle -", "detcet"),
        ("make nothing", "nothing"),
        ("python docs/nothing.py", "nothing.py"),
        ("qmdd export \\\n  --bits 2 --target cpu  # --nothing", ""),
    ],
)
def test_a_wrong_command_would_be_seen(line: str, why: str) -> None:
    found = [complaint(words) for words in commands_in(line)]
    assert any(why in text for text in found) if why else not any(found)


def test_what_is_printed_is_compared() -> None:
    assert matches("a\nb ... c", "a  \nb 1\n2 c\n")
    assert not matches("a\nb ... c", "a\nb 1")
