"""Augmentation policies and their operations."""
