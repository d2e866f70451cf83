"""What ssh means by its exit code and last words, and what to do about it."""

from __future__ import annotations

import re

#: Words of OpenSSH or of a shell, and what is made of them; the first that fits is taken.
_KNOWN = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|host key .* has changed",
        "its host key is not the one that is known: another machine may be answering; if it was "
        "set up anew, compare fingerprints, then: ssh-keygen -R HOST",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        "its host key is not known here; connect once with ssh and compare the fingerprint",
    ),
    (
        r"Permission denied \(|Too many authentication failures",
        "it does not accept any key of yours (%s); try ssh by hand, then ssh-copy-id",
    ),
    (r"Could not resolve hostname", "no machine has this name; check it (%s)"),
    (r"Connection refused", "nothing answers at its ssh port; is sshd running there? (%s)"),
    (
        r"Connection timed out|Operation timed out|No route to host|Network is unreachable",
        "cannot be reached; is it on, and on this network? (%s)",
    ),
    (
        r"Timeout, server|not responding|Connection reset|Broken pipe|closed by remote host",
        "the connection broke (%s); run the same command again, it goes on from there",
    ),
    (r"Bad configuration option|terminating, .* bad configuration", "ssh's configuration: %s"),
    (
        r"SyntaxError",
        "its Python cannot run this (%s); name another one there with --python",
    ),
)
_NO_PYTHON = (
    "has no such Python (%s); install Python 3.10 or newer there, or name one with --python"
)


def explain(code: int | None, said: str) -> str:
    """Why ssh ended, in one line.

    Args:
        code: its exit code (255: ssh's own failure; else the remote command's).
        said: what it, and the device's shell, printed on standard error.
    """
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip(" @\r\t")]
    last = lines[-1] if lines else ""
    if code in (126, 127):
        return _filled(_NO_PYTHON, last or f"exit code {code}")
    for pattern, meaning in _KNOWN:
        found = next((line for line in lines if re.search(pattern, line)), None)
        if found is not None:
            return _filled(meaning, found)
    if code == 255 or code is None or code < 0:
        return _filled(
            "the connection broke (%s); run the same command again, it goes on from there",
            last or "ssh says nothing",
        )
    return _filled("the agent ended there (%s); see --debug", last or f"exit code {code}")


def _filled(meaning: str, words: str) -> str:
    return meaning.replace("%s", words if len(words) <= 300 else words[:297] + "...")
