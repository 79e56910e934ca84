"""Checkpoints of OpenCLIP."""
