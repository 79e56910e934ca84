"""The Multiscale Vision Transformer as a family. Needs no jax."""

from vit_jax.errors import choose
from vit_jax.models.family import LAYER_RULES, Explanation, Family, Kernel, Level, Names
from vit_jax.models.layers.encoder_config import RUNNING, replace
from vit_jax.models.mvit import arithmetic, names
from vit_jax.models.mvit.config import MvitConfig, pooled
from vit_jax.models.staged import stage_names

# What a call can return beside its output; stages, blocks and attention are counted: `blocks/5`, `attention/-1`.
CAPTURES = ("stages", "blocks", "attention", "encoded", "pre_logits")


def levels(config: MvitConfig) -> tuple[Level, ...]:
    """Return the map of each stage."""
    found, grid = [], config.patches(config.image_size)
    for index, runs in enumerate(config.stages()):
        stride, grid = config.patch_stride * 2**index, pooled(grid, 2 if index else 1)
        found.append(Level(f"stages/{index}", (stride, stride), runs[-1].outputs, (grid[0], grid[1])))
    return tuple(found)


def maps(config: MvitConfig) -> list[Level]:
    """Return the map after each block."""
    runs = [(level, run) for level, stage in zip(levels(config), config.stages()) for run in stage]
    found = [replace(level, channels=run.outputs) for level, run in runs for _ in range(run.depth)]
    return [replace(level, name=f"blocks/{block}") for block, level in enumerate(found)]


def explanation(config: MvitConfig) -> Explanation:
    """Return the attention of the class token in the last block, or the mean over all queries where there is none."""
    last = config.stages()[-1][-1]
    stride = levels(config)[-1].stride[0] * last.kv_stride
    grid = last.keys[0], last.keys[1]
    keys = Level("attention/-1", (stride, stride), last.width, grid, config.prefix_tokens)
    return Explanation("attention/-1", keys, 0 if config.class_token else None)


def layer_of(config: MvitConfig, path: str, rule: str) -> int | range:
    """Return the layer of a parameter, see `Family`; libraries differ about the final norm."""
    choose(rule, LAYER_RULES, "optimizer.layer_decay_rule")
    name, *rest = path.split("/")
    depth = sum(config.depths)
    if name == "stages":  # stages/1/runs/0/blocks/...
        stage = int(rest[0])
        run = config.stages()[stage][int(rest[2])]
        first = sum(config.depths[:stage]) + run.first + 1
        return range(first, first + run.depth)
    if name in ("patch_embed", "class_token"):
        return 0
    return depth if name == "norm" and rule == "timm" else depth + 1


FAMILY = Family(
    name="mvit",
    config=MvitConfig,
    module="vit_jax.models.mvit.model:MViT",
    macs=arithmetic.macs,
    parameters=arithmetic.parameters,
    parts={"image": ""},
    names=Names(names.resolve, names.architectures, names.aliases, lambda: names.TAGS),
    levels=levels,
    maps=maps,
    depth=lambda config: sum(config.depths),
    layer_of=layer_of,
    widest=lambda config: int(config.last_width * config.mlp_ratio),
    headless=lambda config: replace(config, num_classes=0),
    captures=CAPTURES,
    traced=lambda config: (*stage_names(config), "encoded", "pre_logits"),
    explain=explanation,
    kernels={name: Kernel((name,)) for name in ("skip1", "skip2")},
    running=RUNNING,
    adaptation="vit_jax.models.mvit.adaptation:ADAPTATION",
    idle=lambda config: frozenset() if config.num_classes else frozenset({"problem"}),
)
