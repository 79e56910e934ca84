"""Models by the names that people use."""
