"""Multiply-adds and parameters of what every family is built of. Needs no jax."""

from vit_jax.models.layers.encoder_config import EncoderConfig


def encoder_macs(tokens: int, width: int, depth: int, mlp_dim: int, mlp: str = "mlp") -> int:
    """Return the multiply-adds of a stack of transformer blocks on one sequence.

    Args:
      tokens: length `n` of the sequence.
      width, depth, mlp_dim: `d`, `l`, `m`.
      mlp: `mlp` (two dense layers) or `swiglu` (three).
    """
    return depth * _macs(tokens, tokens, width, mlp_dim, mlp)


def blocks_macs(config: EncoderConfig, tokens: int) -> int:
    """Return the multiply-adds of the blocks of a model on one sequence."""
    return config.depth * block_macs(config, tokens, tokens)


def block_macs(config: EncoderConfig, attended: int, fed: int) -> int:
    """Return the multiply-adds of one block of a model, whose attention and MLP see so many tokens."""
    # Of two attentions that share the heads' channels, each weighs all of the values.
    second = attended**2 * config.width * config.differential
    return _macs(attended, fed, config.width, config.mlp_dim, config.mlp) + second


def blocks_parameters(config: EncoderConfig) -> int:
    """Return the parameters of the blocks and of the norm after them."""
    d, m, biased = config.width, config.mlp_dim, config.branch_bias
    biases = 0 if not config.qkv_bias else 3 * d if config.k_bias else 2 * d
    attention = 3 * d**2 + biases + dense_parameters(d, d, biased)
    attention += 2 * norm_parameters(config, config.head_dim) * config.qk_norm
    attention += norm_parameters(config, d) * config.attention_norm
    mlp = dense_parameters(d, (_mlp_layers(config.mlp) - 1) * m, biased) + dense_parameters(m, d, biased)
    mlp += norm_parameters(config, m) * config.mlp_norm
    parallel = config.parallel != "none"
    mlp -= d * (config.parallel == "one_bias" and biased)
    attention += 3 * config.head_dim * config.differential
    scales = 0 if config.layer_scale is None else d * (1 + (config.mlp_scale and not parallel))
    norm = norm_parameters(config, d)
    return config.depth * (attention + mlp + scales + (1 if parallel else 2) * norm) + norm


def norm_parameters(config: EncoderConfig, width: int) -> int:
    """Return the parameters of a norm of a model's kind."""
    return width if config.norm == "rms" else 2 * width


def dense_parameters(inputs: int, outputs: int, bias: bool = True) -> int:
    """Return the parameters of a dense layer, or of a convolution with as many inputs for each output."""
    return (inputs + bias) * outputs


def _macs(attended: int, fed: int, width: int, mlp_dim: int, mlp: str) -> int:
    projections = attended * 4 * width**2
    attention = 2 * attended**2 * width
    return projections + attention + fed * _mlp_layers(mlp) * width * mlp_dim


def _mlp_layers(mlp: str) -> int:
    return 3 if mlp == "swiglu" else 2
