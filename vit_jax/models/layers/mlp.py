"""The MLPs of transformer blocks."""

from functools import partial

import jax
from flax import nnx

from vit_jax.models.layers.activations import ACTIVATIONS
from vit_jax.models.layers.dense import Dense
from vit_jax.models.layers.dropout import dropout
from vit_jax.models.layers.encoder_config import EncoderConfig
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import norm_of


class Mlp(Module):
    """Two dense layers with an activation between them.

    Args:
      config: sizes and options.
      outputs: width of what comes out; None for that of what comes in.
      hidden: width between the layers; None for that of the configuration.
      rngs: source of the keys.
    """

    def __init__(
        self, config: EncoderConfig, outputs: int | None = None, hidden: int | None = None, *, rngs: nnx.Rngs
    ):
        self.config = config
        hidden = hidden or config.mlp_dim
        # vision_transformer and big_vision start the biases at N(0, 1e-6); others at zero.
        bias_std = 1e-6 if config.init == "jax" else 0.0
        made = partial(Dense, use_bias=config.branch_bias, scheme=config.init, bias_std=bias_std, rngs=rngs)
        self.fc1 = made((config.width,), (hidden,))
        biased = config.branch_bias and config.parallel != "one_bias"  # which is attention's
        self.norm = norm_of(config, hidden) if config.mlp_norm else None
        self.fc2 = made((hidden,), (outputs or config.width,), use_bias=biased)

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Return the MLP of `x` `(b, n, d)`; `key` is for dropout between the layers."""
        x = dropout(ACTIVATIONS[self.config.activation](self.fc1(x)), self.config.dropout_rate, key)
        return self.fc2(x if self.norm is None else self.norm(x))


class SwiGlu(Module):
    """Gated MLP: `down(silu(gate(x)) * up(x))` (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        d, m = config.width, config.mlp_dim
        made = partial(Dense, use_bias=config.branch_bias, scheme=config.init, rngs=rngs)
        self.gate_up = made((d,), (2, m), fan_out=m)
        self.norm = norm_of(config, m) if config.mlp_norm else None
        self.down = made((m,), (d,))

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Return the MLP of `x` `(b, n, d)`; `key` is for dropout before the last layer."""
        gate_up = self.gate_up(x)
        x = jax.nn.silu(gate_up[..., 0, :]) * gate_up[..., 1, :]
        x = dropout(x, self.config.dropout_rate, key)
        return self.down(x if self.norm is None else self.norm(x))


MLPS = {"mlp": Mlp, "swiglu": SwiGlu}
