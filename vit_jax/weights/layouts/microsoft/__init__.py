"""Checkpoints of Microsoft's own code."""
