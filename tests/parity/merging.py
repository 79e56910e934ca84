"""What our models compute of the reference case of token merging."""

import jax
import jax.numpy as jnp

from vit_jax.models.functional import parameters
from vit_jax.models.registry import model_functions
from vit_jax.models.vit.config import replace
from vit_jax.models.vit.merging import Merged, matched, merged


def merging(model, inputs, about):
    """Logits are those of a call; what happens inside is done here block by block."""
    images, r = jnp.transpose(inputs["pixel_values"], (0, 2, 3, 1)), about["config"]["r"]
    depth, patches, params = model.config.depth, model.config.num_patches, parameters(model)

    def logits(**options):
        return model_functions(replace(model.config, **options)).apply(params, images)

    decreasing = (patches // 2, 2, 1, 0, 0)[:depth]
    return {
        "logits": logits(merge_tokens=r),
        "logits_no_proportional": logits(merge_tokens=r, merge_proportional=False),
        "logits_r0": logits(merge_tokens=0),
        "logits_plain": model(images),
        "logits_decreasing": logits(merge_tokens=decreasing),
        **by_block(model, images, r),
        **pairs(inputs),
    }


def by_block(model, images, r):
    x, around = model.embed(images), model.surroundings(images)
    state, found = Merged.nothing(x), {}
    for number in range(model.config.depth):
        block = jax.tree.map(lambda a, number=number: a[number], model.blocks)
        metric = block.keys(x).mean(axis=2)
        x, _ = block.attend(x, jnp.zeros(()), None, around._replace(sizes=state.sizes))
        chosen = matched(metric, min(r, (x.shape[1] - 1) // 2), 1)
        x, state = merged(x, state, chosen, 1)
        x = block.feed(x, jnp.zeros(()), None)
        found |= {f"keep.{number}": chosen.kept, f"src.{number}": chosen.gone, f"dst.{number}": chosen.into}
        found |= {f"metric.{number}": metric, f"tokens.{number}": x, f"size.{number}": state.sizes[..., None]}
    return found


def pairs(inputs):
    x, sizes, tokens = inputs["x"], jnp.asarray(inputs["size"])[..., 0], inputs["x"].shape[1]
    state, found = Merged(sizes, Merged.nothing(x).place), {}
    for prefix, kind in enumerate(("none", "cls", "cls_dist")):
        for r in (2, 9):
            chosen, name = (
                matched(inputs["metric"], min(r, (tokens - prefix) // 2), prefix),
                f"match.{kind}.r{r}",
            )
            y, after = merged(x, state, chosen, prefix)
            found |= dict(zip((f"{name}.{part}" for part in ("keep", "src", "dst")), chosen))
            found |= {f"{name}.size": after.sizes[..., None], f"{name}.merged": y}
    return found
