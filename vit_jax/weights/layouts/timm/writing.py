"""Vision Transformers as timm's hub has them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.layouts.layout import Written
from vit_jax.weights.layouts.timm.document import document


def write(config: ViTConfig, params: Mapping[str, Any], class_names: Sequence[str]) -> Written:
    """Return a model in timm's words; position tables of models with registers have no slot for the class token."""
    own = config.register_tokens and config.class_position and not config.register_position
    own = own and not config.distillation_token
    if own and config.class_token and config.position == "learned":
        table, token = np.asarray(params["pos_embed"]), np.asarray(params["class_token"])
        params = {**params, "class_token": token + table[:1], "pos_embed": table[1:]}
        config = dataclasses.replace(config, class_position=False)
    about, rules = document(config, class_names)
    return Written(config, params, rules, {"config.json": about})
