"""Multiply-adds and parameters of a Vision Transformer. Needs no jax."""

from collections.abc import Iterator

from vit_jax.models.arithmetic import block_macs, blocks_parameters, dense_parameters, norm_parameters
from vit_jax.models.vit.config import ViTConfig, replace
from vit_jax.models.vit.resnet_config import ResNetConfig
from vit_jax.models.vit.tokens import block_tokens, merge_counts


def macs(config: ViTConfig, visible: float | None = 1.0) -> int:
    """Return the multiply-adds of one image; see `models.flops.forward_macs`."""
    if visible is None and config.patch_sizes:  # of training, in which each is as probable
        sizes = (replace(config, patch_size=size, patch_sizes=()) for size in config.patch_sizes)
        return sum(macs(sized, None) for sized in sizes) // len(config.patch_sizes)
    visible = 1 - config.patch_drop_rate if visible is None else visible
    d, m, (h, w) = config.width, config.mlp_dim, config.image_size
    channels, stem = config.in_channels, 0
    for c_in, channels, stride in config.stem_layers:
        h, w = -(-h // stride), -(-w // stride)
        stem += h * w * _window(config, stride) * c_in * channels
    if config.backbone:
        stem += sum(rows * i * o for rows, i, o in _convolutions(config.backbone, channels, (h, w)))
    patches = config.max_patches or config.num_patches  # padding is computed as patches are
    embedding = patches * patch_values(config) * d
    tokens = config.prefix_tokens + int(patches * visible)
    count = stem + embedding
    for attended, fed in block_tokens(config, tokens):
        count += block_macs(config, attended, fed)
        # The similarity of tokens at even places with those at odd ones.
        count += (attended // 2) * (attended - attended // 2) * config.head_dim if attended != fed else 0
    pooled = tokens - sum(merge_counts(config, tokens))
    if config.pool == "map":
        seen = pooled - config.prefix_tokens * (not config.pool_prefix)
        count += 2 * seen * d**2 + 2 * seen * d + 2 * d**2 + 2 * d * (config.pool_mlp_dim or m)
    rows = {"none": tokens, "patches": tokens - config.prefix_tokens}.get(config.pool, 1)
    heads = config.num_classes * (1 + config.two_heads)
    return count + rows * (d * config.representation_size + config.feature_width * heads)


def parameters(config: ViTConfig) -> int:
    """Return the number of parameters."""
    d, norm = config.width, norm_parameters(config, config.width)
    channels = (config.in_channels, *config.stem)
    biased = config.stem_kind == "early"
    count = sum(dense_parameters(_window(config, s) * i, o, biased) + 2 * o for i, o, s in config.stem_layers)
    if config.backbone:
        # Each convolution is followed by a group norm and has no bias.
        shapes = _convolutions(config.backbone, channels[-1], config.image_size)
        count += sum(i * o + 2 * o for _, i, o in shapes)
    count += dense_parameters(patch_values(config), d, config.patch_bias)
    count += d * (config.prefix_tokens + config.mask_token)
    count += d * config.position_slots * (config.position == "learned")
    count += norm * (config.pre_norm + config.patch_norm)
    count += blocks_parameters(config) - norm * (config.pool_norm == "none")
    if config.rope == "mixed":
        count += config.depth * d
    tables = {"none": 0, "shared": 1, "blocks": config.depth}[config.position_bias]
    rows, columns = config.grid
    count += tables * ((2 * rows - 1) * (2 * columns - 1) + 3) * config.heads
    if config.pool == "map":
        m = config.pool_mlp_dim or config.mlp_dim
        count += d + dense_parameters(d, 4 * d) + norm + dense_parameters(d, m) + dense_parameters(m, d)
    if config.representation_size:
        count += dense_parameters(d, config.representation_size)
    if config.num_classes:
        head = dense_parameters(config.feature_width, config.num_classes, config.head_bias)
        count += head * (1 + config.two_heads)
    return count


def _window(config: ViTConfig, stride: int) -> int:
    """Return how many places a convolution of the stem sees."""
    return 9 if config.stem_kind == "early" else stride**2


def patch_values(config: ViTConfig) -> int:
    """Return how many values a patch has."""
    channels = (config.in_channels, *config.stem)[-1]
    if config.backbone:
        channels = config.backbone.out_channels
    return config.patch_size[0] * config.patch_size[1] * channels


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
