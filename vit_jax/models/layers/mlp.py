"""The MLPs of transformer blocks."""

import jax
from flax import nnx

from vit_jax.models.layers.activations import ACTIVATIONS
from vit_jax.models.layers.dense import Dense
from vit_jax.models.layers.dropout import dropout
from vit_jax.models.layers.encoder_config import EncoderConfig
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm


class Mlp(Module):
    """Two dense layers with an activation between them.

    Args:
      config: sizes and options.
      outputs: width of what comes out; None for that of what comes in.
      rngs: source of the keys.
    """

    def __init__(self, config: EncoderConfig, outputs: int | None = None, *, rngs: nnx.Rngs):
        self.config = config
        # vision_transformer and big_vision start the biases at N(0, 1e-6); others at zero.
        bias_std = 1e-6 if config.init == "jax" else 0.0
        width, hidden = (config.width,), (config.mlp_dim,)
        self.fc1 = Dense(width, hidden, scheme=config.init, bias_std=bias_std, rngs=rngs)
        self.norm = LayerNorm(config.mlp_dim, config.norm_epsilon) if config.mlp_norm else None
        width = (outputs or config.width,)
        self.fc2 = Dense(hidden, width, scheme=config.init, bias_std=bias_std, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Return the MLP of `x` `(b, n, d)`; `key` is for dropout between the layers."""
        x = dropout(ACTIVATIONS[self.config.activation](self.fc1(x)), self.config.dropout_rate, key)
        return self.fc2(x if self.norm is None else self.norm(x))


class SwiGlu(Module):
    """Gated MLP: `down(silu(gate(x)) * up(x))` (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        d, m = config.width, config.mlp_dim
        self.gate_up = Dense((d,), (2, m), scheme=config.init, fan_out=m, rngs=rngs)
        self.norm = LayerNorm(m, config.norm_epsilon) if config.mlp_norm else None
        self.down = Dense((m,), (d,), scheme=config.init, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Return the MLP of `x` `(b, n, d)`; `key` is for dropout before the last layer."""
        gate_up = self.gate_up(x)
        x = jax.nn.silu(gate_up[..., 0, :]) * gate_up[..., 1, :]
        x = dropout(x, self.config.dropout_rate, key)
        return self.down(x if self.norm is None else self.norm(x))


MLPS = {"mlp": Mlp, "swiglu": SwiGlu}
