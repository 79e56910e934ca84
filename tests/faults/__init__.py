"""Faults put into runs of the real command."""
