"""Computations written out for speed."""
