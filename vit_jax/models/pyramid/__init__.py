"""Image encoders whose output are maps of features."""
