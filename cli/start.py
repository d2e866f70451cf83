"""Entry point of the script ``qmdd``: it imports nothing before a signal is answered in order."""

import signal


def main() -> None:
    """Run :func:`.main.main`."""
    # While the command line is imported Ctrl-C just ends the process: Python would show where in
    # the imports it was.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    from .main import main as run

    run()
