"""Pictures of what an encoder makes of images, for objectives that predict nothing which could be shown."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import jax
import numpy as np

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of
from vit_jax.models.registry import model_functions
from vit_jax.objectives.encoder import own_state
from vit_jax.objectives.images import inputs, on_host, pictures_of, raw_images
from vit_jax.objectives.outputs.components import colours, enlarged
from vit_jax.objectives.outputs.illustration import AT_ONCE
from vit_jax.objectives.pictures import attention_overlay
from vit_jax.objectives.protocol import Example, Illustration


def seen(
    model: Any,
    params: Mapping[str, Any],
    buffers: Mapping[str, Any],
    batch: Mapping[str, Any],
    records: Sequence[str],
) -> Illustration:
    """Return images, where the last block looks, and the principal components of their patches together.

    A model without attention has no second picture. There is no third one of images that keep their own shape, nor of
    an encoder whose features are the same everywhere, of which the title says so.

    Args:
      model: the encoder's configuration.
      params, buffers: its parameters and state; what is beside them is left out.
      batch: examples as evaluation reads them, whole on every host.
      records: where each comes from.
    """
    family = family_of(model)
    encoder, explanation = family.headless(model), family.explain(model)
    functions = model_functions(encoder)
    state = own_state(functions, params, buffers)
    wanted = () if explanation is None else (explanation.capture,)
    levels = () if "grid" in batch else family.levels(encoder)
    level = levels[-1].name if levels else None

    @jax.jit
    def look(state: Any, images: Any) -> tuple[Any, Any]:
        shown = inputs({"image": images}, encoder)
        captured = functions.apply_state(*state, shown, capture=wanted)[0][1] if wanted else {}
        return captured, [] if level is None else functions.features(*state, shown, levels=level)

    images, columns = pictures_of(batch, model), ["image"]
    grids = [(int(r), int(c)) for r, c in batch["grid"]] if "grid" in batch else [None] * len(images)
    pictures: list[list[np.ndarray]] = [[image] for image in images]
    maps: list[np.ndarray] = []
    for start in range(0, len(images), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        captured, found = on_host(look(state, jax.tree.map(itemgetter(rows), raw_images(batch))))
        maps += [place for some in found for place in some]
        if explanation is None:
            continue
        for row, image in enumerate(images[rows], start):
            weights = captured[explanation.capture][row - start]
            pictures[row].append(attention_overlay(image, weights, explanation, grids[row]))
    columns += ["attention, last block"] if explanation else []
    title, captions = "What the encoder sees", [""] * len(images)
    if maps:
        try:
            shown, foreground = colours(np.stack(maps))
        except ConfigError as error:
            title = f"{title}: {error}"
        else:
            columns.append("principal components")
            captions = [f"{places.mean():.0%} foreground" for places in foreground]
            for some, image, picture in zip(pictures, images, shown):
                some.append(enlarged(picture, image.shape[:2]))
    examples = [Example(*each) for each in zip(captions, pictures, records)]
    return Illustration(title, tuple(columns), examples)
