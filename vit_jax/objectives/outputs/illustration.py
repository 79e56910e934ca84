"""Pictures of the predictions of any task."""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import jax
import numpy as np

from vit_jax.objectives.images import on_host
from vit_jax.objectives.outputs.base import Output
from vit_jax.objectives.protocol import Example, Illustration

SIDE = 224  # pixels, see `Illustration.side`: what is drawn into an image wants more of them than the image alone
AT_ONCE = 16  # images that are computed together: of many, maps would fill the memory


def illustrated(
    predict: Callable[[Any], Mapping[str, Any]],
    output: Output,
    images: Any,
    pictures: Sequence[np.ndarray],
    records: Sequence[str],
) -> Illustration:
    """Return images with their predictions in words, and drawn where the output draws.

    Args:
      predict: gives what the output takes, arrays with leading `b`, of uint8 images `(b, h, w, c)`.
      output: says and draws it.
      images: uint8 `(n, h, w, c)`, or `Patches` of such, see `objectives.images`.
      pictures: uint8 `(h, w, c)` each, what people see of them.
      records: where each comes from.
    """
    examples: list[Example] = []
    for start in range(0, len(pictures), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        found = on_host(predict(jax.tree.map(itemgetter(rows), images)))
        for index, image in enumerate(pictures[rows]):
            row = {name: values[index] for name, values in found.items()}
            said = output.predicted(records[start + index], row)
            picture = None if said.error else output.draw(image, row)
            shown = [image] if picture is None else [image, picture]
            examples.append(Example(said.error or output.text(said.record), shown, said.image))
    drawn = any(len(example.images) > 1 for example in examples)
    columns = ("image", "prediction") if drawn else ("image",)
    return Illustration("Predictions", columns, examples, *([SIDE] if drawn else []))
