"""Where a run lies and computes."""
