"""Which layer each parameter of a Vision Transformer belongs to, for rates by layer and for freezing. Needs no jax.

`l` blocks make `l + 2` layers: 0 is everything before the blocks, block `i` is `i + 1`, and `l + 1` is what follows
(Bao et al. 2021, arXiv 2106.08254). Libraries agree on that, but for two parameters:

| | final norm | position bias shared by all blocks |
|---|---|---|
| `beit`: the code of BEiT, MAE and DINO | with the head | with the head |
| `timm` | with the last block, unless it follows the pooling | before the blocks |
"""

from vit_jax.errors import ConfigError, choose
from vit_jax.models.family import LAYER_RULES

BEFORE = (
    "stem",
    "backbone",
    "patch_embed",
    "class_token",
    "distillation_token",
    "mask_token",
    "register_tokens",
    "pos_embed",
    "norm_pre",
)
AFTER = ("pool", "pre_logits", "head", "head_distillation")


def layer_of(path: str, depth: int, rule: str, *, norm_after_pool: bool) -> int | range:
    """Return the layer of a parameter of an image encoder; of stacked blocks those of all, 1 to `depth`.

    Args:
      path: of the parameter, `patch_embed/kernel`.
      depth: number of blocks.
      rule: one of `LAYER_RULES`.
      norm_after_pool: whether the final norm follows the pooling.

    Raises:
      ConfigError: there is no such rule, or the encoder has no such parameter.
    """
    choose(rule, LAYER_RULES, "optimizer.layer_decay_rule")
    name = path.split("/")[0]
    if name == "blocks":
        return range(1, depth + 1)
    if name == "norm":
        return depth if rule == "timm" and not norm_after_pool else depth + 1
    if name == "position_bias":
        return 0 if rule == "timm" else depth + 1
    if name in BEFORE:
        return 0
    if name in AFTER:
        return depth + 1
    raise ConfigError(
        f"parameter {path!r} belongs to no known layer, so it cannot have a learning rate by layer; set "
        "optimizer.layer_decay=1 and no frozen_blocks, or name its place in models/vit/layer_numbers.py."
    )
