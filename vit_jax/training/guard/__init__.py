"""What happens when something goes wrong, and before it does."""
