"""Dense prediction transformers as a family. Needs no jax."""

from math import prod

from vit_jax.models.arithmetic import dense_parameters
from vit_jax.models.families import family_of
from vit_jax.models.family import Family
from vit_jax.models.heads import on_backbone
from vit_jax.models.heads.dpt.config import MAPS, DptConfig

# Places, side of the kernel, inputs, outputs, and how many numbers an output has beside its weights.
_Layer = tuple[int, int, int, int, int]


def _fused(config: DptConfig) -> list[tuple[int, int]]:
    """Return rows and columns of the maps in which fusions end, the coarsest first."""
    pyramid = config.pyramid
    found, size = [], pyramid[-1]
    for index in range(MAPS):
        last = index == MAPS - 1
        size = (2 * size[0], 2 * size[1]) if config.fuse_to == "double" or last else pyramid[MAPS - 2 - index]
        found.append(size)
    return found


def _layers(config: DptConfig) -> list[_Layer]:
    """Return all convolutions and dense layers but those of the auxiliary head."""
    c, found = config.channels, []
    for level, width, factor, size in zip(config.levels, config.widths, config.factors, config.pyramid):
        places, d = prod(level.grid), level.channels
        if config.readout == "project":
            found.append((places, 1, 2 * d, d, 1))
        found.append((places, 1, d, width, 1))
        if factor > 1:  # each place of the result sees one
            found.append((places, int(factor), width, width, 1))
        elif factor < 1:
            found.append((prod(size), 3, width, width, 1))
        found.append((prod(size), 3, width, c, 0))
    before = config.pyramid[-1]
    for index, size in enumerate(_fused(config)):
        found += [(prod(before), 3, c, c, 1)] * (4 if index else 2)
        found.append((prod(size), 1, c, c, 1))
        before = size
    if config.output == "classes":
        return [*found, (prod(before), 3, c, c, 2), (prod(before), 1, c, config.num_classes, 1)]
    size = tuple(config.encoder.image_size) if config.fuse_to == "next" else (2 * before[0], 2 * before[1])
    head = config.head_width
    return [
        *found,
        (prod(before), 3, c, c // 2, 1),
        (prod(size), 3, c // 2, head, 1),
        (prod(size), 1, head, 1, 1),
    ]


def _macs(config: DptConfig, visible: float | None = 1.0) -> int:
    count = family_of(config.encoder).macs(config.encoder, visible)
    return count + sum(places * side**2 * i * o for places, side, i, o, _ in _layers(config))


def _parameters(config: DptConfig) -> int:
    """Return the parameters; the statistics of batch norms are none."""
    c = config.channels
    count = family_of(config.encoder).parameters(config.encoder)
    count += sum(side**2 * i * o + extra * o for _, side, i, o, extra in _layers(config))
    return count + (9 * c * c + 2 * c + dense_parameters(c, config.num_classes)) * config.auxiliary


FAMILY = Family(
    name="dpt",
    config=DptConfig,
    module="vit_jax.models.heads.dpt.model:Dpt",
    macs=_macs,
    parameters=_parameters,
    **on_backbone.COMMON,
)
