"""Learning the features of teachers."""
