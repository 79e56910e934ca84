"""The Swin Transformer, both versions.

Sources: Liu et al. 2021 (arXiv 2103.14030) and Liu et al. 2021 (arXiv 2111.09883).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.errors import ConfigError
from vit_jax.models.layers.dense import Dense, dense, initial_kernel
from vit_jax.models.layers.dropout import dropout
from vit_jax.models.layers.encoder import drop_path_rates
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm
from vit_jax.models.layers.pixels.checks import check_channels
from vit_jax.models.layers.pixels.patches import pad_images, patchify
from vit_jax.models.layers.pixels.sizes import check_divides
from vit_jax.models.pyramid.backbone import Backbone
from vit_jax.models.pyramid.captures import parse_captures
from vit_jax.models.swin.config import SwinConfig, replace
from vit_jax.models.swin.family import CAPTURES
from vit_jax.models.swin.stage import Stage
from vit_jax.random import fold


class PatchEmbed(Module):
    """Linear embedding of non-overlapping patches, and its norm; the kernel has the shape of a convolution's."""

    def __init__(self, config: SwinConfig, *, rngs: nnx.Rngs):
        self.patch_size, d = config.patch_size, config.width
        shape = (*config.patch_size, config.in_channels, d)
        if config.init == "jax":
            kernel = jax.nn.initializers.lecun_normal()(rngs.params(), shape, jnp.float32)
        else:
            kernel = initial_kernel(config.init, rngs.params(), shape, 0, 0)
        self.kernel, self.bias = nnx.Param(kernel), nnx.Param(jnp.zeros((d,)))
        self.norm = LayerNorm(d, config.norm_epsilon)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the map `(b, h, w, d)` of images `(b, height, width, c)`."""
        rows, columns = (side // size for side, size in zip(images.shape[1:3], self.patch_size))
        kernel = self.kernel[...]
        x = dense(patchify(images, self.patch_size), kernel.reshape(-1, kernel.shape[-1]), self.bias[...])
        return self.norm(x.reshape(len(x), rows, columns, -1))


class SwinTransformer(Backbone):
    """A Swin Transformer: images `(b, h, w, c)` to logits `(b, classes)`.

    Args:
      config: sizes and options.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: SwinConfig, *, rngs: nnx.Rngs):
        self.config, d = config, config.feature_width
        self.patch_embed = PatchEmbed(config, rngs=rngs)
        token = 0.02 * jax.random.normal(rngs.params(), (1, config.width), jnp.float32)
        self.mask_token = nnx.Param(token) if config.mask_token else None
        self.stages = nnx.List([Stage(config, stage, rngs=rngs) for stage in range(len(config.depths))])
        self.norm = LayerNorm(d, config.norm_epsilon)
        self.head = nnx.data(_head(config))

    def embed(
        self, images: jax.Array, key: jax.Array | None = None, mask: jax.Array | None = None
    ) -> jax.Array:
        """Return the map of patches `(b, h, w, d)` that the first stage takes.

        Args:
          images: normalised images `(b, height, width, c)` of any size.
          key: None for evaluation.
          mask: `(b, n)` bool, True where the mask token stands in for a patch; None for no patch.

        Raises:
          ConfigError: the model does not take such images, or has no mask token.
        """
        x = self.patch_embed(fit_images(self.config, images).astype(self.config.dtype))
        if mask is not None:
            if self.mask_token is None:
                raise ConfigError("a mask was given to a model without mask_token; create it with one.")
            if mask.shape != (len(x), x.shape[1] * x.shape[2]):
                raise ConfigError(f"mask has shape {mask.shape}; the patches are {x.shape[:3]}.")
            hidden = jnp.broadcast_to(self.mask_token[...], x.shape).astype(x.dtype)
            x = jnp.where(mask.reshape(*x.shape[:3], 1), hidden, x)
        return dropout(x, self.config.dropout_rate, fold(key, "embedding"))

    def __call__(
        self,
        images: jax.Array,
        key: jax.Array | None = None,
        capture: str | tuple[str, ...] = (),
        mask: jax.Array | None = None,
    ) -> Any:
        """Return the model's output and, when asked for by name, intermediate values.

        Args:
          images: normalised images `(b, height, width, c)` of any size.
          key: randomness of dropout and drop path; None for evaluation.
          capture: a name or several out of `CAPTURES`: `embedded` (b h w d), `encoded` (b h w c), the last map after
            its norm, `pooled` (b c); and with a number, `stages/0` or `stages/-1` (b h w c), `blocks/5` (b h w c) and
            `attention/5` (b w, heads, n, n) counted over all stages. Without the number it is all of them.
          mask: `(b, n)` bool, True where the mask token stands in for a patch.

        Returns:
          Logits `(b, classes)` in float32; without a head, the pooled features `(b, c)`; for pool `patches` either for
          each place of the last map. With `capture`, a tuple of that and a dict with the names as given.

        Raises:
          ConfigError: images the model does not take, or an unknown name.
        """
        config = self.config
        counts = {"stages": len(config.depths), "blocks": config.depth, "attention": config.depth}
        wanted = parse_captures(capture, CAPTURES, counts, together=True)
        kinds = {kind for kind, _ in wanted.values()}
        x = self.embed(images, key, mask)
        values: dict[str, Any] = {"embedded": x, "stages": [], "blocks": [], "attention": []}
        rates, grid, first = drop_path_rates(config), (x.shape[1], x.shape[2]), 0
        for number, stage in enumerate(self.stages):
            x, captured = stage(
                x,
                rates[first : first + config.depths[number]],
                fold(key, f"stage {number}"),
                config.fit(number, grid),
                outputs="blocks" in kinds,
                weights="attention" in kinds,
            )
            first += config.depths[number]
            values["stages"].append(x)
            for name, found in captured.items():
                values[name] += found
        values["encoded"] = x = self.norm(x)
        if config.pool == "mean":
            x = x.mean(axis=(1, 2))
        values["pooled"] = x
        # The head is small and its logits feed exponentials: float32 always.
        out = x if self.head is None else self.head(x.astype(jnp.float32))
        if not capture:
            return out
        return out, {n: values[kind] if i is None else values[kind][i] for n, (kind, i) in wanted.items()}

    def reset_classifier(self, num_classes: int) -> None:
        """Give the model a new head, starting at zero, in place; 0 removes it."""
        self.config = replace(self.config, num_classes=num_classes)
        self.head = _head(self.config)


def fit_images(config: SwinConfig, images: jax.Array) -> jax.Array:
    """Return images whose sides are whole patches, see `models.swin.fitting`.

    Raises:
      ConfigError: the model does not take images of this shape and type.
    """
    check_channels(images, config.in_channels)
    height, width = images.shape[1:3]
    if config.window_fit in ("pad_together", "clamp_once"):
        return pad_images(images, config.patch_size)
    if config.window_fit == "pad":
        p, q = config.patch_size
        return images[:, : height // p * p, : width // q * q]
    check_divides((height, width), config.patch_size)
    return images


def _head(config: SwinConfig) -> Dense | None:
    if not config.num_classes:
        return None
    rngs = nnx.Rngs(jax.random.key(0))
    return Dense((config.feature_width,), (config.num_classes,), scheme="zeros", rngs=rngs)
