"""UPerNet: a pyramid decoder."""
