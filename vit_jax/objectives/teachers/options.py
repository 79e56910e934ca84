"""What options may say of a frozen network's checkpoint. Needs no jax."""

from typing import Any

from vit_jax.errors import ConfigError

_STORED = (".npy", ".csv", ".tsv", ".parquet", ".json", ".jsonl", ".h5")


def check_source(option: str, source: Any) -> None:
    """Raise `ConfigError` unless an option names a checkpoint.

    Args:
      option: its name, for the message.
      source: what it says.
    """
    if not isinstance(source, str) or not source.strip():
        raise ConfigError(
            f"{option} is {source!r}; it must be a checkpoint: a file, folder, workdir, or a name on the hub."
        )
    if source.lower().endswith(_STORED):
        raise ConfigError(
            f"{option} is {source!r}, which looks like stored outputs; a teacher has to see the very crops and "
            "mixtures that the student sees, so give its checkpoint."
        )
