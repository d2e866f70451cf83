"""``qmdd demo``: a page on this machine that scores images."""

from __future__ import annotations

import threading
from pathlib import Path

import click

from .errors import printable
from .options import FILE, debug_option, runtime_option, threads_option, threshold_option
from .output import print_line


@click.command("demo")
@click.argument("bundle", type=FILE)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on; others than this machine reach it only if you change this.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    metavar="N",
    help="Port to listen on; 0: one that is free.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
@click.option(
    "--at-once",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    metavar="N",
    help="Images that are worked on at a time.",
)
@click.option(
    "--queue",
    type=click.IntRange(0, 1024),
    default=32,
    show_default=True,
    metavar="N",
    help="Images that may wait, in memory; more are turned away (503).",
)
@threshold_option("the bundle's")
@runtime_option
@threads_option
@debug_option
def command(
    bundle: Path,
    host: str,
    port: int,
    open_page: bool,
    at_once: int,
    queue: int,
    threshold: float | None,
    runtime: str | None,
    threads: int | None,
) -> None:
    """Serve a page where a person drops an image and sees what BUNDLE says of it.

    Only this machine reaches it, unless --host says otherwise. Images stay in memory and are
    forgotten. Programs send an image's bytes to /api/score. Ctrl-C ends it.

    \b
    qmdd demo bundle --open
    curl --data-binary @photo.jpg http://127.0.0.1:8000/api/score
    """
    from ..runtime.demo.serve import listen, require_server, serve, url_of

    require_server()

    from ..runtime.demo.answer import Answerer
    from ..runtime.demo.guard import is_loopback
    from ..runtime.detector import Detector
    from ..runtime.images import require_pillow

    require_pillow()
    answerer = Answerer(Detector.open(bundle, threads=threads, runtime=runtime), threshold)
    with listen(host, port) as sock:
        url = url_of(sock, host)
        print_line(url)
        if not is_loopback(host):
            _say("whoever reaches this address may use it: there is no password")
        _say("Ctrl-C ends it")
        if open_page:  # some browsers come back only when they are closed
            threading.Thread(target=click.launch, args=(url,), daemon=True).start()
        serve(answerer, sock, host=host, at_once=at_once, queue=queue, say=_say)
    _say("ended")


def _say(text: str) -> None:
    click.echo(printable(f"qmdd: {text}"), err=True)
