"""What is done to examples on the host, as small functions with an explicit random generator."""
