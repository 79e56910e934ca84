"""The residual network as a family. Needs no jax."""

from vit_jax.errors import choose
from vit_jax.models.family import LAYER_RULES, Family, Level, Names
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.resnet import arithmetic, names
from vit_jax.models.resnet.config import EXPANSION, STRIDE, ResNetConfig
from vit_jax.models.staged import stage_names

# What a call can return beside its output; stages and blocks are counted: `blocks/5`.
CAPTURES = ("stages", "blocks", "pre_logits")


def levels(config: ResNetConfig) -> tuple[Level, ...]:
    """Return the map of each stage."""
    found = []
    for stage, width in enumerate(config.widths):
        step = STRIDE * 2**stage
        found.append(
            Level(f"stages/{stage}", (step, step), width * EXPANSION[config.block], config.grid(stage))
        )
    return tuple(found)


def maps(config: ResNetConfig) -> list[Level]:
    """Return the map after each block."""
    own = levels(config)
    return [replace(own[stage], name=f"blocks/{block}") for block, (stage, *_) in enumerate(config.blocks())]


def layer_of(config: ResNetConfig, path: str, rule: str) -> int | range:
    """Return the layer of a parameter, see `Family`; libraries agree."""
    choose(rule, LAYER_RULES, "optimizer.layer_decay_rule")
    name, _, rest = path.partition("/")
    if name != "stages":
        return 0 if name == "stem" else sum(config.depths) + 1
    stage, block = (int(number) for number in rest.split("/")[:2])
    return sum(config.depths[:stage]) + block + 1


FAMILY = Family(
    name="resnet",
    config=ResNetConfig,
    module="vit_jax.models.resnet.model:ResNet",
    macs=arithmetic.macs,
    parameters=arithmetic.parameters,
    parts={"image": ""},
    names=Names(names.resolve, names.architectures, names.aliases, others=names.published),
    levels=levels,
    maps=maps,
    depth=lambda config: sum(config.depths),
    layer_of=layer_of,
    widest=lambda config: config.feature_width,
    any_size=lambda config: (STRIDE * 2 ** (len(config.depths) - 1),) * 2,
    headless=lambda config: replace(config, num_classes=0),
    captures=CAPTURES,
    traced=lambda config: (*stage_names(config), "pre_logits"),
    rules=((r"(^|/)(stem|shortcut)/kernel$", "fsdp"),),
    adaptation="vit_jax.models.resnet.adaptation:ADAPTATION",
    running=frozenset({"dtype", "frozen_statistics"}),
    idle=lambda config: frozenset() if config.num_classes else frozenset({"problem"}),
)
