"""Checkpoints that are not on this machine."""
