"""Arithmetic and parameters of a Vision Transformer, from its configuration alone. Needs no jax.

Counted are the multiply-adds (MACs) of matrix products and convolutions, attention's two products included;
norms, activations, softmax and additions are not, as in the published tables. One multiply-add is two FLOPs;
several papers print multiply-adds and call them FLOPs.
"""

import itertools
from collections.abc import Iterator

from vit_jax.models.encoder_config import EncoderConfig
from vit_jax.models.resnet_config import ResNetConfig
from vit_jax.models.text_config import ImageTextConfig, TextConfig
from vit_jax.models.vit_config import MaeConfig, ViTConfig

ModelConfig = ViTConfig | MaeConfig | TextConfig | ImageTextConfig


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


def forward_macs(config: ModelConfig, visible: float = 1.0) -> int:
    """Return the multiply-adds of one image through the model; of an image and a text through both towers.

    Args:
      config: the model.
      visible: share of the patches that go through the blocks of the image encoder; all of them are embedded.
    """
    if isinstance(config, ImageTextConfig):
        return forward_macs(config.image, visible) + forward_macs(config.text)
    if isinstance(config, MaeConfig):
        decoder = config.decoder
        patches = decoder.num_patches
        tokens = config.encoder.prefix_tokens + patches
        macs = forward_macs(config.encoder, visible) + patches * _patch_values(decoder) * decoder.width
        embedded = config.encoder.prefix_tokens + int(patches * visible)
        return macs + embedded * config.encoder.width * decoder.width + _blocks_macs(decoder, tokens)
    if isinstance(config, TextConfig):
        return _blocks_macs(config, config.context_length) + config.width * config.num_classes
    return _image_macs(config, visible)


def _image_macs(config: ViTConfig, visible: float) -> int:
    d, m, (h, w) = config.width, config.mlp_dim, config.image_size
    channels = (config.in_channels, *config.stem)
    stem = sum(h * w * 9 * c_in * c_out for c_in, c_out in itertools.pairwise(channels))
    if config.backbone:
        stem += sum(rows * i * o for rows, i, o in _convolutions(config.backbone, channels[-1], (h, w)))
    embedding = config.num_patches * _patch_values(config) * d
    tokens = config.prefix_tokens + int(config.num_patches * visible)
    macs = stem + embedding + _blocks_macs(config, tokens)
    if config.pool == "map":
        macs += 2 * tokens * d**2 + 2 * tokens * d + 2 * d**2 + 2 * d * m
    rows = {"none": tokens, "patches": tokens - config.prefix_tokens}.get(config.pool, 1)
    heads = config.num_classes * (1 + config.distillation_token)
    return macs + rows * (d * config.representation_size + config.feature_width * heads)


def _blocks_macs(config: EncoderConfig, tokens: int) -> int:
    return encoder_macs(tokens, config.width, config.depth, config.mlp_dim, config.mlp)


def forward_flops(config: ModelConfig, visible: float = 1.0) -> int:
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


def parameter_count(config: ModelConfig) -> int:
    """Return the number of parameters of the model."""
    if isinstance(config, ImageTextConfig):
        return parameter_count(config.image) + parameter_count(config.text) + 1 + config.logit_bias
    if isinstance(config, MaeConfig):
        return parameter_count(config.encoder) + _mae_decoder_parameters(config)
    if isinstance(config, TextConfig):
        count = (config.vocab_size + config.context_length) * config.width
        head = _dense(config.width, config.num_classes, config.head_bias) if config.num_classes else 0
        return count + _encoder_parameters(config) + head
    return _image_parameters(config)


def _image_parameters(config: ViTConfig) -> int:
    d, m = config.width, config.mlp_dim
    channels = (config.in_channels, *config.stem)
    count = sum(_dense(9 * i, o) + 2 * o for i, o in itertools.pairwise(channels))
    if config.backbone:
        # Each convolution is followed by a group norm and has no bias.
        shapes = _convolutions(config.backbone, channels[-1], config.image_size)
        count += sum(i * o + 2 * o for _, i, o in shapes)
    count += _dense(_patch_values(config), d, config.patch_bias)
    count += d * (config.prefix_tokens + config.mask_token)
    count += d * config.position_slots * (config.position == "learned")
    count += 2 * d * config.pre_norm
    count += _encoder_parameters(config) - 2 * d * (config.pool_norm == "none")
    tables = {"none": 0, "shared": 1, "blocks": config.depth}[config.position_bias]
    rows, columns = config.grid
    count += tables * ((2 * rows - 1) * (2 * columns - 1) + 3) * config.heads
    if config.pool == "map":
        count += d + _dense(d, 4 * d) + 2 * d + _dense(d, m) + _dense(m, d)
    if config.representation_size:
        count += _dense(d, config.representation_size)
    if config.num_classes:
        head = _dense(config.feature_width, config.num_classes, config.head_bias)
        count += head * (1 + config.distillation_token)
    return count


def _mae_decoder_parameters(config: MaeConfig) -> int:
    decoder = config.decoder
    d = decoder.width
    count = _dense(config.encoder.width, d) + d + _dense(d, _patch_values(decoder))
    return count + d * decoder.position_slots * (decoder.position == "learned") + _encoder_parameters(decoder)


def _encoder_parameters(config: EncoderConfig) -> int:
    """Return the parameters of the blocks and of the norm after them."""
    d, m = config.width, config.mlp_dim
    biases = 0 if not config.qkv_bias else 3 * d if config.k_bias else 2 * d
    attention = 3 * d**2 + biases + _dense(d, d)
    attention += 4 * config.head_dim * config.qk_norm + 2 * d * config.attention_norm
    mlp = _dense(d, (_mlp_layers(config.mlp) - 1) * m) + _dense(m, d) + 2 * m * config.mlp_norm
    scales = 0 if config.layer_scale is None else 2 * d
    return config.depth * (attention + mlp + scales + 2 * 2 * d) + 2 * d


def _convolutions(
    config: ResNetConfig, channels: int, size: tuple[int, int]
) -> Iterator[tuple[int, int, int]]:
    """Yield output positions, inputs of an output, and outputs of each convolution."""
    height, width = (-(-side // 2) for side in size)
    yield height * width, 49 * channels, config.stem_channels
    height, width = (-(-side // 2) for side in (height, width))  # max pooling
    before = config.stem_channels
    for stage, (depth, after) in enumerate(zip(config.depths, config.channels)):
        inner = after // 4
        for unit in range(depth):
            yield height * width, before, inner
            if stage and not unit:
                height, width = (-(-side // 2) for side in (height, width))
            if not unit and (stage or before != after):
                yield height * width, before, after
            yield height * width, 9 * inner, inner
            yield height * width, inner, after
            before = after


def _patch_values(config: ViTConfig) -> int:
    """Return how many values a patch has."""
    channels = (config.in_channels, *config.stem)[-1]
    if config.backbone:
        channels = config.backbone.out_channels
    return config.patch_size[0] * config.patch_size[1] * channels


def _mlp_layers(mlp: str) -> int:
    return 3 if mlp == "swiglu" else 2


def _dense(inputs: int, outputs: int, bias: bool = True) -> int:
    return (inputs + bias) * outputs
