"""``python -m hardening.faults``."""

from .command import main

main()
