"""What stands on a backbone."""
