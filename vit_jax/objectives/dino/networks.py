"""What student and teacher are made of, an encoder with heads, and what they say of crops."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vit_jax.models.families import family_of
from vit_jax.models.family import Level
from vit_jax.models.flops import forward_macs
from vit_jax.models.functional import ModelFunctions
from vit_jax.models.heads.dino.config import DinoHeadConfig
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.registry import model_functions
from vit_jax.objectives.crops import Crops, flat
from vit_jax.objectives.dino.masks import most_masked
from vit_jax.objectives.dino.options import DinoOptions
from vit_jax.objectives.protocol import Buffers, Params
from vit_jax.random import fold


class Views(NamedTuple):
    """What a network says of crops: pooled features `(b*v, d)`, patches `(b*v, n, d)` if asked for, and scores."""

    pooled: jax.Array
    patches: jax.Array | None
    scores: jax.Array


@dataclass(frozen=True)
class Networks:
    """An `encoder`, a `head`, and perhaps a `patch_head`.

    Attributes:
      model: configuration of the encoder.
      options: sizes of the heads, and which there are.
    """

    model: Any
    options: DinoOptions

    @cached_property
    def encoder(self) -> ModelFunctions:
        """The encoder."""
        return model_functions(self.model)

    @cached_property
    def heads(self) -> dict[str, DinoHeadConfig]:
        """The heads, by their names among parameters."""
        width, options = self.model.output_width, self.options
        own = {"patch_head": options.patch_head(self.level.channels)} if options.patch_prototypes else {}
        return {"head": options.head(width), **own}

    @property
    def patch_head(self) -> str:
        """The name of the head that patches go through."""
        return "patch_head" if "patch_head" in self.heads else "head"

    @property
    def level(self) -> Level:
        """The map of patches."""
        return family_of(self.model).levels(self.model)[-1]

    def init(self, key: jax.Array) -> Params:
        """Return fresh parameters."""
        params = {"encoder": self.encoder.init(fold(key, "encoder"))}
        for name, head in self.heads.items():
            params[name] = model_functions(head).init(fold(key, name))
        return params

    def centres(self) -> Buffers:
        """Return the mean scores of the teacher's heads before there are any; none where targets are not centred."""
        if self.options.targets != "centre":
            return {}
        centres = {"centre": jnp.zeros(self.heads["head"].output_dim)}
        if self.options.patch_weight:
            centres["patch_centre"] = jnp.zeros(self.heads[self.patch_head].output_dim)
        return centres

    def views(
        self,
        params: Params,
        crops: jax.Array,
        key: jax.Array | None = None,
        *,
        patches: bool = False,
        masks: jax.Array | None = None,
    ) -> Views:
        """Return what a network says of crops `(b, v, h, w, c)`, some of whose patches may be masked `(b, v, n)`.

        Args:
          params: of the student or of a teacher.
          crops: normalised.
          key: randomness of dropout and the like; None for none.
          patches: whether features of patches are wanted.
          masks: bool, True where the mask token stands in for a patch.
        """
        mask = {} if masks is None else {"mask": flat(masks)}
        capture = (self.level.name,) if patches else ()
        found = self.encoder.apply(params["encoder"], flat(crops), key, capture=capture, **mask)
        pooled, captured = found if capture else (found, {})
        scores = model_functions(self.heads["head"]).apply(params["head"], pooled)
        if not patches:
            return Views(pooled, None, scores)
        tokens = captured[self.level.name]
        tokens = tokens[:, self.level.prefix :] if tokens.ndim == 3 else tokens
        return Views(pooled, tokens.reshape(len(tokens), -1, tokens.shape[-1]), scores)

    def patch_scores(self, params: Params, patches: jax.Array | None, places: jax.Array) -> jax.Array:
        """Return scores `(b*m, k)` of patches `(b*v, n, d)`, those at `places` `(b, m)` among an image's."""
        assert patches is not None
        rows = patches.reshape(len(places), -1, patches.shape[-1])
        chosen = jnp.take_along_axis(rows, places[..., None], axis=1)
        name = self.patch_head
        return flat(model_functions(self.heads[name]).apply(params[name], chosen))

    def macs(self, crops: tuple[Crops, ...]) -> tuple[int, int]:
        """Return the multiply-adds of an image's crops through the student, and of global ones through a teacher."""
        options, head = self.options, forward_macs(self.heads["head"])
        seen = [self.model, *(replace(self.model, image_size=one.size) for one in crops[1:])]
        each = [one.count * (forward_macs(model) + head) for one, model in zip(crops, seen)]
        patches = 0
        if options.patch_weight:
            rows = options.masked_crops * most_masked(self.level.grid, options.mask_ratio)
            patches = rows * forward_macs(self.heads[self.patch_head])
        return sum(each) + patches, each[0] + patches
