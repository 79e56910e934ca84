"""The projection head of self-distillation."""
