"""Hostile inputs that ask for memory: what they cost, and what is said of them."""
