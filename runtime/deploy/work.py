"""A connection while something is done over it: programs are run, and all they say is kept."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence

from ..errors import DeployError
from .connection import Connection
from .outcome import last_words

#: Of what programs say, kept for a log; the beginning goes first.
_KEPT = 4 << 20


@dataclasses.dataclass
class Work:
    """What is done over ``connection``.

    Attributes:
        connection: to the device.
        commands: programs that were run there.
        said: what they printed on standard error.
    """

    connection: Connection
    commands: list[list[str]] = dataclasses.field(default_factory=list)
    said: str = ""

    def run(
        self,
        arguments: Sequence[str],
        *,
        timeout: float,
        environment: Mapping[str, str] | None = None,
        folder: str = "",
        accept: tuple[int, ...] = (0,),
    ) -> str:
        """Run a program there; what it prints on standard output.

        Args:
            arguments: the program and its arguments; no shell sees them.
            timeout: seconds.
            environment: variables beside the device's own.
            folder: where it is run; default: the folder of the deployment.
            accept: exit codes that are no failure.

        Raises:
            DeployError: another exit code, too slow, or the connection breaks.
        """
        self.commands.append(list(arguments))
        words = ""

        def keep(more: str) -> None:
            nonlocal words
            words = (words + more)[-_KEPT:]  # as it comes: it may never end

        try:
            code, output = self.connection.run(
                arguments, timeout=timeout, environment=environment, folder=folder, words=keep
            )
        finally:
            self.said = (self.said + words)[-_KEPT:]
        if code in accept:
            return output
        if code is None:
            raise DeployError(f"took longer than {timeout:,.0f} seconds")
        if "No space left on device" in words:
            raise DeployError("no space left there; free some, then deploy again")
        raise DeployError(last_words(words if words.strip() else output))

    def keep_log(self) -> str | None:
        """Write what was said into a file here; its name, ``None`` if nothing was said."""
        if not self.said.strip():
            return None
        handle, name = tempfile.mkstemp(prefix="qmdd-deploy-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            for command in self.commands:
                stream.write(f"{command}\n")
            stream.write(self.said)
        return name
