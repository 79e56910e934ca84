"""Text encoders, and pairs of an image and a text encoder."""
