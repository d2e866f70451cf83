"""Mutated files of every kind that comes from outside, and what qmdd makes of them."""
