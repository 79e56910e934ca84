"""What a run is configured by: defaults, files, overrides, checks, durations."""

from vit_jax.training.config.load import default_config, load_config, read_saved, to_json, validate

__all__ = ["default_config", "load_config", "read_saved", "to_json", "validate"]
