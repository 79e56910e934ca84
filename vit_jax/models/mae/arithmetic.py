"""Multiply-adds and parameters of a masked autoencoder. Needs no jax."""

from vit_jax.models.arithmetic import blocks_macs, blocks_parameters, dense_parameters
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.vit import arithmetic as vit


def macs(config: MaeConfig, visible: float | None = 1.0) -> int:
    """Return the multiply-adds of one image; see `models.flops.forward_macs`."""
    encoder, decoder = config.encoder, config.decoder
    visible = 1.0 if visible is None else visible
    patches = decoder.num_patches
    tokens = encoder.prefix_tokens + patches
    count = vit.macs(encoder, visible) + patches * vit.patch_values(decoder) * decoder.width
    embedded = encoder.prefix_tokens + int(patches * visible)
    return count + embedded * encoder.width * decoder.width + blocks_macs(decoder, tokens)


def parameters(config: MaeConfig) -> int:
    """Return the number of parameters."""
    decoder = config.decoder
    d = decoder.width
    count = dense_parameters(config.encoder.width, d) + d + dense_parameters(d, vit.patch_values(decoder))
    count += d * decoder.position_slots * (decoder.position == "learned") + blocks_parameters(decoder)
    return vit.parameters(config.encoder) + count
