"""Image encoders whose output are maps of features, as a family. Needs no jax."""

from vit_jax.models.families import family_of
from vit_jax.models.family import Family
from vit_jax.models.heads import on_backbone
from vit_jax.models.pyramid.config import PyramidConfig

FAMILY = Family(
    name="pyramid",
    config=PyramidConfig,
    module="vit_jax.models.pyramid.model:Pyramid",
    macs=lambda config, visible=1.0: family_of(config.encoder).macs(config.encoder, visible),
    parameters=lambda config: family_of(config.encoder).parameters(config.encoder),
    parts={"image": "encoder"},
    depth=on_backbone.depth,
    layer_of=on_backbone.layer_of,
    widest=on_backbone.widest,
    per_image=lambda config: False,
)
