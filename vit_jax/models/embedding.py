"""From pixels to tokens: convolution stem, patch embedding, positions, class and register tokens."""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.errors import ConfigError
from vit_jax.models.layers import ACTIVATIONS, LayerNorm, dense, initial_kernel, spread, value_of
from vit_jax.models.positions import sincos2d
from vit_jax.models.resample import resample_positions
from vit_jax.models.vit_config import ViTConfig, check_divides


def patchify(images: jax.Array, patch_size: tuple[int, int]) -> jax.Array:
    """Cut images into patches, row by row; inside a patch the order is row, column, channel.

    Args:
      images: `(b, h, w, c)`.
      patch_size: height `p` and width `q` of a patch, dividing `h` and `w`.

    Returns:
      `(b, n, p*q*c)`.
    """
    b, h, w, c = images.shape
    p, q = patch_size
    grid = images.reshape(b, h // p, p, w // q, q, c).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(b, (h // p) * (w // q), p * q * c)


def unpatchify(patches: jax.Array, patch_size: tuple[int, int], grid: tuple[int, int]) -> jax.Array:
    """Put patches `(b, n, p*q*c)` back together to images `(b, h, w, c)`; the inverse of `patchify`."""
    (p, q), (rows, columns) = patch_size, grid
    b, _, size = patches.shape
    images = patches.reshape(b, rows, columns, p, q, size // (p * q)).transpose(0, 1, 3, 2, 4, 5)
    return images.reshape(b, rows * p, columns * q, size // (p * q))


class StemLayer(nnx.Module):
    """3x3 convolution, norm over channels, activation (Xiao et al. 2021, arXiv 2106.14881)."""

    def __init__(self, config: ViTConfig, channels_in: int, channels_out: int, *, rngs: nnx.Rngs):
        self.config = config
        shape = (3, 3, channels_in, channels_out)
        self.kernel = nnx.Param(jax.nn.initializers.he_normal()(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels_out,)))
        self.norm = LayerNorm(channels_out, config.norm_epsilon)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `(b, h, w, channels_out)` for `x` `(b, h, w, channels_in)`."""
        kernel = self.kernel[...].astype(x.dtype)
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return ACTIVATIONS[self.config.activation](self.norm(x + spread(self.bias[...], x)))


class PatchEmbed(nnx.Module):
    """Linear embedding of non-overlapping patches; the kernel has the shape of a convolution's."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        self.config = config
        channels = config.stem[-1] if config.stem else config.in_channels
        shape = (*config.patch_size, channels, config.width)
        if config.init == "jax":
            kernel = jax.nn.initializers.lecun_normal()(rngs.params(), shape, jnp.float32)
        else:
            kernel = initial_kernel(config.init, rngs.params(), shape, 0, 0)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(jnp.zeros((config.width,))) if config.patch_bias else None

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return tokens `(b, n, d)` of images `(b, h, w, c)`."""
        kernel = self.kernel[...]
        patches = patchify(images, self.config.patch_size)
        return dense(patches, kernel.reshape(-1, kernel.shape[-1]), value_of(self.bias))


def grid_of(config: ViTConfig, images: jax.Array) -> tuple[int, int]:
    """Return the patch grid of images `(b, h, w, c)`.

    Raises:
      ConfigError: the images do not fit the model.
    """
    if images.ndim != 4 or images.shape[3] != config.in_channels:
        raise ConfigError(
            f"images have shape {images.shape}; the model takes (batch, height, width, {config.in_channels})."
        )
    size = (images.shape[1], images.shape[2])
    if size != config.image_size and not config.dynamic_image_size:
        raise ConfigError(
            f"images are {size[0]}x{size[1]} and the model was made for {config.image_size[0]}x"
            f"{config.image_size[1]}; resize them, or create the model with image_size={size} or "
            "dynamic_image_size=True."
        )
    check_divides(size, config.patch_size)
    return size[0] // config.patch_size[0], size[1] // config.patch_size[1]


def position_table(config: ViTConfig, learned: jax.Array | None, grid: tuple[int, int]) -> jax.Array | None:
    """Return the positions for a patch grid, with the class token's slot first if it has one.

    Args:
      config: the model.
      learned: the learned table `(slots, d)`, or None for fixed or no positions.
      grid: rows and columns of patches; other than the model's own they are resampled (learned) or computed.

    Returns:
      `(n, d)` or `(1 + n, d)`, float32, or None.
    """
    if config.position == "none":
        return None
    if learned is None:
        return jnp.asarray(sincos2d(grid, config.width, config.position.removeprefix("sincos2d_")))
    if grid == config.grid:
        return learned
    prefix = config.position_slots - config.num_patches
    return resample_positions(
        learned, config.grid, grid, config.resample, antialias=config.resample_antialias, prefix=prefix
    )


def with_prefix(
    patches: jax.Array,
    positions: jax.Array | None,
    class_token: jax.Array | None,
    registers: jax.Array | None,
) -> jax.Array:
    """Add positions to patch tokens and put class and register tokens before them.

    Args:
      patches: `(b, n, d)`.
      positions: `(n, d)`, or `(1 + n, d)` when the class token has a slot, or None.
      class_token: `(1, d)` or None.
      registers: `(r, d)` or None; they have no position.

    Returns:
      `(b, prefix + n, d)`.
    """
    b, n, d = patches.shape
    prefix = []
    if class_token is not None:
        prefix.append(class_token)
    if positions is not None:
        if positions.shape[0] > n:
            prefix[0] = prefix[0] + positions[:1]
        patches = patches + spread(positions[-n:], patches)
    if registers is not None:
        prefix.append(registers)
    if not prefix:
        return patches
    first = jnp.concatenate(prefix)
    # Cast after broadcasting: see `spread`.
    first = jnp.broadcast_to(first, (b, first.shape[0], d)).astype(patches.dtype)
    return jnp.concatenate([first, patches], axis=1)


def drop_patches(patches: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Return a random subset of patch tokens, in order (PatchDropout, Liu et al. 2022, arXiv 2208.07220).

    Args:
      patches: `(b, n, d)`, positions included.
      rate: share to leave out; at least one token stays.
      key: None for evaluation, which keeps all.
    """
    if key is None or rate == 0:
        return patches
    b, n, _ = patches.shape
    keep = max(1, int(n * (1 - rate)))
    chosen = jnp.argsort(jax.random.uniform(key, (b, n)), axis=1)[:, :keep]
    return jnp.take_along_axis(patches, jnp.sort(chosen, axis=1)[..., None], axis=1)
