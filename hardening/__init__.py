"""Runs that try to break qmdd; the short ones are tests (tests/hardening)."""
