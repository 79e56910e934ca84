"""The Convolutional vision Transformer as a family. Needs no jax."""

from math import prod

from vit_jax.errors import choose
from vit_jax.models.cvt import arithmetic, names
from vit_jax.models.cvt.config import CvtConfig
from vit_jax.models.family import LAYER_RULES, Explanation, Family, Kernel, Level, Names
from vit_jax.models.layers.encoder_config import RUNNING, replace
from vit_jax.models.staged import stage_names

# What a call can return beside its output; stages, blocks and attention are counted: `blocks/5`, `attention/-1`.
CAPTURES = ("stages", "blocks", "attention", "pre_logits")


def levels(config: CvtConfig) -> tuple[Level, ...]:
    """Return the map of each stage."""
    found = []
    for index, grid in enumerate(config.grids(config.image_size)):
        stride = prod(config.strides[: index + 1])
        found.append(Level(f"stages/{index}", (stride, stride), config.widths[index], grid))
    return tuple(found)


def maps(config: CvtConfig) -> list[Level]:
    """Return the map after each block."""
    found = [level for level, depth in zip(levels(config), config.depths) for _ in range(depth)]
    return [replace(level, name=f"blocks/{block}") for block, level in enumerate(found)]


def explanation(config: CvtConfig) -> Explanation:
    """Return the class token's attention in the last block, to keys that are fewer than the places of the map."""
    last = levels(config)[-1]
    stride = last.stride[0] * config.kv_stride
    keys = Level("attention/-1", (stride, stride), last.channels, config.keys(last.grid), prefix=1)
    return Explanation("attention/-1", keys, 0)


def layer_of(config: CvtConfig, path: str, rule: str) -> int | range:
    """Return the layer of a parameter, see `Family`; libraries differ about the final norm."""
    choose(rule, LAYER_RULES, "optimizer.layer_decay_rule")
    name, _, rest = path.partition("/")
    depth = sum(config.depths)
    if name != "stages":
        return depth if name == "norm" and rule == "timm" else depth + 1
    index, _, inner = rest.partition("/")
    before = sum(config.depths[: int(index)])
    return (
        range(before + 1, before + config.depths[int(index)] + 1) if inner.startswith("blocks/") else before
    )


FAMILY = Family(
    name="cvt",
    config=CvtConfig,
    module="vit_jax.models.cvt.model:CvT",
    macs=arithmetic.macs,
    parameters=arithmetic.parameters,
    parts={"image": ""},
    names=Names(names.resolve, names.architectures, names.aliases, others=names.published),
    levels=levels,
    maps=maps,
    depth=lambda config: sum(config.depths),
    layer_of=layer_of,
    widest=lambda config: int(max(config.widths) * config.mlp_ratio),
    any_size=lambda config: (prod(config.strides), prod(config.strides)),
    headless=lambda config: replace(config, num_classes=0),
    captures=CAPTURES,
    traced=lambda config: (*stage_names(config), "pre_logits"),
    explain=explanation,
    rules=((r"(^|/)blocks/attn/(query|key|value)/dense/(kernel|bias)$", "stacked tensor(-2) fsdp"),),
    kernels={f"attn/{name}/dense": Kernel((f"attn/{name}",)) for name in ("query", "key", "value")},
    adaptation="vit_jax.models.cvt.adaptation:ADAPTATION",
    running=RUNNING | {"frozen_statistics"},
    idle=lambda config: frozenset() if config.num_classes else frozenset({"problem"}),
)
