"""Arithmetic and parameters of a model, from its configuration alone: asked of its family. Needs no jax.

Counted are the multiply-adds (MACs) of matrix products and convolutions, attention's two products included;
norms, activations, softmax and additions are not, as in the published tables. One multiply-add is two FLOPs;
several papers print multiply-adds and call them FLOPs.
"""

from typing import Any

from vit_jax.models.families import family_of


def forward_macs(config: Any, visible: float = 1.0) -> int:
    """Return the multiply-adds of one image through the model; of an image and a text through both towers.

    Args:
      config: the model.
      visible: share of the patches that go through the blocks of the image encoder; all of them are embedded.
    """
    return family_of(config).macs(config, visible)


def forward_flops(config: Any, visible: float = 1.0) -> int:
    """Return the floating-point operations of one image through the model; see `forward_macs`."""
    return 2 * forward_macs(config, visible)


def training_flops(config: Any, visible: float | None = None) -> int:
    """Return the floating-point operations of one image in training: three times the forward pass.

    The backward pass counts as two forward passes; what checkpointing computes again does not count.

    Args:
      config: the model.
      visible: share of the patches that go through the blocks; None means what dropping patches leaves.
    """
    return 6 * family_of(config).macs(config, visible)


def parameter_count(config: Any) -> int:
    """Return the number of parameters of the model."""
    return family_of(config).parameters(config)
