"""Checkpoints of torchvision."""
