"""Exactness at the edges: all floats, native operators under a fuzzer, a matrix of parity."""
