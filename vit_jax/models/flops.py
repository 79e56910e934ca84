"""Arithmetic and parameters of a Vision Transformer, from its configuration alone. Needs no jax.

Counted are the multiply-adds (MACs) of matrix products and convolutions, attention's two products included;
norms, activations, softmax and additions are not, as in the published tables. One multiply-add is two FLOPs;
several papers print multiply-adds and call them FLOPs.
"""

import itertools

from vit_jax.models.vit_config import ViTConfig


def encoder_macs(tokens: int, width: int, depth: int, mlp_dim: int, mlp: str = "mlp") -> int:
    """Return the multiply-adds of a stack of transformer blocks on one sequence.

    Args:
      tokens: length `n` of the sequence.
      width, depth, mlp_dim: `d`, `l`, `m`.
      mlp: `mlp` (two dense layers) or `swiglu` (three).
    """
    projections = tokens * 4 * width**2
    attention = 2 * tokens**2 * width
    return depth * (projections + attention + tokens * _mlp_layers(mlp) * width * mlp_dim)


def forward_macs(config: ViTConfig, visible: float = 1.0) -> int:
    """Return the multiply-adds of one image through the model.

    Args:
      config: the model.
      visible: share of the patches that go through the blocks; all of them are embedded.
    """
    d, m, (h, w) = config.width, config.mlp_dim, config.image_size
    channels = (config.in_channels, *config.stem)
    stem = sum(h * w * 9 * c_in * c_out for c_in, c_out in itertools.pairwise(channels))
    embedding = h * w * channels[-1] * d
    tokens = config.prefix_tokens + int(config.num_patches * visible)
    macs = stem + embedding + encoder_macs(tokens, d, config.depth, m, config.mlp)
    if config.pool == "map":
        macs += 2 * tokens * d**2 + 2 * tokens * d + 2 * d**2 + 2 * d * m
    rows = tokens if config.pool == "none" else 1
    return macs + rows * (d * config.representation_size + _head_width(config) * config.num_classes)


def forward_flops(config: ViTConfig, visible: float = 1.0) -> int:
    """Return the floating-point operations of one image through the model; see `forward_macs`."""
    return 2 * forward_macs(config, visible)


def training_flops(config: ViTConfig, visible: float | None = None) -> int:
    """Return the floating-point operations of one image in training: three times the forward pass.

    The backward pass counts as two forward passes; what checkpointing computes again does not count.

    Args:
      config: the model.
      visible: share of the patches that go through the blocks; None means what `patch_drop_rate` leaves.
    """
    return 3 * forward_flops(config, 1 - config.patch_drop_rate if visible is None else visible)


def parameter_count(config: ViTConfig) -> int:
    """Return the number of parameters of the model."""
    d, m = config.width, config.mlp_dim
    channels = (config.in_channels, *config.stem)
    norm = 2 * d
    count = sum(_dense(9 * c_in, c_out) + 2 * c_out for c_in, c_out in itertools.pairwise(channels))
    count += _dense(config.patch_size[0] * config.patch_size[1] * channels[-1], d, config.patch_bias)
    count += d * config.prefix_tokens
    count += d * config.position_slots * (config.position == "learned")
    count += norm * config.pre_norm
    count += config.depth * _block_parameters(config)
    count += norm
    if config.pool == "map":
        count += d + _dense(d, 4 * d) + norm + _dense(d, m) + _dense(m, d)
    if config.representation_size:
        count += _dense(d, config.representation_size)
    if config.num_classes:
        count += _dense(_head_width(config), config.num_classes)
    return count


def _block_parameters(config: ViTConfig) -> int:
    d, m = config.width, config.mlp_dim
    attention = _dense(d, 3 * d, config.qkv_bias) + _dense(d, d) + 4 * config.head_dim * config.qk_norm
    mlp = _dense(d, (_mlp_layers(config.mlp) - 1) * m) + _dense(m, d)
    scales = 0 if config.layer_scale is None else 2 * d
    return attention + mlp + scales + 2 * 2 * d


def _mlp_layers(mlp: str) -> int:
    return 3 if mlp == "swiglu" else 2


def _head_width(config: ViTConfig) -> int:
    return config.representation_size or config.width


def _dense(inputs: int, outputs: int, bias: bool = True) -> int:
    return (inputs + bias) * outputs
