"""From pixels to tokens: convolution stem, patch embedding, positions, class and register tokens."""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.activations import ACTIVATIONS
from vit_jax.models.layers.batch_norm import BatchNorm
from vit_jax.models.layers.dense import dense, initial_kernel, spread, value_of
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm, norm_of
from vit_jax.models.layers.pixels.checks import check_channels, check_size
from vit_jax.models.layers.pixels.patches import patchify
from vit_jax.models.layers.pixels.sizes import check_divides
from vit_jax.models.layers.positions.absolute import sincos2d, sincos2d_at
from vit_jax.models.layers.positions.resample import resample_positions, runtime_weights
from vit_jax.models.patches import Patches
from vit_jax.models.vit.config import ViTConfig
from vit_jax.models.vit.flexi import resized_kernel


class StemLayer(Module):
    """3x3 convolution, norm over channels, activation (Xiao et al. 2021, arXiv 2106.14881)."""

    def __init__(
        self, config: ViTConfig, channels_in: int, channels_out: int, stride: int = 1, *, rngs: nnx.Rngs
    ):
        self.config, self.stride = config, stride
        shape = (3, 3, channels_in, channels_out)
        self.kernel = nnx.Param(jax.nn.initializers.he_normal()(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels_out,)))
        self.norm = LayerNorm(channels_out, config.norm_epsilon)

    def __call__(self, x: jax.Array, training: bool = False) -> jax.Array:
        """Return `(b, h / stride, w / stride, channels_out)` for `x` `(b, h, w, channels_in)`."""
        kernel = self.kernel[...].astype(x.dtype)
        x = jax.lax.conv_general_dilated(
            x, kernel, (self.stride, self.stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return ACTIVATIONS[self.config.activation](self.norm(x + spread(self.bias[...], x)))


class PatchStemLayer(Module):
    """Convolution without overlap, batch norm, activation: MobileCLIP's (Vasu et al. 2023, arXiv 2311.17049)."""

    def __init__(
        self, config: ViTConfig, channels_in: int, channels_out: int, stride: int = 1, *, rngs: nnx.Rngs
    ):
        self.config, self.stride = config, stride
        shape = (stride, stride, channels_in, channels_out)
        self.kernel = nnx.Param(jax.nn.initializers.he_normal()(rngs.params(), shape, jnp.float32))
        self.norm = BatchNorm(channels_out)

    def __call__(self, x: jax.Array, training: bool = False) -> jax.Array:
        """Return `(b, h / stride, w / stride, channels_out)` for `x` `(b, h, w, channels_in)`."""
        b, h, w, _ = x.shape
        kernel = self.kernel[...].reshape(-1, self.kernel.shape[-1])
        x = dense(patchify(x, (self.stride, self.stride)), kernel).reshape(
            b, h // self.stride, w // self.stride, -1
        )
        return ACTIVATIONS[self.config.activation](self.norm(x, training))


STEMS = {"early": StemLayer, "mci": PatchStemLayer}


class PatchEmbed(Module):
    """Linear embedding of non-overlapping patches; the kernel has the shape of a convolution's."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        self.config = config
        channels = config.stem[-1] if config.stem else config.in_channels
        channels = config.backbone.out_channels if config.backbone else channels
        shape = (*config.patch_size, channels, config.width)
        if config.init == "jax":
            kernel = jax.nn.initializers.lecun_normal()(rngs.params(), shape, jnp.float32)
        else:
            kernel = initial_kernel(config.init, rngs.params(), shape, 0, 0)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(jnp.zeros((config.width,))) if config.patch_bias else None
        self.norm = norm_of(config, config.width) if config.patch_norm else None

    def __call__(self, images: jax.Array, patch_size: tuple[int, int]) -> jax.Array:
        """Return tokens `(b, n, d)` of images `(b, h, w, c)`, by the kernel resized to `patch_size`."""
        kernel = None
        if patch_size != self.config.patch_size:
            kernel = resized_kernel(self.config, self.kernel[...], patch_size)
        return self.project(patchify(images, patch_size), kernel)

    def project(self, patches: jax.Array, kernel: jax.Array | None = None) -> jax.Array:
        """Return tokens `(b, n, d)` of patches `(b, n, p*q*c)`, by another kernel `(p, q, c, d)` or its own."""
        kernel = self.kernel[...] if kernel is None else kernel
        x = dense(patches, kernel.reshape(-1, kernel.shape[-1]), value_of(self.bias))
        return x if self.norm is None else self.norm(x)


def check_images(config: ViTConfig, images: jax.Array) -> None:
    """Raise ConfigError unless the model takes images `(b, h, w, c)` of this shape and type."""
    check_channels(images, config.in_channels)
    check_size(config, images)
    if not config.dynamic_image_pad:
        check_divides((images.shape[1], images.shape[2]), config.token_stride)


def position_table(config: ViTConfig, learned: jax.Array | None, grid: tuple[int, int]) -> jax.Array | None:
    """Return the positions for a patch grid, with slots of the class and distillation tokens first if they have them.

    Args:
      config: the model.
      learned: the learned table `(slots, d)`, or None for fixed or no positions.
      grid: rows and columns of patches; other than the model's own they are resampled (learned) or computed.

    Returns:
      `(n, d)` or `(prefix + n, d)`, float32, or None.
    """
    if config.position == "none":
        return None
    if learned is None:
        return sincos2d(grid, config.width, config.position.removeprefix("sincos2d_"))
    if grid == config.grid:
        return learned
    return resample_positions(
        learned,
        config.grid,
        grid,
        config.resample,
        config.resample_antialias,
        prefix=config.position_slots - config.num_patches,
        offset=config.resample_offset,
    )


def sequence_positions(
    config: ViTConfig, learned: jax.Array | None, patches: Patches
) -> tuple[jax.Array | None, jax.Array | None]:
    """Return the position of every patch of a batch of images with shapes of their own, and of the tokens before.

    A learned table is resized to each image's grid with antialiasing, bilinear or bicubic as the model says; padding
    gets the first patch's position.

    Args:
      config: the model.
      learned: the learned table `(slots, d)`, or None for fixed or no positions.
      patches: the images.

    Returns:
      `(b, n, d)` float32, or None; and the slots `(t, d)` of class and distillation token, or None without any.
    """
    if config.position == "none":
        return None, None
    if learned is None:
        return sincos2d_at(*patches.places, config.width, config.position.removeprefix("sincos2d_")), None
    slots = config.position_slots - config.num_patches
    weights = (
        runtime_weights(place, count, n_in, config.resample)
        for place, count, n_in in zip(patches.places, patches.grids, config.grid)
    )
    vertical, horizontal = weights
    table = learned[slots:].reshape(*config.grid, -1)
    positions = jnp.einsum(
        "bny,yxd,bnx->bnd", vertical, table, horizontal, precision=jax.lax.Precision.HIGHEST
    )
    return positions, learned[:slots] if slots else None


def with_prefix(
    patches: jax.Array,
    positions: jax.Array | None,
    tokens: jax.Array | None,
    registers: jax.Array | None,
) -> jax.Array:
    """Add positions to patch tokens and put class, distillation and register tokens before them.

    Args:
      patches: `(b, n, d)`.
      positions: `(n, d)`, or `(t + n, d)` when the tokens have slots, or None; `(b, n, d)` of images with shapes of
        their own.
      tokens: class and distillation token, `(t, d)`, and registers if they have slots; or None.
      registers: those without a position, `(r, d)`, or None.

    Returns:
      `(b, t + r + n, d)`.
    """
    b, n, d = patches.shape
    if positions is not None and positions.ndim == 3:
        patches = patches + positions.astype(patches.dtype)
    elif positions is not None:
        if tokens is not None and positions.shape[0] > n:
            tokens = tokens + positions[:-n]
        patches = patches + spread(positions[-n:], patches)
    prefix = [part for part in (tokens, registers) if part is not None]
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
    return jnp.take_along_axis(patches, kept_patches((b, n), rate, key)[..., None], axis=1)


def kept_patches(shape: tuple[int, int], rate: float, key: jax.Array) -> jax.Array:
    """Return which of the patches `(b, n)` stay, `(b, keep)` int32 in order; see `drop_patches`."""
    keep = max(1, int(shape[1] * (1 - rate)))
    chosen = jnp.argsort(jax.random.uniform(key, shape), axis=1)[:, :keep]
    return jnp.sort(chosen, axis=1)
