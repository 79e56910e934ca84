"""The names and shapes of each library's checkpoints."""
