"""File formats of checkpoints: what arrays are in a file."""
