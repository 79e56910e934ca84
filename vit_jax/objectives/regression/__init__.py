"""One or several values an image."""
