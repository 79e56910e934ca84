"""From one library's checkpoint to another's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_jax import trees
from vit_jax.weights.load import open_pretrained
from vit_jax.weights.save import save_parameters


def convert(
    source: str | Path, target: str | Path, format: str, *, ignore: Sequence[str] = (), **options: Any
) -> str:
    """Write a checkpoint in another library's format, keeping the size of its positions.

    One copy of the parameters is in memory, and a few arrays of each file.

    Args:
      source: see `weights.load.load`.
      target: the folder or file to write.
      format: `timm`, `hf`, `npz` or `orbax`, see `weights.save.save`.
      ignore: fields of the configuration that the format may lose.
      **options: of `open_pretrained`, for example `part` or `num_classes`; and `dtype`, of the arrays written.

    Returns:
      What was read and written, in words.

    Raises:
      CheckpointError: the source cannot be read.
      ConfigError: the format cannot say what the model computes.
    """
    dtype = options.pop("dtype", "float32")
    pretrained = open_pretrained(source, native_size=True, **options)
    params = trees.flatten(pretrained.params())
    written = save_parameters(
        pretrained.config,
        params,
        target,
        format,
        dtype=dtype,
        class_names=pretrained.class_names,
        ignore=ignore,
    )
    return f"{pretrained.report}\n{written}"
