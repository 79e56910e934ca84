"""What a Multiscale Vision Transformer is made of: configuration, sizes and blocks. Needs no jax.

Source: Li et al. 2021 (arXiv 2112.01526), Table 1 and section 4.1.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from vit_jax.errors import ConfigError, choose
from vit_jax.models.layers.encoder_config import EncoderConfig, check_at_least
from vit_jax.models.staged import StagedConfig, check_heads

STAGES = 4  # of every published model
Sides = tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """Equal blocks that follow each other.

    Attributes:
      first: number of the first block in its stage.
      depth: number of blocks.
      inputs, width, outputs: channels of what comes in, within attention, and of what comes out of the MLP.
      q_stride, kv_stride: places from one query, and from one key, to the next.
      grid: rows and columns of what comes in, of images of the model's own size.
    """

    first: int
    depth: int
    inputs: int
    width: int
    outputs: int
    q_stride: int
    kv_stride: int
    grid: Sides

    @property
    def tables(self) -> Sides:
        """Distances between queries and keys, by axis: the rows of the tables of relative positions."""
        return table_sizes(self.queries, self.keys)

    @property
    def queries(self) -> Sides:
        """Rows and columns of queries."""
        return pooled(self.grid, self.q_stride)

    @property
    def keys(self) -> Sides:
        """Rows and columns of keys."""
        return pooled(self.grid, self.kv_stride)


def pooled(grid: Sides, stride: int) -> Sides:
    """Return the sides of a grid of which every `stride`th place is taken."""
    return tuple(-(-side // stride) for side in grid)


def table_sizes(queries: Sides, keys: Sides) -> Sides:
    """Return by axis how many distances there are between queries and keys, in steps of the finer of the two."""
    return tuple(2 * max(q, k) - 1 for q, k in zip(queries, keys))


@dataclass(frozen=True)
class MvitConfig(StagedConfig):
    """Everything that defines an MViTv2; fields that are not here are those of `StagedConfig`.

    Width and number of heads double from one stage to the next, while the map halves.

    Attributes:
      width: `d` of the first stage.
      widen: where the width doubles: within the `attention` of a stage's first block, or in the `mlp` of the last block
        of the stage before.
      patch_kernel, patch_stride, patch_pad: of the overlapping convolution before the blocks, in height and in width.
      pool_kernel: places, in height and in width, of the depthwise convolutions that pool queries, keys and values.
      kv_stride: places from one key to the next in the first stage; where queries are pooled it falls as the map does,
        down to 1.
      class_token: put a learned class token first.
      pool: what the head reads: `cls` or the `mean` over all places.
    """

    depths: tuple[int, ...] = (1, 2, 5, 2)
    head_dim: int = 96
    width: int = 96
    widen: str = "attention"
    patch_kernel: int = 7
    patch_stride: int = 4
    patch_pad: int = 3
    pool_kernel: int = 3
    kv_stride: int = 4
    class_token: bool = False
    pool: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "width", "patch_kernel", "patch_stride", "pool_kernel", "kv_stride")
        check_at_least(self, 0, "patch_pad")
        check_heads(self, self.width)
        choose(self.widen, ("attention", "mlp"), "widen")
        choose(self.pool, ("cls", "mean"), "pool")
        if self.pool == "cls" and not self.class_token:
            raise ConfigError("pool is 'cls' but class_token is False; use pool 'mean', or a class token.")
        if self.pool_kernel % 2 == 0:
            raise ConfigError(f"pool_kernel is {self.pool_kernel}; it must be odd, to have a middle.")
        self.patches(self.image_size)

    def patches(self, size: Sides) -> Sides:
        """Return rows and columns of what the first block sees of images of a size.

        Raises:
          ConfigError: the convolution leaves nothing of such an image.
        """
        grid = tuple(
            (side + 2 * self.patch_pad - self.patch_kernel) // self.patch_stride + 1 for side in size
        )
        if min(grid) < 1:
            least = self.patch_kernel - 2 * self.patch_pad
            raise ConfigError(
                f"images of {size[0]}x{size[1]} pixels are too small, since the convolution leaves nothing of them; "
                f"give images of at least {least}x{least}."
            )
        return grid

    def stage_width(self, stage: int) -> int:
        """Return `d` of the maps that a stage makes, before the next one widens them."""
        return self.width * 2**stage

    @property
    def last_width(self) -> int:
        """Return `d` of the last stage's maps."""
        return self.stage_width(len(self.depths) - 1)

    def stages(self) -> tuple[tuple[Run, ...], ...]:
        """Return the blocks of each stage, as runs of equal ones."""
        return tuple(tuple(_runs(blocks)) for blocks in self._stages())

    def run(self, run: Run) -> EncoderConfig:
        """Return what the blocks of a run are made of."""
        return self.blocks(run.width, run.depth, drop_path_rate=self.drop_path_rate)

    def _stages(self) -> list[list[dict[str, Any]]]:
        grid, width, kv_stride = self.patches(self.image_size), self.width, self.kv_stride
        found = []
        for stage, depth in enumerate(self.depths):
            kv_stride = max(kv_stride // 2, 1) if stage else kv_stride
            blocks = []
            for index in range(depth):
                q_stride = 2 if stage and not index else 1
                own = self.stage_width(stage)
                last = index == depth - 1 and stage < len(self.depths) - 1 and self.widen == "mlp"
                outputs = 2 * own if last else own
                block = dict(inputs=width, width=own, outputs=outputs, q_stride=q_stride, kv_stride=kv_stride)
                blocks.append({**block, "grid": grid})
                grid, width = pooled(grid, q_stride), outputs
            found.append(blocks)
        return found

    @property
    def prefix_tokens(self) -> int:
        """Number of tokens before those of the map."""
        return int(self.class_token)

    @property
    def output_width(self) -> int:
        """Width of the output: classes, or features where there is no head."""
        return self.num_classes or self.last_width


def _runs(blocks: list[dict[str, Any]]) -> list[Run]:
    found, first = [], 0
    for block, equal in groupby(blocks):
        depth = len(list(equal))
        found.append(Run(first=first, depth=depth, **block))
        first += depth
    return found


# Of the 22k models, Large widens within attention too (timm's names, which say so).
SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(depths=(1, 2, 5, 2)),
    "small": dict(depths=(1, 2, 11, 2)),
    "base": dict(depths=(2, 3, 16, 3)),
    "large": dict(depths=(2, 6, 36, 4), width=144, head_dim=72, widen="mlp"),
    "small_cls": dict(depths=(1, 2, 11, 2), class_token=True, pool="cls"),
    "base_cls": dict(depths=(2, 3, 16, 3), class_token=True, pool="cls"),
    "large_cls": dict(depths=(2, 6, 36, 4), width=144, head_dim=72, class_token=True, pool="cls"),
    "huge_cls": dict(depths=(4, 8, 60, 8), width=192, head_dim=64, class_token=True, pool="cls"),
}
