"""Who may ask: no page of another site, by whatever name it reaches this machine.

* A page elsewhere can make a browser send requests here. One that posts is refused by its
  ``Origin`` and ``Sec-Fetch-Site``.
* A name elsewhere can be pointed at 127.0.0.1 after its page was loaded (DNS rebinding): to the
  browser both are then one site. The ``Host`` header still says that name, and is refused.
* Answers carry the headers by which a browser lets the page load nothing from anywhere else.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``: ``localhost``, 127.x.y.z, ::1.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def host_of(authority: str) -> str:
    """The host of a ``Host`` header, lower case, without its port; empty if it is not one.

    >>> host_of("LocalHost:8000"), host_of("[::1]:80"), host_of("a@b/c")
    ('localhost', '::1', '')
    """
    if any(c in authority for c in "@/\\?# "):
        return ""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


class Guard:
    """ASGI middleware: refuses by :meth:`fault`, and adds :data:`HEADERS` to every answer.

    Args:
        app: what is guarded.
        host: what the server listens on. A loopback one is asked for by loopback names only; any
            other also by its own name, the machine's, and addresses, which no foreign name is.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._open = not is_loopback(host)
        self._names = {host.lower()}
        if self._open:
            name = socket.gethostname().lower()
            self._names |= {name, f"{name}.local"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        fault = self.fault(scope["method"], headers)
        if fault is None:
            await self._app(scope, receive, guarded)
            return

        from starlette.responses import JSONResponse

        await JSONResponse({"error": fault}, 403)(scope, receive, guarded)

    def fault(self, method: str, headers: dict[str, str]) -> str | None:
        """Why a request is refused; ``None`` if it is not.

        Args:
            headers: by lower-case name.
        """
        authority = headers.get("host", "")
        host = host_of(authority)
        if not (is_loopback(host) or host in self._names or (self._open and _address(host))):
            return "asked for by a name that is not this server's; use the address that it printed"
        if method in ("GET", "HEAD"):
            return None
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != authority.lower():
            return "sent by a page of another site; use this server's own page"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "sent by a page of another site; use this server's own page"
        return None


def _netloc(origin: str) -> str:
    """Host and port of an ``Origin``, lower case; empty of ``null`` and of what is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
