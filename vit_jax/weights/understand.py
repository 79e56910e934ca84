"""Which library wrote a checkpoint, and what model it holds: each says whether the file is its own."""

from vit_jax.errors import CheckpointError
from vit_jax.models.registry import ModelConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.layout import Layout
from vit_jax.weights.layouts.table import libraries, readings


def understand(raw: RawCheckpoint, model: ModelConfig | None = None) -> tuple[RawCheckpoint, Layout]:
    """Return a checkpoint, its arrays under their library's current names, and what they are.

    Args:
      raw: the checkpoint.
      model: the model, for files that do not say what they hold; None to find out.

    Raises:
      CheckpointError: no library that we know writes such files, or more than one does, or the file does not say what
        model it holds.
      ConfigError: `model` is none that the file can hold.
    """
    known = readings()
    found = [reading for reading in known if reading.claims(raw)]
    if not found:
        raise CheckpointError(
            f"{raw.origin} holds arrays whose names no known library uses, such as "
            f"{next(iter(raw.tensors), 'none')!r}; known are {', '.join(libraries())}."
        )
    if len(found) > 1:
        raise CheckpointError(
            f"{raw.origin} could be of {' and of '.join(reading.library for reading in found)}; keep only the "
            "arrays and the description of one of them."
        )
    return found[0].read(raw, model)
