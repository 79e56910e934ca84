"""How windows lie on maps that they do not divide. Needs no jax.

A map smaller than a window, or not of whole windows, is where libraries part. In the first column is our word; `side`
is a map's side, `m` a window's:

| | library | side < m | not shifted | zeros for the rest |
|---|---|---|---|---|
| `clamp` | timm, the authors | the window becomes the map | along an axis where side <= m | after the shift |
| `clamp_once` | transformers, version 2 | so, by the height rounded down | along both where height <= m | before it |
| `pad` | torchvision | padded to a window | along an axis where side <= m | before it |
| `pad_together` | transformers, version 1 | refused | along both where one side <= m | before it |

The first two look at the model's own size alone; at another, a map that is smaller than the window is padded. Images
that patches do not divide are refused by the first, filled with zeros by transformers, and cut off by torchvision.
"""

from dataclasses import dataclass

from vit_jax.errors import ConfigError

FITS = ("clamp", "clamp_once", "pad", "pad_together")
Size = tuple[int, int]


@dataclass(frozen=True)
class Fit:
    """How the blocks of a stage cut maps.

    Attributes:
      window: height and width of the windows.
      shift: how far the windows of every second block are moved.
      table: height and width of the windows that positions were learned for: those at the model's own size.
      pad_first: whether a map is filled up before it is shifted.
    """

    window: Size
    shift: Size
    table: Size
    pad_first: bool

    @classmethod
    def of(cls, rule: str, window: Size, own: Size, grid: Size, stage: int) -> "Fit":
        """Return how windows fit.

        Args:
          rule: one of `FITS`.
          window: that was asked for.
          own, grid: rows and columns of patches at the model's own size, and of the images at hand.
          stage: counted from 0; each halves the map.

        Raises:
          ConfigError: the images are too small.
        """
        if min(grid) < 2**stage:
            raise ConfigError(
                f"images of {grid[0]}x{grid[1]} patches leave no map in stage {stage + 1}, which halves them {stage} "
                f"times; give images of at least {2**stage}x{2**stage} patches, or fewer stages."
            )
        sides = _map(grid, stage)
        if rule == "clamp":
            made = _map(own, stage)
            side = min(window[0], made[0]), min(window[1], made[1])
            return cls(side, _shift(side, made), side, False)
        if rule == "clamp_once":  # square, by the height, which is rounded down
            height = own[0] // 2**stage
            side = min(window[0], height)
            shift = window[0] // 2 if height > side else 0
            return cls((side, side), (shift, shift), (side, side), True)
        shift = _shift(window, sides)
        if rule == "pad_together":
            if min(sides) < min(window):
                raise ConfigError(
                    f"a map of {sides[0]}x{sides[1]} in stage {stage + 1} is smaller than the window, "
                    f"{window[0]}x{window[1]}, which transformers cannot do; give larger images, or set window_fit to "
                    "'clamp' or 'pad'."
                )
            shift = shift if all(shift) else (0, 0)
        return cls(window, shift, window, True)


def _map(grid: Size, stage: int) -> Size:
    return -(-grid[0] // 2**stage), -(-grid[1] // 2**stage)


def _shift(window: Size, sides: Size) -> Size:
    first, second = (size // 2 if side > size else 0 for size, side in zip(window, sides))
    return first, second
