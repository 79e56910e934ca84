"""From one library's checkpoint to another's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_jax import trees
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError, argument
from vit_jax.models.families import is_image_encoder
from vit_jax.weights.load import open_pretrained
from vit_jax.weights.native import evaluated_with
from vit_jax.weights.pretrained import Ignored
from vit_jax.weights.save import save_parameters


def convert(
    source: str | Path,
    target: str | Path,
    format: str,
    *,
    ignore: Sequence[str] = (),
    eval_transforms: str | None = None,
    **options: Any,
) -> str:
    """Write a checkpoint in another library's format, keeping the size of its positions.

    One copy of the parameters is in memory, and a few arrays of each file.

    Args:
      source: see `weights.load.load`.
      target: the folder or file to write.
      format: `timm`, `hf`, `npz`, `torchvision`, `pth` or `orbax`, see `weights.save.save`.
      ignore: fields of the configuration that the format may lose, and patterns of arrays of the source that may be
        unknown or missing.
      eval_transforms: what readers shall do to images, as configurations write it; None for what the checkpoint says,
        or the run was evaluated with.
      **options: of `open_pretrained`, for example `part` or `num_classes`; and `dtype`, of the arrays written.

    Returns:
      What was read and written, in words.

    Raises:
      CheckpointError: the source cannot be read.
      ConfigError: the format cannot say what the model computes.
    """
    dtype = options.pop("dtype", "float32")
    # What the source has beside its model, and what the target cannot say, are given alike.
    ignored = Ignored(ignore)
    pretrained = open_pretrained(source, native_size=True, ignore=ignored, **options)
    params, config = trees.flatten(pretrained.params()), pretrained.config
    if eval_transforms is not None:
        if not is_image_encoder(config):
            raise ConfigError(
                f"{argument('eval_transforms')} applies to a single image encoder; leave it out, or choose a part: "
                f"{argument('part')}."
            )
        parse(eval_transforms, argument("eval_transforms"))
        config = evaluated_with(config, eval_transforms)
    written = save_parameters(
        config,
        params,
        target,
        format,
        dtype=dtype,
        class_names=pretrained.class_names,
        ignore=[word for word in ignored.patterns if word not in ignored.matched],
    )
    return f"{pretrained.report}\n{written}"
