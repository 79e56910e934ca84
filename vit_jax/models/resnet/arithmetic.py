"""Multiply-adds and parameters of a ResNet. Needs no jax."""

from math import prod

from vit_jax.models.arithmetic import dense_parameters
from vit_jax.models.resnet.config import Convolution, ResNetConfig


def macs(config: ResNetConfig, visible: float | None = 1.0) -> int:
    """Return the multiply-adds of one image; see `models.flops.forward_macs`."""
    height, width = config.image_size
    count = -(-height // 2) * -(-width // 2) * _weights(config.stem)
    before = config.grid(0)
    for stage, layers, shortcut in config.blocks():
        grid = config.grid(stage)
        strided = next((index for index, layer in enumerate(layers) if layer.stride > 1), 0)
        for index, layer in enumerate(layers):
            count += prod(before if index < strided else grid) * _weights(layer)
        count += 0 if shortcut is None else prod(grid) * _weights(shortcut)
        before = grid
    return count + config.feature_width * config.num_classes


def parameters(config: ResNetConfig) -> int:
    """Return the number of parameters; the statistics of batch norms are none."""
    count = dense_parameters(config.feature_width, config.num_classes) if config.num_classes else 0
    every = [config.stem]
    for _, layers, shortcut in config.blocks():
        every += layers if shortcut is None else [*layers, shortcut]
    return count + sum(_weights(layer) + 2 * layer.outputs for layer in every)


def _weights(layer: Convolution) -> int:
    return layer.size**2 * layer.inputs // layer.groups * layer.outputs
