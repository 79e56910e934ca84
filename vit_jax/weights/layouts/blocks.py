"""Names of transformer blocks that several libraries' layouts have in common."""

from vit_jax.models.layers.encoder_config import EncoderConfig
from vit_jax.weights.rules import CONV, FLAT, MATRIX, Rule, affine, batch_norm, matrix, norm, rule

TO_HEADS = MATRIX  # (d, 3, h, k) is torch's (3 d, d) with rows in the order q, k, v and heads first
FROM_HEADS = matrix(inputs=2)


def split_attention(
    config: EncoderConfig, ours: str, theirs: str, names: str = "query key value"
) -> list[Rule]:
    """Return the rules of queries, keys and values in weights of their own: `THEIRS.query.weight` and so on.

    Args:
      config: the blocks.
      ours: path of the projection, for example `blocks/attn/qkv`.
      theirs: what the names begin with.
      names: of the three, in this order.
    """
    q, k, v = (f"{theirs}.{name}" for name in names.split())
    rules = [rule(f"{ours}/kernel", f"{q}.weight", f"{k}.weight", f"{v}.weight", form=MATRIX, axis=1)]
    if config.qkv_bias:
        biases = (q, k, v) if config.k_bias else (q, v)
        rules.append(rule(f"{ours}/bias", *(f"{name}.bias" for name in biases), form=FLAT))
    return rules


def mlp(config: EncoderConfig, ours: str, fc1: str, fc2: str) -> list[Rule]:
    """Return the rules of an MLP; of a gated one, `fc1` holds gate and value in this order."""
    first, second = ("gate_up", "down") if config.mlp == "swiglu" else ("fc1", "fc2")
    biased = config.branch_bias
    return affine(f"{ours}/{first}", fc1, bias=biased) + affine(f"{ours}/{second}", fc2, bias=biased)


def split_mlp(ours: str, gate: str, up: str, down: str, bias: bool = True) -> list[Rule]:
    """Return the rules of a gated MLP with gate and value in weights of their own."""
    return [
        rule(f"{ours}/gate_up/kernel", f"{gate}.weight", f"{up}.weight", form=MATRIX, axis=1),
        *[rule(f"{ours}/gate_up/bias", f"{gate}.bias", f"{up}.bias")] * bias,
        *affine(f"{ours}/down", down, bias=bias),
    ]


def norms(ours: str, theirs: dict[str, str], bias: bool = True) -> list[Rule]:
    """Return the rules of several norms: our name under `ours` -> theirs."""
    return [item for name, other in theirs.items() for item in norm(f"{ours}/{name}", other, bias)]


def conv_and_norm(ours: str, theirs: str) -> list[Rule]:
    """Return the rules of OpenMMLab's convolution with its batch norm, `THEIRS.conv` and `THEIRS.bn`."""
    kernel = rule(f"{ours}/kernel", f"{theirs}.conv.weight", form=CONV)
    return [kernel, *batch_norm(f"{ours}/norm", f"{theirs}.bn")]
