"""Learning what a teacher says of images."""
