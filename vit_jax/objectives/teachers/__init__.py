"""Frozen networks that a student learns from."""
