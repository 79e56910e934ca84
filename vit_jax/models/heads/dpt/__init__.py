"""The dense prediction transformer: maps are put together to a pyramid and fused."""
