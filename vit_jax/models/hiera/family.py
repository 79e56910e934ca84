"""Hiera as a family. Needs no jax."""

from vit_jax.errors import ConfigError, choose
from vit_jax.models.family import LAYER_RULES, Explanation, Family, Kernel, Level, Names
from vit_jax.models.hiera import arithmetic, names
from vit_jax.models.hiera.config import HieraConfig
from vit_jax.models.layers.encoder_config import RUNNING, replace

# What a call can return beside its output; `stages`, `blocks` and `attention` take a number: `attention/-1`.
CAPTURES = ("embedded", "stages", "blocks", "attention", "encoded", "pooled", "pre_logits")


def levels(config: HieraConfig) -> tuple[Level, ...]:
    """Return the map after each stage; of stages that do not pool, the last."""
    found = {level.stride: level for level in _stages(config)}
    return tuple(found.values())


def maps(config: HieraConfig) -> list[Level]:
    """Return the map of patches, those after each stage and each block, and the last."""
    stages = _stages(config)
    side = config.patch_stride
    embedded = Level("embedded", (side, side), config.width, config.grid)
    of_blocks = [level for level, depth in zip(stages, config.depths) for _ in range(depth)]
    blocks = [replace(level, name=f"blocks/{block}") for block, level in enumerate(of_blocks)]
    return [embedded, *stages, *blocks, replace(stages[-1], name="encoded")]


def _stages(config: HieraConfig) -> list[Level]:
    found = []
    for number, stage in enumerate(config.stages):
        side = config.patch_stride * 2**stage.pools
        grid = config.image_size[0] // side, config.image_size[1] // side
        found.append(Level(f"stages/{number}", (side, side), stage.blocks.width, grid))
    return found


def explanation(config: HieraConfig) -> Explanation | None:
    """Return the mean over all tokens of the last block's attention; None where it stays within mask units."""
    last = config.stages[-1]
    windowed = last.windowed if last.rest else last.entry_windowed
    if windowed or (last.pooling and not last.rest):  # it sees what was there before pooling
        return None
    return Explanation("attention/-1", levels(config)[-1], None)


def layer_of(config: HieraConfig, path: str, rule: str) -> int | range:
    """Return the layer of a parameter; the norm after the last block counts with the head, as it follows the mean."""
    choose(rule, LAYER_RULES, "optimizer.layer_decay_rule")
    first, *rest = path.split("/")
    if first == "stages":
        stage = config.stages[int(rest[0])]
        start = stage.start + 1
        if rest[1] == "entry":
            return range(start, start + 1)
        return range(start + stage.enters, start + stage.blocks.depth)
    layers = dict.fromkeys(("patch_embed", "pos_embed", "pos_embed_window"), 0)
    layers |= dict.fromkeys(("norm", "level_norms", "head"), sum(config.depths) + 1)
    if first not in layers:
        raise ConfigError(
            f"parameter {path!r} is of no known layer of a Hiera; set optimizer.layer_decay=1 and no frozen_blocks."
        )
    return layers[first]


def _idle(config: HieraConfig) -> frozenset[str]:
    unused = {"position_grid", "resample", "resample_antialias"} if config.position == "learned" else set()
    return frozenset(unused if config.num_classes else {*unused, "problem"})


FAMILY = Family(
    name="hiera",
    config=HieraConfig,
    module="vit_jax.models.hiera.model:Hiera",
    macs=arithmetic.macs,
    parameters=arithmetic.parameters,
    parts={"image": ""},
    names=Names(names.resolve, names.architectures, names.aliases, names.tags, names.others),
    levels=levels,
    maps=maps,
    depth=lambda config: sum(config.depths),
    layer_of=layer_of,
    widest=lambda config: config.stages[-1].blocks.mlp_dim,
    any_size=lambda config: config.stride if config.dynamic_image_size else None,
    headless=lambda config: replace(config, num_classes=0),
    captures=CAPTURES,
    traced=("embedded", "encoded", "pooled", "pre_logits"),
    explain=explanation,
    rules=((r"(^|/)pos_embed_window$", "replicate"),),
    kernels={"proj": Kernel(("proj",))},
    autoencoder="vit_jax.models.hiera.mae_config:AUTOENCODER",
    adaptation="vit_jax.models.hiera.adaptation:ADAPTATION",
    running=RUNNING | {"dynamic_image_size"},
    idle=_idle,
)
