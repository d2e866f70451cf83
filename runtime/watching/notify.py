"""systemd's notifications: ready, alive, what is going on. Without systemd, nothing.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time


class Notify:
    """Sends to the socket that systemd names in the environment."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        own = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        limit = os.environ.get("WATCHDOG_USEC", "")
        #: Seconds between two signs of life: a quarter of what systemd waits for; 0 for none.
        self.period = int(limit) / 4e6 if own and limit.isdecimal() else 0.0
        self._last, self._status = -self.period, ""

    def send(self, text: str) -> None:
        """One message, such as ``READY=1``."""
        if self._address:
            with (
                contextlib.suppress(OSError),
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link,
            ):
                link.sendto(text.encode("utf-8", "replace"), self._address)

    def alive(self) -> None:
        """A sign of life, as often as systemd wants one, however often it is called."""
        if self.period and time.monotonic() >= self._last + self.period:
            self._last = time.monotonic()
            self.send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """What is going on, on one line, for ``systemctl status``."""
        if text != self._status:
            self._status = text
            self.send("STATUS=" + " ".join(text.split()))
