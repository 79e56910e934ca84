"""Where tokens are: tables, biases and rotations."""
