"""What can be said of a command without running it: that it exists and takes these options."""

from __future__ import annotations

import re
import shlex

import click

from qmdd.cli.main import cli

from .blocks import ROOT

#: Folders of the project that hold scripts.
_SCRIPTS = ("benchmarks", "docs", "examples", "experiments")
_JOINT = re.compile(r"\\\n\s*")
_SEPARATORS = ("|", "&&", ";", "<", ">", ">>", "2>&1")


def commands_in(text: str) -> list[list[str]]:
    """The simple commands of a shell script, as words; comments and redirections left out."""
    found = []
    for line in _JOINT.sub(" ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in lexer:
            if word in _SEPARATORS:
                found.append(words)
                words = []
            else:
                words.append(word)
        found.append(words)
    return [words for words in found if words]


def complaint(words: list[str]) -> str:
    """What is wrong with a command, as far as can be told; empty if nothing is.

    Names and options of qmdd's own commands, targets of make, scripts of Python.
    """
    program, *rest = words
    if program.rpartition("/")[2] == "qmdd":
        return _own(rest)
    if program == "make":
        targets = [word for word in rest if "=" not in word and not word.startswith("-")]
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        missing = [t for t in targets if not re.search(rf"^{re.escape(t)}:", makefile, re.M)]
        return f"the Makefile has no {missing[0]}" if missing else ""
    script = next((word for word in rest if word.endswith(".py")), "")
    if program.rpartition("/")[2].startswith("python") and script.partition("/")[0] in _SCRIPTS:
        return "" if (ROOT / script).is_file() else f"there is no {script}"
    return ""


def _own(rest: list[str]) -> str:
    context = click.Context(cli, info_name="qmdd")
    if not rest or rest[0].startswith("-"):
        return ""
    command = cli.get_command(context, rest[0])
    if command is None:
        return f"there is no command {rest[0]!r}"
    if "..." in rest:  # the rest is left to the reader
        return ""
    inner = click.Context(command, info_name=rest[0], parent=context)
    try:
        command.make_parser(inner).parse_args(list(rest[1:]))
    except click.UsageError as error:
        return error.format_message()
    return ""
