"""Augmentation inside the jitted step."""
