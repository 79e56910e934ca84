"""Architectures: arrays in, arrays out. Flax lives here and nowhere above."""
