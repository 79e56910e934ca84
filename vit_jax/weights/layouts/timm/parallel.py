"""Names of timm's blocks with attention and MLP side by side, and of differential attention."""

from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.layouts.blocks import FROM_HEADS, TO_HEADS, norms
from vit_jax.weights.rules import FLAT, MATRIX, Joined, Rule, affine, norm, rule

_INPUTS = ("blocks/mlp/fc1", "blocks/attn/qkv")
_BLOCK = "blocks.{l}"


def rules(config: ViTConfig) -> list[Rule]:
    """Return the rules of such blocks: what goes in is one array, and with one bias what comes out too."""
    bias, theirs = tuple(f"{ours}/bias" for ours in _INPUTS), f"{_BLOCK}.in_proj"
    kernels = tuple(f"{ours}/kernel" for ours in _INPUTS)
    found: list[Rule] = [Joined(kernels, (f"{theirs}.weight",), forms=(MATRIX, TO_HEADS))]
    if config.qkv_bias:
        found.append(Joined(bias, (f"{theirs}.bias",), forms=(FLAT, FLAT)))
    else:
        found.append(rule(bias[0], f"{_BLOCK}.mlp_bias"))
    if config.parallel == "one_bias":
        kernels = ("blocks/attn/out/kernel", "blocks/mlp/fc2/kernel")
        found.append(Joined(kernels, (f"{_BLOCK}.out_proj.weight",), axis=1, forms=(FROM_HEADS, MATRIX)))
        found.append(rule("blocks/attn/out/bias", f"{_BLOCK}.out_proj.bias", form=FLAT))
    else:
        found += affine("blocks/attn/out", f"{_BLOCK}.attn_out_proj", FROM_HEADS)
        found += affine("blocks/mlp/fc2", f"{_BLOCK}.mlp_out_proj")
    if config.qk_norm:
        found += norms("blocks/attn", {"q_norm": f"{_BLOCK}.q_norm", "k_norm": f"{_BLOCK}.k_norm"})
    if config.differential:
        found += difference(_BLOCK)
    if config.layer_scale is not None:
        found.append(rule("blocks/scale1/gamma", f"{_BLOCK}.ls.gamma"))
    return found + norm("blocks/norm1", f"{_BLOCK}.in_norm", config.norm == "layer")


def difference(theirs: str) -> list[Rule]:
    """Return the rules of what differential attention has beside two attentions; `theirs` is what names begin with."""
    vectors = (f"{theirs}.lambda_{name}" for name in ("q1", "k1", "q2", "k2"))
    return [
        rule("blocks/attn/lambdas", *vectors),
        rule("blocks/attn/sub_norm/scale", f"{theirs}.sub_norm.weight"),
    ]
