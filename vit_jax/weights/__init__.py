"""Checkpoints of other libraries: files, names and shapes, read and written."""
