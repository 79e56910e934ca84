"""Models as programs that need no Python of ours."""
