"""Checkpoints of Meta's research code."""
