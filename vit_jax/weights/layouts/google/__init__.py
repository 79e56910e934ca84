"""Checkpoints of Google's vision_transformer and big_vision."""
